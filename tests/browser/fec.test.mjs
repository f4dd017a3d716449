// A browser that sends FlexFEC over a line that loses packets: the relay has from it what was lost.
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Browser, CHROMIUM } from "./lib/browsers.mjs";
import { publishCamera } from "./lib/camera.mjs";
import { Lab } from "./lib/lab.mjs";
import { join, untilOthers } from "./lib/page.mjs";
import { freePort, Server, TOKEN } from "./lib/server.mjs";

/** Browsers send it by these alone, until they are told otherwise. */
const TRIALS = "WebRTC-FlexFEC-03/Enabled/WebRTC-FlexFEC-03-Advertised/Enabled/";
/** Behind a short round trip a sender takes retransmissions alone. */
const LINE = "up loss=5% delay=150ms";

let server;
let metricsPort;
let browser;
let lab;

before(async () => {
  metricsPort = await freePort();
  server = await Server.start({ metricsPort });
  const profile = await mkdtemp(path(tmpdir(), "strait-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--use-fake-ui-for-media-stream",
      "--disable-features=WebRtcHideLocalIpsWithMdns",
      "--disable-renderer-backgrounding",
      "--disable-background-timer-throttling",
      "--disable-backgrounding-occluded-windows",
      `--force-fieldtrials=${TRIALS}`,
    ],
    viewport: { width: 800, height: 600 },
  });
  browser = new Browser("chromium", context);
  browser.profile = profile;
  lab = await Lab.before(server.mediaPort, LINE);
}, { timeout: 60_000 });

after(async () => {
  lab?.close();
  await browser?.close();
  await server?.stop();
});

/** A counter of the relay's, over its workers. */
async function counted(name) {
  const page = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  const lines = page.split("\n").filter((line) => line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

test("what it loses is had from the rest", { timeout: 60_000 }, async (t) => {
  const [sender, watcher] = [await browser.tab(), await browser.tab()];
  await lab.carry(sender);
  for (const [tab, name] of [[sender, "sender"], [watcher, "watcher"]]) {
    await join(tab, `${server.address}/?scope=fec`, { name, token: TOKEN, devices: false });
  }
  await untilOthers(watcher, ["sender"]);
  await publishCamera(sender, { width: 640, height: 360, frameRate: 15, simulcast: false });
  const end = Date.now() + 40_000;
  let [packets, recovered] = [0, 0];
  while (recovered < 5 && Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    packets = await counted("relay_fec_packets_total");
    recovered = await counted("relay_fec_recovered_total");
  }
  t.diagnostic(`${packets} packets of FlexFEC gave back ${recovered}`);
  t.diagnostic(`line: ${JSON.stringify(await lab.tell())}`);
  assert.ok(recovered >= 5, `${recovered} of ${packets} packets of FlexFEC`);
  await watcher.until("a picture", async () => {
    const { subscriptions } = await globalThis.strait.statistics();
    return subscriptions.some(({ framesDecoded }) => framesDecoded > 0);
  });
});
