import assert from "node:assert/strict";
import { test } from "node:test";
import { Pulse } from "../sdk/pulse.js";
import { bob, joined } from "./fakecall.js";
import { FakeConnection } from "./fakeconnection.js";
import type { FakeServer } from "./fakeserver.js";
import { FakeTimers } from "./faketimers.js";

/** The socket is there and nothing goes through it any more, as where its network is gone. */
function swallow(server: FakeServer): () => void {
  const { socket } = server;
  const answers = server.onFrame.bind(server);
  server.onFrame = (from, frame) => {
    if (from !== socket) answers(from, frame);
  };
  return () => (server.onFrame = answers);
}

/** From now on everything takes so long to the server and back. */
function slow({ server, timers }: { server: FakeServer; timers: FakeTimers }, roundTripMs: number) {
  const answers = server.onFrame.bind(server);
  server.onFrame = (from, frame) => void timers.after(roundTripMs, () => answers(from, frame));
}

/** A call in which something comes all the time, as long as `flows`. */
async function flowing() {
  const call = await joined([bob("cam-1")]);
  const connection = FakeConnection.last;
  const pair = {
    id: "one",
    type: "candidate-pair",
    bytesReceived: 1,
    responsesReceived: 1,
    currentRoundTripTime: 0,
  };
  connection.stats.set("one", pair);
  const line = { flows: true };
  const flow = () => {
    if (line.flows) pair.bytesReceived += 1_000;
    call.timers.after(100, flow);
  };
  flow();
  connection.setState("connected");
  await call.timers.pass(3_000);
  /** Offers after the first. */
  const offers = () => call.updates().filter(({ sdp }) => sdp !== undefined).length;
  return { ...call, connection, pair, line, offers };
}

test("a network that is gone, which the browser did not notice: signalling first, then ICE, in the same session", async () => {
  const { server, timers, connection, line, log, starts, offers, scope } = await flowing();
  const waits: number[] = [];
  scope.on("reconnecting", () => waits.push(timers.now()));
  const began = timers.now();
  line.flows = false;
  swallow(server);
  await timers.pass(2_600);
  assert.equal(server.sockets.length, 2, "another WebSocket");
  assert.deepEqual([connection.restarts, offers()], [1, 1], "one offer, by that one");
  assert.equal(scope.state, "reconnecting");
  line.flows = true;
  await timers.pass(1_000);
  assert.equal(scope.state, "connected");
  await timers.pass(20_000);
  assert.deepEqual([connection.restarts, starts().length, server.sessions], [1, 1, 1]);
  assert.ok(!log.includes("error"));
  assert.ok((waits[0] ?? 0) - began < 2_000);
});

test("a network that is gone, which the browser noticed: nothing is offered before signalling is back", async () => {
  const { server, timers, connection, line, offers, starts, scope } = await flowing();
  swallow(server);
  server.reachable = false;
  line.flows = false;
  connection.setState("disconnected");
  await timers.pass(5_000);
  connection.setState("failed");
  await timers.pass(10_000);
  assert.deepEqual([connection.restarts, offers()], [0, 0]);
  server.reachable = true;
  for (let each = 0; each < 30 && connection.restarts === 0; each += 1) await timers.pass(400);
  assert.deepEqual([connection.restarts, offers()], [1, 1]);
  line.flows = true;
  connection.setState("connected");
  await timers.pass(20_000);
  assert.deepEqual([scope.state, starts().length, server.sessions], ["connected", 1, 1]);
});

test("ICE is restarted again where the first time the browser had no address of the network yet", async () => {
  const { timers, connection, starts, scope } = await flowing();
  connection.setState("disconnected");
  await timers.pass(1_100);
  assert.equal(connection.restarts, 1);
  connection.setState("connecting");
  await timers.pass(2_000);
  assert.equal(connection.restarts, 2);
  connection.setState("connected");
  await timers.pass(20_000);
  assert.deepEqual([connection.restarts, starts().length, scope.state], [2, 1, "connected"]);
});

test("media goes on by another path: the WebSocket of the one before is left at once", async () => {
  const { server, timers, connection, line, offers } = await flowing();
  const seen = server.frames.length;
  const other = { id: "two", type: "candidate-pair", bytesReceived: 0, responsesReceived: 1 };
  connection.stats.set("two", other);
  line.flows = false;
  swallow(server);
  const flow = () => {
    other.bytesReceived += 1_000;
    timers.after(100, flow);
  };
  flow();
  await timers.pass(1_500);
  assert.deepEqual(server.frames.slice(seen).map(({ header }) => header.action), ["CONNECT"]);
  assert.deepEqual([connection.restarts, offers()], [0, 0], "media needs nothing");
});

