// Chromium and Firefox, each behind a router of its own: they go directly where their NATs let them, and else by the relay.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { SLACK } from "./lib/bounds.mjs";
import { Browser } from "./lib/browsers.mjs";
import { assertMoved, ends, untilWay, untilWhole, watchFrames } from "./lib/direct.mjs";
import { Hosts } from "./lib/hosts.mjs";
import { join, testLine } from "./lib/page.mjs";
import { skip } from "./lib/redis.mjs";
import { freePort, Server, TOKEN } from "./lib/server.mjs";

/** Where the first attempt of two fails on a busy machine, the next ones take 12 s and 14 s more. */
const PATIENCE_MS = 60_000;

let hosts, lack, server, metricsPort;
const browsers = [];
const tabs = [];

before(async () => {
  try {
    hosts = await Hosts.make();
  } catch (error) {
    lack = `no hosts behind NATs: ${error.message}`;
    return;
  }
  metricsPort = await freePort();
  server = await Server.start({ direct: true, metricsPort, host: hosts.node, ip: hosts.address });
  // With an older one all that follows fails, and not for a reason that it shows.
  assert.notEqual(await answered(), undefined, "this strait-relay tells nobody where it is seen: build it anew");
  const [left, right] = hosts.sides.map(({ home }) => home);
  browsers.push(await Browser.chromium({ host: left, flags: ["--ignore-certificate-errors"] }));
  browsers.push(await Browser.firefox({ host: right }));
}, { timeout: 120_000 });

after(async () => {
  // A browser that hangs must not hold the others' tests up.
  setTimeout(() => process.exit(1), 30_000).unref();
  await Promise.all(browsers.map((browser) => browser.close()));
  await server?.stop();
  await hosts?.close();
});

/** A test of what only such hosts show. */
function behind(name, run) {
  test(name, { timeout: 180_000 }, (t) => (lack ? skip(t, lack) : run(t)));
}

async function enter(browser, scope, name) {
  const tab = await browser.tab();
  tabs.push(tab);
  await tab.first(watchConnections);
  await join(tab, `${server.secureAddress}/?scope=${scope}`, { name, token: TOKEN });
  return tab;
}

/** For `Tab.first`: each connection that the page makes, with whom it asks where it is seen and what it found. */
function watchConnections() {
  const Real = globalThis.RTCPeerConnection;
  globalThis.connections_ = [];
  globalThis.RTCPeerConnection = class extends Real {
    constructor(configuration = {}) {
      super(configuration);
      const { iceServers = [] } = configuration;
      const seen = { asked: iceServers.map(({ urls }) => urls), found: [] };
      globalThis.connections_.push(seen);
      this.addEventListener("icecandidate", ({ candidate }) => {
        if (candidate?.address) seen.found.push(`${candidate.type} ${candidate.address}:${candidate.port}`);
      });
    }
  };
}

/** Those of a page, the one to the relay first. */
const connections = (tab) => tab.evaluate(() => globalThis.connections_);

/** All goes directly between these. One that does not says what each of them found. */
async function untilDirect(...tabs) {
  try {
    for (const tab of tabs) await untilWhole(tab, PATIENCE_MS);
  } catch (error) {
    for (const tab of tabs) error.message += `\n${tab.kind}: ${JSON.stringify(await connections(tab))}`;
    throw error;
  }
}

/** Anna with Chromium and Bert with Firefox, in a scope of their own behind routers of these kinds. */
async function two(scope, ...kinds) {
  hosts.behind(...kinds);
  const [left, right] = browsers;
  return [await enter(left, scope, "anna"), await enter(right, scope, "bert")];
}

const leave = (...all) => Promise.all(all.map((tab) => tab.click("#leave")));

async function untilShown(...all) {
  for (const tab of all) {
    await tab.until("the other one's pictures", async () => {
      const { subscriptions } = await globalThis.strait.statistics();
      return subscriptions.some(({ framesDecoded }) => framesDecoded > 5);
    });
  }
}

/** How often the relay said where somebody is seen; undefined for one that does not. */
async function answered() {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  const counts = [...text.matchAll(/^relay_stun_answered_total\S* (\d+)/gm)];
  return counts.length ? counts.reduce((sum, [, count]) => sum + Number(count), 0) : undefined;
}

