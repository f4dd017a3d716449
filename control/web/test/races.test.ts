// What happens at the same time: joining, leaving, capturing, publishing, devices that go away.
import assert from "node:assert/strict";
import { test } from "node:test";
import { JsonRtc } from "../sdk/jsonrtc.js";
import { Scope } from "../sdk/scope.js";
import { bob, joined } from "./fakecall.js";
import { FakeConnection, FakeTrack } from "./fakeconnection.js";
import { FakeServer } from "./fakeserver.js";
import { FakeTimers, settle } from "./faketimers.js";

const asTrack = (track: FakeTrack) => track as unknown as MediaStreamTrack;
const SENT_AWAY = { type: "request", subsession_id: "c2" };
const AGAIN = { reason: "server is ending", again: true };

/** A person who is asked for a camera, and allows it when `allow` is called. */
function person() {
  const track = new FakeTrack("video");
  let allow = () => {};
  const asked = new Promise<void>((resolve) => (allow = resolve));
  const getUserMedia = async () => {
    await asked;
    return { getTracks: () => [track] };
  };
  const value = { mediaDevices: { getUserMedia } };
  Object.defineProperty(globalThis, "navigator", { value, configurable: true });
  return { track, allow: () => allow() };
}

test("a camera that is allowed after the scope was left is released", async () => {
  const { track, allow } = person();
  const { scope, timers } = await joined();
  const published = assert.rejects(scope.publish("camera"), { kind: "closed" });
  const left = scope.leave();
  await timers.pass(100);
  await left;
  allow();
  await published;
  assert.deepEqual([track.stopped, scope.publications.length], [true, 0]);
});

test("a link that ends while the person is asked leaves neither camera nor connection behind", async () => {
  const { track, allow } = person();
  const [server, timers] = [new FakeServer(), new FakeTimers()];
  const link = new JsonRtc({
    url: "ws://test/ws", subprotocol: "x", token: "dev", name: "alice", timers, openSocket: server.open,
  });
  const scope = new Scope({ name: "lobby", link, timers, autoSubscribe: true, slotsFirst: 2 });
  const connections = FakeConnection.all.length;
  const started = assert.rejects(scope.start(await link.connect(), "camera", {}), { kind: "closed" });
  link.close();
  allow();
  await started;
  assert.deepEqual([track.stopped, scope.publications.length], [true, 0]);
  assert.equal(FakeConnection.all.length, connections);
});

test("a call that ends while it begins leaves nothing running", async () => {
  const { server, timers, scope, starts } = await joined();
  const wasLast = FakeConnection.last;
  server.push(SENT_AWAY, { action: "SHUTDOWN" }, AGAIN);
  await timers.pass(1_400);
  FakeConnection.onAnswer = () => void scope.leave();
  try {
    await timers.pass(3_000);
  } finally {
    FakeConnection.onAnswer = () => {};
  }
  assert.deepEqual([starts().length, scope.state], [2, "closed"]);
  assert.deepEqual([wasLast.connectionState, FakeConnection.last.connectionState], ["closed", "closed"]);
  const { length } = server.frames;
  await timers.pass(120_000);
  assert.equal(server.frames.length, length, "not a word more");
});

test("who leaves while a fresh join is on its way ends that as well", async () => {
  const { server, timers, scope } = await joined();
  server.push(SENT_AWAY, { action: "SHUTDOWN" }, AGAIN);
  const answers = server.onFrame.bind(server);
  server.onFrame = (from, frame) => void timers.after(300, () => answers(from, frame));
  await timers.pass(1_600);
  const left = scope.leave();
  await timers.pass(900);
  await left;
  const [goodbye] = server.actions("SHUTDOWN");
  assert.equal(server.actions("START").length, 2);
  assert.equal(goodbye?.control.subsession_id, `c${server.actions("START")[1]?.control.sequence}`);
  assert.equal(scope.state, "closed");
});

test("what ends by itself is unpublished, and told", async () => {
  const { timers, scope, updates } = await joined();
  const [screen, another] = [new FakeTrack("video"), new FakeTrack("video")];
  const both = [screen, another].map((track) => scope.publish(asTrack(track), { source: "screen" }));
  await timers.pass(100);
  const [first, second] = await Promise.all(both);
  assert.ok(first?.id && second?.id && first.id !== second.id, "two screens");
  const ended: unknown[] = [];
  scope.on("ended", ({ publication }) => ended.push(publication));
  screen.dispatchEvent(new Event("ended"));
  await timers.pass(100);
  assert.deepEqual(ended, [first]);
  assert.deepEqual(scope.publications, [second]);
  assert.equal(updates().at(-1)?.publish?.length, 1);
  // What was unpublished is over, whatever becomes of its track.
  await Promise.all([second?.unpublish(), timers.pass(100)]);
  another.dispatchEvent(new Event("ended"));
  assert.equal(ended.length, 1);
});