test("a WebSocket that answers is kept, whatever is said of the network", async () => {
  const { server, timers, link } = await flowing();
  link.check();
  link.check();
  await timers.pass(5_000);
  const pings = server.frames.filter(({ header }) => header.action === "PING");
  assert.deepEqual([pings.length, server.sockets.length], [1, 1]);
});

test("on a slow line a WebSocket is dropped at most once: the next CONNECT tells how slow it is", async () => {
  const call = await flowing();
  const { server, timers, link } = call;
  slow(call, 1_000);
  link.check();
  await timers.pass(3_000);
  assert.equal(server.sockets.length, 2, "it was fast before");
  for (let each = 0; each < 3; each += 1) {
    link.check();
    await timers.pass(4_000);
  }
  assert.deepEqual([server.sockets.length, server.sessions], [2, 1]);
});

test("what is known of the media's path counts for the WebSocket, whoever asks", async () => {
  const network = new EventTarget();
  const own = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  const navigator = { value: { connection: network }, configurable: true };
  Object.defineProperty(globalThis, "navigator", navigator);
  try {
    for (const by of ["change of the network", "interruption of media"]) {
      const call = await flowing();
      const { server, timers, connection, pair } = call;
      pair.currentRoundTripTime = 1;
      await timers.pass(500);
      slow(call, 1_000);
      if (by === "interruption of media") connection.setState("disconnected");
      else network.dispatchEvent(new Event("change"));
      await timers.pass(900);
      assert.equal(server.sockets.length, 1, by);
      await timers.pass(4_000);
      assert.equal(server.sockets.length, 1, `${by}: it answered`);
    }
  } finally {
    if (own) Object.defineProperty(globalThis, "navigator", own);
    else Reflect.deleteProperty(globalThis, "navigator");
  }
});

test("ICE has some round trips on a slow line before it is restarted again", async () => {
  const { timers, connection, pair, starts } = await flowing();
  pair.currentRoundTripTime = 1;
  await timers.pass(500);
  connection.setState("disconnected");
  await timers.pass(1_100);
  connection.setState("connecting");
  await timers.pass(3_800);
  assert.equal(connection.restarts, 1, "an answer may be under way");
  await timers.pass(200);
  assert.equal(connection.restarts, 2);
  await timers.pass(3_800);
  assert.equal(starts().length, 1);
  await timers.pass(200);
  assert.equal(starts().length, 2, "afresh");
});

test("one answer that was slow, to CONNECT, slows no ICE restart down", async () => {
  const { server, timers, connection, line, starts } = await flowing();
  swallow(server);
  const answers = server.onFrame.bind(server);
  server.onFrame = (from, frame) => {
    timers.after(frame.header.action === "CONNECT" ? 5_000 : 20, () => answers(from, frame));
  };
  line.flows = false;
  for (let each = 0; each < 200 && connection.restarts === 0; each += 1) await timers.pass(50);
  assert.equal(connection.restarts, 1);
  await timers.pass(1_900);
  assert.equal(connection.restarts, 1);
  await timers.pass(150);
  assert.equal(connection.restarts, 2);
  await timers.pass(3_100);
  assert.equal(starts().length, 2, "afresh");
});

test("ICE is restarted again in the end, however slow the line was", async () => {
  const { timers, connection, pair } = await flowing();
  pair.currentRoundTripTime = 100;
  await timers.pass(500);
  connection.setState("disconnected");
  await timers.pass(1_000);
  connection.setState("connecting");
  await timers.pass(9_900);
  assert.equal(connection.restarts, 1);
  await timers.pass(200);
  assert.equal(connection.restarts, 2);
});

test("who gave ICE up for good joins afresh in the same session, who begins anew is left to it", async () => {
  const { server, timers, connection, starts } = await flowing();
  connection.setState("failed");
  await timers.pass(900);
  connection.setState("connecting");
  await timers.pass(200);
  connection.setState("connected");
  await timers.pass(10_000);
  assert.deepEqual([connection.restarts, starts().length], [1, 1]);
  connection.setState("failed");
  await timers.pass(900);
  assert.deepEqual([connection.restarts, starts().length], [2, 1]);
  await timers.pass(200);
  assert.deepEqual([connection.restarts, starts().length, server.sessions], [2, 2, 1]);
  FakeConnection.last.setState("connected");
  await timers.pass(10_000);
  assert.deepEqual([starts().length, FakeConnection.last.restarts], [2, 0]);
});

