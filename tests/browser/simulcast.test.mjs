// Simulcast: a publisher sends three sizes, and each watcher gets the one that it wants.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { SLACK } from "./lib/bounds.mjs";
import { Browser } from "./lib/browsers.mjs";
import { publishCamera } from "./lib/camera.mjs";
import { join, untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";

/** Large enough for the three layers that browsers make of it, small enough for two cores. */
const CAMERA = { width: 960, height: 540, frameRate: 15 };
/** A change of the layer waits for a key frame, and nothing stands still for longer than this. */
const FREEZE_MS_MAX = 1_500 * SLACK;

let server;
let browser;
const tabs = {};

before(async () => {
  server = await Server.start();
  browser = await Browser.chromium();
  for (const name of ["sender", "watcher"]) {
    tabs[name] = await browser.tab();
    const address = `${server.address}/?scope=simulcast`;
    await join(tabs[name], address, { name, token: TOKEN, devices: false });
  }
  await untilOthers(tabs.watcher, ["sender"]);
}, { timeout: 120_000 });

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Sets a preference, then looks for `ms` every 50 ms: heights in order, longest standstill. */
function heightsAfter(tab, preference, ms) {
  return tab.evaluate(
    async ([wanted, length]) => {
      const { strait } = globalThis;
      const publication = [...strait.peers.values()][0].find("camera");
      const read = async () => {
        const report = await publication.receiver.getStats();
        return [...report.values()].find(({ type }) => type === "inbound-rtp");
      };
      const heights = [];
      let frames = (await read()).framesDecoded;
      let movedAt = performance.now();
      let standstillMs = 0;
      const began = movedAt;
      await strait.prefer(publication, wanted);
      while (performance.now() - began < length) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        const { framesDecoded, frameHeight } = await read();
        const now = performance.now();
        if (framesDecoded > frames) movedAt = now;
        frames = framesDecoded;
        standstillMs = Math.max(standstillMs, now - movedAt);
        if (heights.at(-1) !== frameHeight) heights.push(frameHeight);
      }
      return { heights, standstillMs };
    },
    [preference, ms],
  );
}

test("a simulcast publisher sends three encodings", { timeout: 60_000 }, async () => {
  await tabs.sender.evaluate(async (video) => {
    // The page's own captures are made small for the other tests.
    const { getUserMedia } = MediaDevices.prototype;
    const stream = await getUserMedia.call(navigator.mediaDevices, { video });
    const [track] = stream.getVideoTracks();
    await globalThis.strait.publish(track, { simulcast: true, source: "camera" });
  }, CAMERA);
  await tabs.sender.until(
    "three encodings that carry frames",
    async () => {
      const { connection } = globalThis.strait.media;
      const report = [...(await connection.getStats()).values()];
      const sending = report.filter(
        ({ type, kind, framesEncoded, packetsSent }) =>
          type === "outbound-rtp" && kind === "video" && framesEncoded > 0 && packetsSent > 0,
      );
      // Not all at a time: those that nobody needs are stopped.
      const seen = (globalThis.seenHeights ??= {});
      for (const { rid, frameHeight } of sending) if (frameHeight) seen[rid] = frameHeight;
      const heights = Object.entries(seen).map(([rid, height]) => `${rid} ${height}`);
      return heights.sort().join() === "f 540,h 270,q 135" || heights.join();
    },
    { timeoutMs: 30_000 },
  );
});

test("a watcher gets the layer that it prefers, without a freeze", { timeout: 90_000 }, async () => {
  await tabs.watcher.until(
    "the largest picture",
    async () => {
      const { subscriptions } = await globalThis.strait.statistics();
      return subscriptions[0]?.frameHeight === 540 || subscriptions[0]?.frameHeight;
    },
    { timeoutMs: 30_000 },
  );
  for (const [preference, height] of [
    [{ layerMax: 0 }, 135],
    [{}, 540],
    [{ layerMax: 1 }, 270],
    [{}, 540],
  ]) {
    const { heights, standstillMs } = await heightsAfter(tabs.watcher, preference, 4_000);
    const what = `${JSON.stringify(preference)}: heights ${heights}`;
    assert.equal(heights.at(-1), height, what);
    assert.ok(standstillMs <= FREEZE_MS_MAX, `${what}, stood still for ${standstillMs} ms`);
  }
});

