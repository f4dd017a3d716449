// Messages over WebRTC data channels between real browsers: text and bytes, in order, and over the WebSocket when a
// channel ends.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { Native } from "./lib/native.mjs";
import { join, untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";

let server;
const browsers = [];
const tabs = {};

before(async () => {
  server = await Server.start();
  browsers.push(await Browser.chromium(), await Browser.firefox());
  // Kept before the page's own scripts run: the SDK makes its channel for itself.
  const keep = () => {
    globalThis.channels = [];
    const { createDataChannel } = RTCPeerConnection.prototype;
    RTCPeerConnection.prototype.createDataChannel = function (...given) {
      const channel = createDataChannel.apply(this, given);
      globalThis.channels.push(channel);
      // Counted here: a browser's statistics follow after a while.
      channel.sent = 0;
      const { send } = channel;
      channel.send = (data) => {
        send.call(channel, data);
        channel.sent += 1;
      };
      return channel;
    };
  };
  for (const browser of browsers) {
    const tab = await browser.tab();
    tabs[browser.kind] = tab;
    await tab.first(keep);
    const address = `${server.address}/?scope=channels`;
    await join(tab, address, { name: browser.kind, token: TOKEN, devices: browser.kind === "firefox" });
    await tab.evaluate(() => {
      globalThis.heard = [];
      globalThis.strait.onMessage(({ from, data, direct }) => {
        const name = globalThis.strait.peers.get(from)?.name;
        const said = typeof data === "string" ? data : [...data];
        globalThis.heard.push({ name, said, direct });
      });
    });
  }
}, { timeout: 120_000 });

after(async () => {
  for (const browser of browsers) await browser.close();
  await server?.stop();
});

/** Both ways: the server sends over it too. */
const open = (tab) =>
  tab.until(
    "the data channel is in use",
    () => globalThis.strait.hasDataChannel && globalThis.strait.messenger.on,
    { timeoutMs: 40_000 },
  );

/** Waits for so many messages, and returns them. */
async function heard(tab, count) {
  await tab.until(`${count} messages`, (wanted) => globalThis.heard.length >= wanted, {
    argument: count,
  });
  return tab.evaluate(() => globalThis.heard.splice(0));
}

/** Frames that the page sent over its channels: what it said, and answers to what it heard. */
const overChannel = (tab) =>
  tab.evaluate(() => globalThis.channels.reduce((sum, { sent }) => sum + sent, 0));

/** What is to be known of a tab whose messages went another way. */
const ways = (tab) =>
  tab.evaluate(async () => {
    const { hasDataChannel, messenger, state, media } = globalThis.strait;
    const report = [...((await media?.connection.getStats())?.values() ?? [])];
    const told = report.filter(({ type }) => type === "data-channel");
    const channels = globalThis.channels.map(({ label, readyState, sent, id }) => ({
      label, readyState, sent, id,
    }));
    const statistics = told.map(({ messagesSent, messagesReceived }) => ({
      messagesSent, messagesReceived,
    }));
    return JSON.stringify({ state, hasDataChannel, on: messenger.on, channels, statistics });
  });

test("text and bytes go over data channels between Chromium and Firefox, in order", {
  timeout: 120_000,
}, async () => {
  const { chromium, firefox } = tabs;
  await untilOthers(chromium, ["firefox"]);
  await untilOthers(firefox, ["chromium"]);
  await open(chromium);
  await open(firefox);
  for (const [from, to] of [[chromium, firefox], [firefox, chromium]]) {
    await from.evaluate(async () => {
      const [other] = [...globalThis.strait.peers.values()];
      const sent = [];
      for (let n = 0; n < 200; n += 1) sent.push(globalThis.strait.sendMessage(`text ${n} ☕`));
      sent.push(globalThis.strait.sendMessage(new Uint8Array([0, 255, 128]), other));
      sent.push(globalThis.strait.sendMessage("", other));
      const large = new Uint8Array(64 * 1024).map((_, at) => at % 251);
      sent.push(globalThis.strait.sendMessage(large));
      await Promise.all(sent);
    });
    const name = from.kind;
    const all = await heard(to, 203);
    assert.deepEqual(
      all.slice(0, 200),
      Array.from({ length: 200 }, (_, n) => ({ name, said: `text ${n} ☕`, direct: false })),
    );
    assert.deepEqual(all[200], { name, said: [0, 255, 128], direct: true });
    assert.deepEqual(all[201], { name, said: "", direct: true });
    assert.equal(all[202].said.length, 64 * 1024);
    assert.ok(all[202].said.every((byte, at) => byte === at % 251));
  }
  // Each sent 203 messages and as many answers.
  for (const tab of [chromium, firefox]) {
    const count = await overChannel(tab);
    assert.ok(count >= 406, `${tab.kind}: ${count} frames of 406; ${await ways(tab)}`);
  }
  const refused = await chromium.evaluate(() =>
    globalThis.strait.sendMessage("x", "p-nobody").catch(({ code }) => code),
  );
  assert.equal(refused, 404);
});

test("a browser's data channel and a native client's link say the same to each other, in order", {
  timeout: 120_000,
}, async () => {
  const { chromium, firefox } = tabs;
  const native = await Native.join(server, "channels");
  try {
    await untilOthers(chromium, ["firefox", "native"]);
    await untilOthers(firefox, ["chromium", "native"]);
    await open(chromium);
    const before = await overChannel(chromium);
    await chromium.evaluate(async () => {
      const other = [...globalThis.strait.peers.values()].find(({ name }) => name === "native");
      const sent = [];
      for (let n = 0; n < 200; n += 1) {
        sent.push(globalThis.strait.sendMessage(`to all ${n} ☕`));
        sent.push(globalThis.strait.sendMessage(`to one ${n}`, other));
      }
      sent.push(globalThis.strait.sendMessage(new Uint8Array([0, 255, 128]), other));
      await Promise.all(sent);
    });
    const from = await chromium.evaluate(() => globalThis.strait.peer);
    const both = Array.from({ length: 200 }, (_, n) => [
      { from, direct: false, text: `to all ${n} ☕` },
      { from, direct: true, text: `to one ${n}` },
    ]);
    const bytes = { from, direct: true, data: [0, 255, 128] };
    assert.deepEqual(await native.heard(401), [...both.flat(), bytes]);
    const toAll = Array.from({ length: 200 }, (_, n) => `to all ${n} ☕`);
    assert.deepEqual((await heard(firefox, 200)).map(({ said }) => said), toAll);
    const count = (await overChannel(chromium)) - before;
    assert.ok(count >= 401, `${count} frames of 401 went over the channel; ${await ways(chromium)}`);

    for (let n = 0; n < 200; n += 1) {
      native.say("*", `to all ${n} ☕`);
      native.say(from, `to one ${n}`);
    }
    const name = "native";
    assert.deepEqual(
      await heard(chromium, 400),
      both.flat().map(({ direct, text }) => ({ name, said: text, direct })),
    );
    assert.deepEqual((await heard(firefox, 200)).map(({ said }) => said), toAll);
  } finally {
    native.end();
  }
});

test("what a channel did not bring comes over the WebSocket, once and in order", {
  timeout: 120_000,
}, async () => {
  const { chromium, firefox } = tabs;
  // The receiver's ends, then the sender's.
  await firefox.evaluate(() => {
    const stop = globalThis.strait.onMessage(({ data }) => {
      if (!data.startsWith("100 ")) return;
      stop();
      globalThis.channels[0].close();
    });
  });
  await chromium.evaluate(async () => {
    const sent = [];
    for (let n = 0; n < 300; n += 1) {
      sent.push(globalThis.strait.sendMessage(`${n} ${"x".repeat(2_000)}`));
      if (n === 200) globalThis.channels[0].close();
    }
    await Promise.all(sent);
  });
  const all = await heard(firefox, 300);
  assert.deepEqual(
    all.map(({ said }) => Number(said.split(" ")[0])),
    Array.from({ length: 300 }, (_, n) => n),
  );
  for (const tab of [chromium, firefox]) {
    assert.equal(await tab.evaluate(() => globalThis.strait.hasDataChannel), false);
  }
});

test("channels of other labels are passed on to those who opened one of the same", {
  timeout: 120_000,
}, async () => {
  const { chromium, firefox } = tabs;
  // The SDK's own connection: the m-line is there.
  for (const tab of [chromium, firefox]) {
    await tab.evaluate(() => {
      globalThis.pose = globalThis.strait.media.connection.createDataChannel("pose", { ordered: false });
      globalThis.poses = [];
      globalThis.pose.addEventListener("message", ({ data }) => globalThis.poses.push(data));
    });
    await tab.until("the plain channel is open", () => globalThis.pose.readyState === "open");
  }
  await chromium.evaluate(() => globalThis.pose.send("here"));
  await firefox.until("a pose", () => globalThis.poses.includes("here"));
  await firefox.evaluate(() => globalThis.pose.send("there"));
  await chromium.until("a pose", () => globalThis.poses.includes("there"));
});
