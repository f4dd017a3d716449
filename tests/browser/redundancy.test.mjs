// Redundant audio (RFC 2198) between browsers that differ in it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { join, untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";
import { publishVoice, speak } from "./lib/voice.mjs";

let server;
const browsers = {};
const tabs = {};

/** Has a page ask for redundancy in what it receives: redundant audio before Opus. */
function preferRed() {
  const real = RTCPeerConnection.prototype.addTransceiver;
  RTCPeerConnection.prototype.addTransceiver = function add(kind, options) {
    const transceiver = real.call(this, kind, options);
    if (kind === "audio" && options?.direction === "recvonly") {
      const all = RTCRtpReceiver.getCapabilities("audio").codecs;
      const red = all.filter(({ mimeType }) => mimeType === "audio/red");
      transceiver.setCodecPreferences([...red, ...all.filter((each) => !red.includes(each))]);
    }
    return transceiver;
  };
}

async function enter(name, browser, script) {
  const tab = await browsers[browser].tab();
  if (script) await tab.page.addInitScript(script);
  const address = `${server.address}/?scope=redundancy`;
  await join(tab, address, { name, token: TOKEN, devices: false });
  tabs[name] = tab;
  return tab;
}

before(async () => {
  server = await Server.start();
  browsers.chromium = await Browser.chromium();
  browsers.firefox = await Browser.firefox();
  await enter("red", "chromium");
  await enter("plain", "chromium");
  await enter("eager", "chromium", preferRed);
  await enter("usual", "chromium");
  await enter("fox", "firefox");
  await untilOthers(tabs.fox, ["eager", "plain", "red", "usual"]);
  await publishVoice(tabs.red, { codecs: ["red", "opus"] });
  await publishVoice(tabs.plain, { codecs: ["opus"] });
  await speak(tabs.red, true);
  await speak(tabs.plain, true);
}, { timeout: 180_000 });

after(async () => {
  await Promise.all(Object.values(browsers).map((browser) => browser.close()));
  await server?.stop();
});

/** What comes from a peer within two seconds: sound, and payloads of packets before. */
function heard(tab, from) {
  return tab.evaluate(async (name) => {
    const find = () => {
      const peers = [...globalThis.strait.peers.values()];
      return peers.find((peer) => peer.name === name)?.find("microphone");
    };
    while (!find()?.receiver) await new Promise((resolve) => setTimeout(resolve, 100));
    const read = async () => {
      const report = await find().receiver.getStats();
      return [...report.values()].find(({ type }) => type === "inbound-rtp") ?? {};
    };
    const before = await read();
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    const now = await read();
    const growth = (figure) => (now[figure] ?? 0) - (before[figure] ?? 0);
    return {
      packets: growth("packetsReceived"),
      energy: growth("totalAudioEnergy"),
      redundant: growth("fecPacketsReceived"),
    };
  }, from);
}

async function assertHeard(listener, from, redundant) {
  let last;
  for (let tries = 0; tries < 5; tries += 1) {
    last = await heard(tabs[listener], from);
    if (last.packets > 50 && last.energy > 0 && last.redundant > 50 === redundant) return;
  }
  assert.fail(`${listener} hears ${from}: ${JSON.stringify(last)}, redundant: ${redundant}`);
}

test("it goes on to who takes it, and is taken off for who does not", {
  timeout: 120_000,
}, async () => {
  await assertHeard("usual", "red", true);
  await assertHeard("eager", "red", true);
  await assertHeard("fox", "red", false);
});

test("it is made for who prefers it", { timeout: 120_000 }, async () => {
  await assertHeard("eager", "plain", true);
  await assertHeard("usual", "plain", false);
  await assertHeard("fox", "plain", false);
});

test("no page wrote an error", () => {
  for (const [name, tab] of Object.entries(tabs)) assert.deepEqual(tab.errors, [], name);
});