behind("behind routers that keep ports two browsers go directly, and by the relay when that fails", async (t) => {
  const [anna, bert] = await two("cone", "cone", "cone");
  await untilDirect(anna, bert);
  await untilShown(anna, bert);
  const [left, right] = hosts.sides;
  for (const [tab, other] of [[anna, right], [bert, left]]) {
    const at = await ends(tab);
    t.diagnostic(`${tab.kind}: ${JSON.stringify(at)}`);
    assert.equal(at.remote.address, other.seen, `${tab.kind}: ${JSON.stringify(at)}`);
  }
  t.diagnostic(`${await answered()} times the relay said where one is seen`);
  assert.ok((await answered()) >= 2, "by the relay they learn where they are seen");

  await watchFrames(anna, "bert");
  await watchFrames(bert, "anna");
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  hosts.connect(false);
  const cut = Date.now();
  for (const tab of [anna, bert]) await untilWay(tab, "udp-relay", 10_000);
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  await assertMoved({ anna, bert }, cut, 3_000 * SLACK, "when the way died");
  hosts.connect(true);
  await untilDirect(anna, bert);

  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const since = Date.now();
  const carl = await enter(browsers[0], "cone", "carl");
  for (const tab of [anna, bert, carl]) await untilWay(tab, "udp-relay");
  // What was begun directly lasts for three seconds at most.
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  await assertMoved({ anna, bert }, since, 500 * SLACK, "when a third one came");
  await leave(carl, anna, bert);
});

behind("behind routers that change ports they talk through the relay, and hardly try", async (t) => {
  const [anna, bert] = await two("symmetric", "symmetric", "symmetric");
  await watchFrames(anna, "bert");
  await watchFrames(bert, "anna");
  await untilShown(anna, bert);
  const since = Date.now();
  // Longer than the first attempt takes to be given up.
  await new Promise((resolve) => setTimeout(resolve, 11_000));
  await assertMoved({ anna, bert }, since, 500 * SLACK, "while they tried");
  for (const tab of [anna, bert]) {
    const { length: made } = await connections(tab);
    const { way, state } = await tab.evaluate(() => ({
      way: globalThis.strait.connectionType,
      state: document.querySelector("#state").textContent,
    }));
    t.diagnostic(`${tab.kind}: ${made} connections, ${way}, ${state}`);
    assert.equal(way, "udp-relay", tab.kind);
    assert.equal(state, "Connected", tab.kind);
    assert.ok(made >= 3 && made <= 7, `${tab.kind}: that to the relay, and two for each attempt: ${made}`);
  }
  await leave(anna, bert);
});

for (const [scope, kinds, what] of [
  ["public", ["cone", "none"], "one behind a router that keeps ports, the other one behind none"],
  ["changing", ["symmetric", "none"], "one behind a router that changes ports, the other one behind none"],
  ["mixed", ["open", "symmetric"], "one behind a router that lets strangers in, the other one behind one that changes ports"],
]) {
  behind(`${what}, they go directly`, async (t) => {
    const [anna, bert] = await two(scope, ...kinds);
    await untilDirect(anna, bert);
    await untilShown(anna, bert);
    for (const tab of [anna, bert]) t.diagnostic(`${tab.kind}: ${JSON.stringify(await ends(tab))}`);
    await leave(anna, bert);
  });
}

behind("a test of the line sees the way to the node, as ever", async (t) => {
  hosts.behind("symmetric", "cone");
  for (const browser of browsers) {
    const tab = await browser.tab();
    tabs.push(tab);
    await tab.goto(server.secureAddress);
    const seen = await testLine(tab, "line", TOKEN);
    const what = `${tab.kind}: ${JSON.stringify(seen)}`;
    t.diagnostic(what);
    assert.equal(seen.transports.udp, true, what);
    if (tab.kind === "chromium") assert.equal(seen.transports.tcp, true, what);
    assert.equal(seen.connectionType, "udp-relay", what);
    assert.ok(seen.up.packets > 20 && seen.down.packets > 20, what);
  }
});

behind("no page wrote an error", () => {
  for (const tab of tabs) assert.deepEqual(tab.errors, [], tab.kind);
});
