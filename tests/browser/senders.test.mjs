// Allowed senders: a client takes sound, pictures and screens from whom it names alone.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { connected, join, received, untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";

let server;
let browser;
const tabs = {};

before(async () => {
  server = await Server.start();
  browser = await Browser.chromium();
}, { timeout: 60_000 });

after(async () => {
  await browser?.close();
  await server?.stop();
});

async function enter(name, devices) {
  tabs[name] = await browser.tab();
  const address = `${server.address}/?scope=senders`;
  await join(tabs[name], address, { name, token: TOKEN, devices });
}

/** Sets the listener's rules; peers are named by their display names here. */
function allow(rules) {
  return tabs.listener.evaluate((wanted) => {
    const { strait } = globalThis;
    const ids = (names) =>
      [...strait.peers.values()].filter(({ name }) => names.includes(name)).map(({ id }) => id);
    const entries = Object.entries(wanted).map(([type, names]) => [
      type,
      names === "all" ? names : ids(names),
    ]);
    return strait.allowSenders(Object.fromEntries(entries));
  }, rules);
}

/** Waits until media of exactly these arrives, as in `ann video`: all of it, and nothing else. */
async function untilArriving(wanted) {
  const end = Date.now() + 20_000;
  let seen;
  do {
    const before = await received(tabs.listener);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    const now = await received(tabs.listener);
    const packets = (list, { peer, kind }) =>
      list.find((each) => each.peer === peer && each.kind === kind)?.packetsReceived ?? 0;
    const moving = now.filter((each) => packets(now, each) > packets(before, each));
    seen = moving.map(({ peer, kind }) => `${peer} ${kind}`).sort();
    if (seen.join() === [...wanted].sort().join()) return;
  } while (Date.now() < end);
  const { subscriptions, budgetBps } = await tabs.listener.evaluate(() =>
    globalThis.strait.relayStatistics(),
  );
  const told = subscriptions.map((s) => `${s.publicationId} ${s.packets} ${s.heldBack}`);
  assert.deepEqual(seen, [...wanted].sort(), `${budgetBps} bit/s: ${told.join(", ")}`);
}

test("media comes from allowed senders alone, also from who joins later", {
  timeout: 120_000,
}, async () => {
  await enter("listener", false);
  await enter("ann", true);
  await untilOthers(tabs.listener, ["ann"]);
  await untilArriving(["ann audio", "ann video"]);
  await allow({ video: ["ann"] });
  await enter("bob", true);
  await untilOthers(tabs.listener, ["ann", "bob"]);
  await untilArriving(["ann audio", "ann video", "bob audio"]);
  await allow({ video: ["bob"], audio: ["ann"] });
  await untilArriving(["ann audio", "bob video"]);
});

test("the rules outlive media that begins anew", { timeout: 60_000 }, async () => {
  await tabs.listener.evaluate(() => globalThis.strait.media.connection.close());
  await tabs.listener.evaluate(() => globalThis.strait.rejoin("media"));
  await connected(tabs.listener);
  await untilArriving(["ann audio", "bob video"]);
  await allow({ video: "all", audio: "all" });
  await untilArriving(["ann audio", "ann video", "bob audio", "bob video"]);
});