test("an attempt by a network that is gone makes way for one by the network that is back", async () => {
  const { server, timers, link } = await flowing();
  const waits: number[] = [];
  link.on("reconnecting", ({ waitMs }) => waits.push(waitMs));
  const answers = server.onFrame.bind(server);
  server.onFrame = () => {};
  server.socket.break();
  await timers.pass(3_000);
  assert.equal(server.sockets.length, 2);
  server.onFrame = answers;
  link.retryNow();
  await timers.pass(10);
  assert.equal(server.sockets.length, 3);
  assert.deepEqual(waits, [1_500, 0]);
  assert.equal(server.sessions, 1);
});

test("a network that is back is tried again soon: its routes come after its addresses", async () => {
  const { server, timers, link } = await flowing();
  const waits: number[] = [];
  link.on("reconnecting", ({ waitMs }) => waits.push(waitMs));
  server.reachable = false;
  server.socket.break();
  await timers.pass(12_000);
  assert.deepEqual(waits, [1_500, 3_000, 4_000, 4_000]);
  link.retryNow();
  await timers.pass(1_200);
  assert.deepEqual(waits.slice(4), [500, 500, 500]);
  server.reachable = true;
  await timers.pass(600);
  assert.equal(server.socket.readyState, 1);
  server.socket.break();
  assert.equal(waits.at(-1), 1_500, "as ever");
});

test("a network that is back has its attempts soon as well where the WebSocket seemed well", async () => {
  const { server, timers, link } = await flowing();
  const waits: number[] = [];
  link.on("reconnecting", ({ waitMs }) => waits.push(waitMs));
  swallow(server);
  server.reachable = false;
  link.retryNow();
  await timers.pass(800);
  assert.deepEqual(waits, [0, 500]);
  // By chance: whoever else was in that network comes now, too.
  timers.chance = 0;
  await timers.pass(500);
  timers.chance = 1;
  await timers.pass(300);
  assert.deepEqual(waits.slice(2), [250, 750]);
});

test("what was heard before the network went says nothing of the one that is back", async () => {
  const { server, timers, link } = await flowing();
  const waits: number[] = [];
  link.on("reconnecting", ({ waitMs }) => waits.push(waitMs));
  link.check();
  await timers.pass(100);
  swallow(server);
  server.reachable = false;
  link.retryNow();
  await timers.pass(700);
  assert.deepEqual(waits, [], "it has its time");
  await timers.pass(650);
  assert.deepEqual(waits, [0, 500, 500]);
});

test("a network that was well all the time makes nobody hasty later", async () => {
  const { server, timers, link } = await flowing();
  const waits: number[] = [];
  link.on("reconnecting", ({ waitMs }) => waits.push(waitMs));
  link.retryNow();
  await timers.pass(60_000);
  assert.equal(server.sockets.length, 1);
  server.reachable = false;
  server.socket.break();
  await timers.pass(2_000);
  assert.deepEqual(waits, [1_500, 3_000]);
});

test("by which pair of candidates media comes is told when it changes, and no sooner", async () => {
  const timers = new FakeTimers();
  const entry = (id: string) => ({ id, type: "candidate-pair", bytesReceived: 10, responsesReceived: 1 });
  const [one, two] = [entry("one"), entry("two")];
  const connection = {
    connectionState: "connected",
    getStats: async () => new Map([["one", one], ["two", two]]),
  };
  let moves = 0;
  const actions = { onSilence: () => {}, onLife: () => {}, onMoved: () => (moves += 1) };
  const pulse = new Pulse(timers, () => connection, actions);
  pulse.start();
  const looks = async (by: { bytesReceived: number }, count: number) => {
    for (let each = 0; each < count; each += 1) {
      by.bytesReceived += 100;
      await timers.pass(400);
    }
  };
  await looks(one, 4);
  await timers.pass(2_000);
  await looks(one, 2);
  assert.equal(moves, 0);
  await looks(two, 3);
  assert.equal(moves, 1);
  await looks(one, 1);
  assert.equal(moves, 2);
  pulse.stop();
});
