// Measures, in real Chromium, the time from pressing Join on the page to the first decoded picture
// of somebody else's camera. Prints a JSON array of seconds.
//
//   node tools/figures/first-picture.mjs http://localhost:8080 TOKEN
import { createRequire } from "node:module";
import { execFileSync } from "node:child_process";

const [base, token] = process.argv.slice(2);
const JOINS = 5;
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--use-fake-device-for-media-stream=fps=15", "--use-fake-ui-for-media-stream",
  "--disable-features=WebRtcHideLocalIpsWithMdns", "--autoplay-policy=no-user-gesture-required",
  "--disable-renderer-backgrounding",
];

// The driver is a package of the browser tests.
const require = createRequire(`${process.cwd()}/tests/browser/package.json`);
const { chromium } = require("playwright-core");

function chromiumPath() {
  if (process.env.CHROMIUM_PATH) return process.env.CHROMIUM_PATH;
  const names = ["chromium", "google-chrome", "chromium-browser"];
  const script = names.map((name) => `command -v ${name}`).join(" || ");
  return execFileSync("sh", ["-c", script], { encoding: "utf8" }).trim();
}

// Runs in the page before its own scripts: notes when Join is pressed, and when the first picture
// of a received track has been decoded.
function watch() {
  window.joinPressed = undefined;
  window.firstPicture = new Promise((resolve) => {
    const Native = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Native {
      constructor(...arguments_) {
        super(...arguments_);
        this.addEventListener("track", async ({ track }) => {
          if (track.kind !== "video") return;
          const reader = new MediaStreamTrackProcessor({ track: track.clone() }).readable.getReader();
          const { value } = await reader.read();
          resolve((performance.now() - window.joinPressed) / 1000);
          value?.close();
          await reader.cancel();
        });
      }
    };
  });
  addEventListener("submit", () => (window.joinPressed = performance.now()), { capture: true });
}

const browser = await chromium.launch({
  executablePath: chromiumPath(),
  headless: true,
  args: FLAGS,
});
try {
  const open = async (name) => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.addInitScript(watch);
    await page.goto(`${base}/?scope=first-picture&name=${name}&token=${encodeURIComponent(token)}`);
    await page.waitForSelector("#join");
    return { context, page };
  };
  const there = await open("there");
  await there.page.click("#join");
  await there.page.waitForFunction(() => window.strait !== undefined, undefined, { timeout: 20_000 });
  await there.page.waitForTimeout(3_000);
  const times = [];
  for (let n = 0; n < JOINS; n++) {
    const { context, page } = await open(`joiner-${n}`);
    await page.click("#join");
    const late = new Promise((_, reject) =>
      setTimeout(() => reject(new Error("no picture within 20 s")), 20_000).unref());
    times.push(await Promise.race([page.evaluate(() => window.firstPicture), late]));
    await context.close();
    await there.page.waitForTimeout(1_000);
  }
  console.log(JSON.stringify(times));
} finally {
  await browser.close();
}