test("a device that was taken away before it was published is an error", async () => {
  const { scope, updates } = await joined();
  const track = new FakeTrack("video");
  track.readyState = "ended";
  await assert.rejects(scope.publish(asTrack(track)), { kind: "device" });
  assert.deepEqual([scope.publications.length, updates().length], [0, 0]);
});

test("what is unpublished while it is published ends that, and the server hears of it", async () => {
  const { timers, scope, updates } = await joined();
  const published = assert.rejects(scope.publish(asTrack(new FakeTrack("video"))), { kind: "closed" });
  await settle();
  await Promise.all([scope.publications[0]?.unpublish(), timers.pass(200)]);
  await published;
  assert.deepEqual(updates().at(-1)?.publish ?? [], []);
  assert.equal(scope.publications.length, 0);
});

test("calls while the scope is joined afresh say so", async () => {
  const { server, timers, scope } = await joined([bob("cam-1")]);
  const camera = scope.peers.get("p-bob")?.find("camera");
  assert.ok(camera);
  server.push(SENT_AWAY, { action: "SHUTDOWN" }, AGAIN);
  const calls = [
    scope.sendMessage("x"), scope.statistics(), scope.relayStatistics(), scope.subscribe(camera),
  ];
  for (const call of calls) await assert.rejects(call, { kind: "closed", reason: /joined afresh/ });
  await timers.pass(2_000);
  assert.ok(camera.track, "it is received again");
});

test("what is wanted of a publication goes where it goes, and no further", async () => {
  const { server, conference, timers, scope, updates, starts } = await joined([bob("cam-1")]);
  const first = scope.peers.get("p-bob")?.find("camera");
  assert.ok(first);
  await Promise.all([scope.prefer(first, { paused: true }), timers.pass(50)]);
  assert.deepEqual(updates().at(-1)?.preferences, [{ mid: "2", paused: true }]);
  // The slot that it was in shows another one, of which nothing was said.
  conference.peers = [bob("cam-2")];
  server.notify({ event: "unpublished", peer: "p-bob", publication: "cam-1" }, "c2");
  const published = { publication: "cam-2", kind: "video", source: "camera" };
  server.notify({ event: "published", peer: "p-bob", publication: published }, "c2");
  await timers.pass(100);
  assert.deepEqual(updates().at(-1)?.preferences, [{ mid: "2" }]);
  const second = scope.peers.get("p-bob")?.find("camera");
  assert.ok(second);
  await Promise.all([scope.prefer(second, { pinned: true }), timers.pass(50)]);
  // And over a fresh join.
  server.push(SENT_AWAY, { action: "SHUTDOWN" }, AGAIN);
  await timers.pass(2_000);
  const bound = starts()[1];
  assert.equal(bound?.subscribe?.[0]?.publication, "cam-2");
  assert.deepEqual(bound?.preferences, [{ mid: bound?.subscribe?.[0]?.mid, pinned: true }]);
});

test("what was not answered in time is taken back, also when the server takes it later", async () => {
  const { server, conference, timers, scope, updates } = await joined([], [new FakeTrack("audio")]);
  const lines = () => (JSON.parse(updates().at(-1)?.sdp ?? "[]") as unknown[]).length;
  const sources = () => updates().at(-1)?.publish?.map(({ source }) => source);
  // It does not answer, but reads: the offer took effect.
  server.answer = () => undefined;
  const silent = assert.rejects(scope.publish(asTrack(new FakeTrack("video")), { source: "camera" }), {
    kind: "timeout",
  });
  await timers.pass(29_000);
  assert.deepEqual([updates().length, sources()], [1, ["other", "camera"]]);
  const known = lines();
  server.answer = conference.answer;
  await timers.pass(2_000);
  await silent;
  assert.deepEqual([updates().length, sources()], [2, ["other"]]);
  assert.equal(lines(), known, "m-lines are never removed");
  // It is stopped, and goes on after the time is over: it reads both then.
  server.socket.readyState = 0;
  const stopped = assert.rejects(scope.publish(asTrack(new FakeTrack("video")), { source: "screen" }), {
    kind: "timeout",
  });
  await timers.pass(26_000);
  server.reachable = false;
  server.socket.break();
  await timers.pass(10_000);
  await stopped;
  assert.equal(updates().length, 2);
  server.reachable = true;
  await timers.pass(10_000);
  assert.deepEqual(updates()[2]?.publish?.map(({ source }) => source), ["other", "screen"]);
  assert.deepEqual([updates().length, sources()], [4, ["other"]]);
  assert.deepEqual([server.sessions, scope.publications.length], [1, 1]);
});
