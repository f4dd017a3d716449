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

/** What comes from a peer within two seconds: sound, and bytes of payload in a packet. */
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
    const packets = growth("packetsReceived");
    return { packets, size: growth("bytesReceived") / packets, energy: growth("totalAudioEnergy") };
  }, from);
}

/** How many payloads of the voice a packet holds; `single` is the size of one. */
async function payloads(listener, from, single) {
  const { packets, size, energy } = await heard(tabs[listener], from);
  assert.ok(packets > 50 && energy > 0, `${listener} does not hear ${from}`);
  return Math.round(size / single);
}

let single;

test("without it each sound comes once", { timeout: 60_000 }, async () => {
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  single = (await heard(tabs.usual, "plain")).size;
  assert.ok(single > 30 && single < 150, `${single} bytes`);
  assert.equal(await payloads("fox", "plain", single), 1);
});

test("it goes on to who takes it, and is taken off for who does not", {
  timeout: 60_000,
}, async () => {
  assert.equal(await payloads("usual", "red", single), 2);
  assert.equal(await payloads("eager", "red", single), 2);
  assert.equal(await payloads("fox", "red", single), 1);
});

test("it is made for who prefers it", { timeout: 60_000 }, async () => {
  assert.equal(await payloads("eager", "plain", single), 3);
});

test("no page wrote an error", () => {
  for (const [name, tab] of Object.entries(tabs)) assert.deepEqual(tab.errors, [], name);
});
