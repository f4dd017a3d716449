// Runs each file of tests by itself, one after the other: `node run.mjs [FILE…]`. A file that fails is run again, for
// browsers on a machine with other work miss a picture or a second now and then; what needed it is told, in
// $STRAIT_AGAIN too. What fails each time has failed.
import { spawn } from "node:child_process";
import { appendFileSync, readdirSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const RUNS_MAX = 3;

const folder = dirname(fileURLToPath(import.meta.url));
const named = process.argv.slice(2);
const files = named.length
  ? named
  : readdirSync(folder).filter((name) => name.endsWith(".test.mjs")).sort();

/** One run of a file; its output goes on as it comes, but for the closing counts, which are returned. */
function run(file) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--test", "--test-reporter=tap", file], {
      cwd: folder,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const counts = { pass: 0, fail: 0, skipped: 0, cancelled: 0 };
    const failed = [];
    let rest = "";
    const line = (text) => {
      const count = /^# (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([0-9.]+)$/.exec(text);
      if (count) {
        if (count[1] in counts) counts[count[1]] = Number(count[2]);
        return;
      }
      const failure = /^ *not ok [0-9]+ - (.*)$/.exec(text);
      if (failure && !failure[1].endsWith(".mjs")) failed.push(failure[1]);
      console.log(text);
    };
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", (data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      lines.forEach(line);
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (rest) line(rest);
      counts.fail += counts.cancelled;
      if (code !== 0 && counts.fail === 0) counts.fail = 1;
      resolve({ counts, failed });
    });
  });
}

const total = { pass: 0, fail: 0, skipped: 0 };
for (const file of files) {
  const began = Date.now();
  let result;
  for (let number = 1; number <= RUNS_MAX; number += 1) {
    console.log(`# ${file}${number > 1 ? `, run ${number}` : ""}`);
    result = await run(file);
    if (result.counts.fail === 0) break;
    if (number === RUNS_MAX) break;
    const again = `real browsers: ${file}, run ${number} failed: ${result.failed.join("; ")}`;
    console.log(`# ${again}; again`);
    if (process.env.STRAIT_AGAIN) appendFileSync(process.env.STRAIT_AGAIN, `${again}\n`);
  }
  for (const kind of Object.keys(total)) total[kind] += result.counts[kind];
  console.log(`# ${file}: ${((Date.now() - began) / 1000).toFixed(1)} s`);
}
console.log(`${total.pass} passed, ${total.fail} failed, ${total.skipped} skipped`);
process.exitCode = total.fail ? 1 : 0;
