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

/** A call in which something comes all the time, as long as `flows`. */
async function flowing() {
  const call = await joined([bob("cam-1")]);
  const connection = FakeConnection.last;
  const pair = { id: "one", type: "candidate-pair", bytesReceived: 1, responsesReceived: 1 };
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
  return { ...call, connection, line, offers };
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
  assert.deepEqual(waits, [1_500, 3_000, 6_000, 10_000]);
  link.retryNow();
  await timers.pass(1_200);
  assert.deepEqual(waits.slice(4), [500, 500, 500]);
  server.reachable = true;
  await timers.pass(600);
  assert.equal(server.socket.readyState, 1);
  server.socket.break();
  assert.equal(waits.at(-1), 1_500, "as ever");
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
