import assert from "node:assert/strict";
import { test } from "node:test";
import { JsonRtc } from "../sdk/jsonrtc.js";
import type { Located } from "../sdk/locator.js";
import { Pulse, type Pulsing } from "../sdk/pulse.js";
import { FakeServer } from "./fakeserver.js";
import { FakeTimers, settle } from "./faketimers.js";

const at = (name: string): Located => ({ url: `wss://${name}/ws`, endpoint: `${name}:443` });

/** A session on the node `one`, with what a CnC says next, and what it was asked. */
async function joined() {
  const nodes: Record<string, FakeServer> = { one: new FakeServer(), two: new FakeServer() };
  const timers = new FakeTimers();
  const cnc = { answer: at("one") as Located | undefined, asked: [] as (string | undefined)[] };
  const link = new JsonRtc({
    url: async (failed) => {
      cnc.asked.push(failed);
      if (!cnc.answer) throw new Error("no CnC answers");
      return cnc.answer;
    },
    subprotocol: "strait.jsonrtc.v1",
    token: undefined,
    name: "alice",
    timers,
    openSocket: (url) => (nodes[new URL(url).hostname] as FakeServer).open(),
  });
  const log: string[] = [];
  for (const name of ["reconnecting", "resumed", "renewed", "closed"] as const) {
    link.on(name, () => log.push(name));
  }
  link.on("moved", ({ node }) => log.push(`moved to ${node}`));
  await link.connect();
  return { one: nodes.one as FakeServer, two: nodes.two as FakeServer, timers, cnc, link, log };
}

test("a broken WebSocket asks the CnC with the node that failed, after 1 to 2 s", async () => {
  const { one, timers, cnc, log } = await joined();
  assert.deepEqual(cnc.asked, [undefined]);
  one.socket.break();
  await timers.pass(900);
  assert.equal(cnc.asked.length, 1);
  await timers.pass(1_100);
  assert.deepEqual(cnc.asked, [undefined, "one:443"]);
  assert.deepEqual(log, ["reconnecting", "resumed"]);
  assert.equal(one.sessions, 1);
});

test("another node gets a session of its own; the one before goes on where it is well again", async () => {
  const { one, two, timers, cnc, link, log } = await joined();
  cnc.answer = at("two");
  one.socket.break();
  two.reachable = false;
  await timers.pass(2_000);
  // The next one cannot be reached either: told as the one that failed, and sent back.
  cnc.answer = at("one");
  await timers.pass(5_000);
  assert.deepEqual(cnc.asked, [undefined, "one:443", "two:443"]);
  assert.deepEqual(log, ["reconnecting", "reconnecting", "resumed"]);
  cnc.answer = at("two");
  two.reachable = true;
  one.socket.break();
  await timers.pass(5_000);
  assert.deepEqual(log.slice(3), ["reconnecting", "moved to two:443", "renewed"]);
  assert.deepEqual([one.sessions, two.sessions], [1, 1]);
  assert.equal(two.frames[0]?.control.session_id, undefined);
  two.answer = () => ({ payload: "here" });
  assert.equal((await link.request({ action: "START" })).payload, "here");
});

test("where no CnC answers, the node of before is tried", async () => {
  const { one, timers, cnc, log } = await joined();
  cnc.answer = undefined;
  one.socket.break();
  await timers.pass(2_000);
  assert.deepEqual(log, ["reconnecting", "resumed"]);
});

test("a server that is doubted and silent is left; one that answers is not", async () => {
  const { one, timers, link, log } = await joined();
  link.doubt();
  assert.equal(one.frames.at(-1)?.header.action, "CONNECT", "it was heard just now");
  await timers.pass(1_000);
  link.doubt();
  assert.equal(one.frames.at(-1)?.header.action, "PING");
  await timers.pass(1_000);
  assert.deepEqual(log, []);
  one.onFrame = () => {};
  link.doubt();
  link.doubt();
  await timers.pass(700);
  assert.deepEqual(log, []);
  await timers.pass(100);
  assert.deepEqual(log, ["reconnecting"]);
});

test("media that comes no more is told, unless none came before", async () => {
  const timers = new FakeTimers();
  let bytes = 0;
  let told = 0;
  const getStats = async () => new Map([["x", { type: "candidate-pair", bytesReceived: bytes }]]);
  let connection: Pulsing = { connectionState: "connected", getStats };
  const pulse = new Pulse(timers, () => connection, () => (told += 1));
  pulse.start();
  await timers.pass(2_000);
  assert.equal(told, 0, "none came yet");
  for (let each = 0; each < 5; each += 1) {
    bytes += 100;
    await timers.pass(400);
  }
  assert.equal(told, 0);
  await timers.pass(800);
  assert.ok(told > 0, "after two looks without a byte");
  told = 0;
  connection = { connectionState: "connected", getStats };
  await timers.pass(400);
  assert.equal(told, 0, "another connection begins anew");
  pulse.stop();
  await timers.pass(5_000);
  await settle();
  assert.equal(told, 0);
});