test("the relay knows what the watcher's line carries", { timeout: 30_000 }, async () => {
  await tabs.watcher.until(
    "a round trip, and a budget",
    async () => {
      // Only transport-wide feedback, which the browser was asked for, tells the round trip.
      const { budgetBps, roundTripSeconds } = await globalThis.strait.relayStatistics();
      const known = roundTripSeconds > 0 && roundTripSeconds < 1 && budgetBps > 500_000;
      return known || JSON.stringify({ budgetBps, roundTripSeconds });
    },
    { timeoutMs: 20_000 },
  );
});

/** Waits until exactly these layers of the sender carry frames; returns after how many milliseconds. */
function untilSending(rids, timeoutMs) {
  return tabs.sender.evaluate(
    async ([wanted, limit]) => {
      const { connection } = globalThis.strait.media;
      const counts = async () => {
        const report = [...(await connection.getStats()).values()];
        const video = report.filter(({ type, kind }) => type === "outbound-rtp" && kind === "video");
        return new Map(video.map(({ rid, packetsSent }) => [rid, packetsSent]));
      };
      const began = performance.now();
      let before = await counts();
      let sending = "";
      while (performance.now() - began < limit) {
        await new Promise((resolve) => setTimeout(resolve, 300));
        const after = await counts();
        // A packet now and then is a probe.
        const grown = [...after].filter(([rid, sent]) => sent - (before.get(rid) ?? 0) > 2);
        sending = grown.map(([rid]) => rid).sort().join();
        before = after;
        if (sending === wanted) return performance.now() - began;
      }
      return `after ${limit} ms these send: ${sending}`;
    },
    [rids, timeoutMs],
  );
}

function prefer(preference) {
  return tabs.watcher.evaluate((wanted) => {
    const { strait } = globalThis;
    return strait.prefer([...strait.peers.values()][0].find("camera"), wanted);
  }, preference);
}

test("a layer that nobody needs stops, and comes back for who does", { timeout: 90_000 }, async (t) => {
  await prefer({});
  for (const [preference, rids] of [
    [{}, "f"],
    [{ layerMax: 0 }, "q"],
    [{ layerMax: 1 }, "h"],
    [{}, "f"],
    [{ height: 200 }, "h"],
  ]) {
    await prefer(preference);
    const ms = await untilSending(rids, 15_000);
    assert.equal(typeof ms, "number", `${JSON.stringify(preference)}: ${ms}`);
    t.diagnostic(`${JSON.stringify(preference)}: ${rids} alone after ${Math.round(ms)} ms`);
  }
});

for (const codec of ["VP9", "AV1"]) {
  test(`${codec} comes in encodings, too`, { timeout: 90_000 }, async () => {
    const [sender, watcher] = [await browser.tab(), await browser.tab()];
    const address = `${server.address}/?scope=${codec}`;
    await join(sender, address, { name: "sender", token: TOKEN, devices: false });
    await join(watcher, address, { name: "watcher", token: TOKEN, devices: false });
    await untilOthers(watcher, ["sender"]);
    await publishCamera(sender, { frameRate: 10, codecs: [codec] });
    for (const [preference, height] of [[{}, 540], [{ layerMax: 0 }, 135]]) {
      await watcher.evaluate(async (wanted) => {
        const { strait } = globalThis;
        const camera = () => [...strait.peers.values()][0].find("camera");
        while (!camera()?.receiver) await new Promise((resolve) => setTimeout(resolve, 50));
        await strait.prefer(camera(), wanted);
      }, preference);
      await watcher.until(
        `${codec} of ${height} lines`,
        async ([lines, name]) => {
          const [peer] = globalThis.strait.peers.values();
          const report = await peer.find("camera").receiver.getStats();
          const all = [...report.values()];
          const video = all.find(({ type }) => type === "inbound-rtp");
          const mimeType = all.find(({ id }) => id === video?.codecId)?.mimeType;
          return (video?.frameHeight === lines && mimeType === `video/${name}`) ||
            `${mimeType} ${video?.frameHeight}`;
        },
        { timeoutMs: 40_000, argument: [height, codec] },
      );
    }
    for (const tab of [sender, watcher]) await tab.click("#leave");
  });
}
