// Chromium and Firefox on a host with two uplinks, which come and go: the call goes on, in the same session.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { SLACK, STRICT } from "./lib/bounds.mjs";
import { Browser } from "./lib/browsers.mjs";
import { isSame, localAddress, seen, untilSteady, watch } from "./lib/moving.mjs";
import { join, untilOthers } from "./lib/page.mjs";
import { skip } from "./lib/redis.mjs";
import { Server, TOKEN } from "./lib/server.mjs";
import { Uplinks } from "./lib/uplinks.mjs";

/** docs/sdk.md: sound, and on a quiet machine pictures as well, is there again so long after the network went, or came. */
const STANDS_STILL_MS_MAX = 5_000;
/** Without any network Firefox tries every 4 s, and is not told that it is back; where it gave ICE up, that is made anew 1 s later. */
const AWAY_FIREFOX_MS_MAX = 8_000;
/** All move for so long before and after, without a longer pause than this: a frame is due every 67 ms. */
const STEADY_MS = 2_000;
const PAUSE_MS = 700;
const PATIENCE_MS = 45_000;
const AWAY_MS = 10_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let uplinks, lack, server;
const browsers = [];
/** Anna and Bert are on the host with the uplinks, Carl is not. */
const tabs = {};
const MOVING = ["anna", "bert"];

before(async () => {
  try {
    uplinks = await Uplinks.make();
  } catch (error) {
    lack = `no hosts with uplinks: ${error.message}`;
    return;
  }
  const { node, home, address } = uplinks;
  server = await Server.start({ host: node, ip: address });
  const flags = ["--ignore-certificate-errors"];
  browsers.push(await Browser.chromium({ host: home, flags }));
  browsers.push(await Browser.firefox({ host: home }));
  browsers.push(await Browser.chromium({ host: node, flags }));
  for (const [index, name] of ["anna", "bert", "carl"].entries()) {
    const tab = (tabs[name] = await browsers[index].tab());
    await join(tab, `${server.secureAddress}/?scope=moving`, { name, token: TOKEN });
  }
  for (const [name, tab] of Object.entries(tabs)) {
    await untilOthers(tab, Object.keys(tabs).filter((each) => each !== name));
    await watch(tab);
  }
  await steady(Date.now());
}, { timeout: 120_000 });

after(async () => {
  // A browser that hangs must not hold the others' tests up.
  setTimeout(() => process.exit(1), 30_000).unref();
  await Promise.all(browsers.map((browser) => browser.close()));
  await server?.stop();
  await uplinks?.close();
});

const streams = (name) => [`${name}'s pictures`, `${name}'s sound`];

/** What tells of each of the two alone: what it gets of Carl, and what Carl gets of it. */
const ways = () => MOVING.flatMap((name) => [
  { name, tab: tabs[name], what: streams("carl") },
  { name, tab: tabs.carl, what: streams(name) },
]);

/** Whether it is held against the bounds: on a busy machine the estimate of a line stops pictures for half a minute by itself. */
const isTimed = (stream) => STRICT || stream.endsWith("sound");

async function steady(since) {
  const given = { since, steadyMs: STEADY_MS, pauseMs: PAUSE_MS, timeoutMs: PATIENCE_MS };
  await Promise.all(ways().map(({ tab, what }) => untilSteady(tab, what.filter(isTimed), given)));
}

/** Waits until all goes on, by this uplink; holds how long it stood still since then against the bound. */
async function goesOn(t, uplink, since, { wasAway = false } = {}) {
  let failure;
  await steady(since).catch((error) => (failure = error));
  for (const { name, tab, what } of ways()) {
    const { stood, told } = await seen(tab, what, since);
    t.diagnostic(`${tabs[name].kind}: ${JSON.stringify(stood)}${tab === tabs[name] ? ` (${told.join(", ")})` : ""}`);
    const isSlow = wasAway && tabs[name].kind === "firefox";
    const most = SLACK * (isSlow ? AWAY_FIREFOX_MS_MAX : STANDS_STILL_MS_MAX);
    for (const [stream, ms] of Object.entries(stood)) {
      if (isTimed(stream) && ms > most) failure ??= new Error(`${tab.kind}: ${stream} stood still for ${ms} ms`);
    }
  }
  if (failure) throw failure;
  for (const name of MOVING) {
    const tab = tabs[name];
    assert.equal(await localAddress(tab), uplinks.own(uplink), tab.kind);
    const { session, connection } = await isSame(tab);
    assert.ok(session, `${tab.kind}: a new session`);
    assert.ok(connection || wasAway, `${tab.kind}: a new connection`);
  }
}

function moving(name, run) {
  test(name, { timeout: 120_000 }, (t) => (lack ? skip(t, lack) : run(t)));
}

moving("who loses one of two uplinks goes on by the other", async (t) => {
  for (const name of MOVING) t.diagnostic(`${tabs[name].kind}: from ${await localAddress(tabs[name])}`);
  const since = Date.now();
  uplinks.take(1);
  await goesOn(t, 2, since);
});

moving("who loses that one as well goes on by the first, which is back", async (t) => {
  uplinks.give(1);
  await pause(2_000);
  const since = Date.now();
  uplinks.take(2);
  await goesOn(t, 1, since);
});

moving("who has no network for ten seconds goes on when it is back", async (t) => {
  uplinks.take(1);
  await pause(AWAY_MS);
  const since = Date.now();
  uplinks.give(2);
  // Where a browser gave ICE up meanwhile, its connection is another one.
  await goesOn(t, 2, since, { wasAway: true });
});
