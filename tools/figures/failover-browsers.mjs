// Five real browsers in one scope of a cluster, each sending sound and hearing the others: what they hear is looked at
// while others kill nodes. Reads lines, answers each with one:
//
//   begin   forgets the longest silences
//   look    a JSON array of the longest silence of each since then, in seconds, of whomever it heard the least
//
//   node tools/figures/failover-browsers.mjs TOKEN SCOPE CNC…
import { createInterface } from "node:readline";
import { Browser } from "../../tests/browser/lib/browsers.mjs";
import { ApplicationPage } from "../../tests/browser/lib/cnc.mjs";

const [token, scope, ...resolvers] = process.argv.slice(2);
/** Tabs of one Chromium, and of one Firefox. */
const TABS = { chromium: 3, firefox: 2 };
const COUNT = TABS.chromium + TABS.firefox;
/** How often it is looked whether packets came: so much a silence may be off. */
const LOOK_MS = 100;
const START_WITHIN_MS = 60_000;

/** Runs in the page. */
async function join([cncs, token, scope, name, lookMs]) {
  const { Strait } = await import("/strait.js");
  const call = await Strait.join({ resolvers: cncs, scope, token, name, publish: ["microphone"] });
  globalThis.call = call;
  /** By the name of who speaks: identifiers are others on each node. */
  globalThis.heard = new Map();
  setInterval(async () => {
    // Without media there is nothing to be asked, and the silence goes on.
    const { subscriptions } = await call.statistics().catch(() => ({ subscriptions: [] }));
    for (const { publication, packetsReceived: packets } of subscriptions) {
      if (!packets) continue;
      const { name } = publication.peer;
      const one = globalThis.heard.get(name) ?? { packets: 0, last: performance.now(), longest: 0 };
      if (packets === one.packets) continue;
      const now = performance.now();
      one.longest = Math.max(one.longest, now - one.last);
      globalThis.heard.set(name, { ...one, packets, last: now });
    }
  }, lookMs);
}

function begin() {
  for (const one of globalThis.heard.values()) one.longest = 0;
}

/** Seconds; none while somebody was never heard. */
function look(others) {
  const { heard } = globalThis;
  if (heard.size < others) return null;
  const now = performance.now();
  return Math.max(...[...heard.values()].map(({ last, longest }) => Math.max(longest, now - last))) / 1_000;
}

const page = await new ApplicationPage().listen();
const browsers = [];
try {
  const tabs = [];
  for (const [kind, count] of Object.entries(TABS)) {
    const browser = await Browser[kind]();
    browsers.push(browser);
    for (let number = 1; number <= count; number += 1) {
      const tab = await browser.tab();
      await tab.goto(page.address);
      await tab.evaluate(join, [resolvers, token, scope, `${kind}-${number}`, LOOK_MS]);
      tabs.push(tab);
    }
  }
  const all = (task, argument) => Promise.all(tabs.map((tab) => tab.evaluate(task, argument)));
  for (const end = Date.now() + START_WITHIN_MS; ; ) {
    const silences = await all(look, COUNT - 1);
    if (silences.every((seconds) => seconds !== null)) break;
    if (Date.now() > end) throw new Error(`not all browsers hear all others: ${JSON.stringify(silences)}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  console.log("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = line === "begin" ? await all(begin).then(() => []) : await all(look, COUNT - 1);
    console.log(JSON.stringify(answer));
  }
} finally {
  page.close();
  for (const browser of browsers) await browser.close();
}
