import assert from "node:assert/strict";
import { test } from "node:test";
import { StraitError } from "../sdk/errors.js";
import { parseFrame } from "../sdk/frames.js";
import { JsonRtc } from "../sdk/jsonrtc.js";
import { RETAINED_FRAMES_MAX } from "../sdk/limits.js";
import { FakeServer } from "./fakeserver.js";
import { FakeTimers, settle } from "./faketimers.js";

async function connected(token?: string) {
  const server = new FakeServer();
  const timers = new FakeTimers();
  const link = new JsonRtc({
    url: "ws://test/ws",
    subprotocol: "strait.jsonrtc.v1",
    token,
    name: "alice",
    timers,
    openSocket: server.open,
  });
  const log: string[] = [];
  for (const name of ["reconnecting", "resumed", "renewed", "closed"] as const) {
    link.on(name, () => log.push(name));
  }
  return { server, timers, link, log };
}

const request = (action: string) => ({ action, packageType: "scope", payload: {} });

test("CONNECT carries name, token and sequence 1; the answer gives the session", async () => {
  const { server, link } = await connected("dev");
  const answer = await link.connect();
  assert.equal(answer.peer, "p-own-1");
  assert.equal(link.sessionId, "session-1");
  const [frame] = server.frames;
  assert.deepEqual(frame?.header, { action: "CONNECT", initiator: "alice", token: "dev" });
  assert.equal(frame?.control.sequence, 1);
});

test("a wrong token is an error with the server's code and reason", async () => {
  const { server, link } = await connected("wrong");
  server.token = "dev";
  await assert.rejects(link.connect(), (error: StraitError) => {
    assert.equal(error.code, 401);
    assert.equal(error.reason, "token is wrong");
    return true;
  });
});

test("an unreachable server is an error at once, not a silent retry", async () => {
  const { server, link } = await connected();
  server.reachable = false;
  await assert.rejects(link.connect(), { kind: "unreachable" });
});

test("requests are numbered, acknowledged and matched to their answers", async () => {
  const { server, link } = await connected();
  await link.connect();
  server.answer = (frame) => ({ payload: { echo: frame.control.sequence } });
  const [second, third] = await Promise.all([
    link.request(request("START")),
    link.request(request("UPDATE")),
  ]);
  assert.deepEqual(second?.payload, { echo: 2 });
  assert.deepEqual(third?.payload, { echo: 3 });
  assert.equal(server.accepted[0]?.control.ack_sequence, 1);
  assert.equal(server.accepted[0]?.control.session_id, "session-1");
});

test("an error answer rejects its request only", async () => {
  const { server, link } = await connected();
  await link.connect();
  server.answer = (frame) => (frame.header.action === "START" ? { error: 404 } : {});
  const refused = link.request(request("START"));
  const taken = link.request(request("UPDATE"));
  await assert.rejects(refused, { code: 404 });
  await taken;
});

test("a request without an answer fails in time", async () => {
  const { server, timers, link } = await connected();
  await link.connect();
  server.answer = () => undefined;
  const refused = assert.rejects(link.request(request("START")), { kind: "timeout" });
  await timers.pass(31_000);
  await refused;
});

test("16 frames of the server without a frame of ours are acknowledged", async () => {
  const { server, link } = await connected();
  await link.connect();
  for (let count = 0; count < 15; count += 1) server.notify({ event: "x" });
  const acknowledgements = server.frames.filter((each) => each.control.type === "acknowledgement");
  assert.equal(acknowledgements.length, 1);
  assert.equal(acknowledgements[0]?.control.ack_sequence, 16);
  assert.equal(acknowledgements[0]?.control.sequence, undefined);
});

test("a frame that comes twice is delivered once", async () => {
  const { server, link } = await connected();
  await link.connect();
  let count = 0;
  link.on("frame", () => (count += 1));
  const frame = {
    control: { type: "message", sequence: "2" },
    header: { action: "notify" },
    payload: {},
  };
  server.socket.deliver(frame);
  server.socket.deliver(frame);
  assert.equal(count, 1);
});

test("a broken WebSocket: nothing is lost and nothing comes twice", async () => {
  const { server, timers, link, log } = await connected();
  await link.connect();
  const events: unknown[] = [];
  link.on("frame", (frame) => events.push(frame.payload));
  server.notify({ number: 1 });
  server.socket.break();
  server.notify({ number: 2 });
  link.message(request("NOTIFY"));
  const answered = link.request(request("UPDATE"));
  await timers.pass(1_400);
  assert.deepEqual(log, ["reconnecting"]);
  await timers.pass(200);
  await answered;
  assert.deepEqual(log, ["reconnecting", "resumed"]);
  assert.deepEqual(events, [{ number: 1 }, { number: 2 }]);
  assert.deepEqual(
    server.accepted.map((frame) => [frame.header.action, frame.control.sequence]),
    [["NOTIFY", 2], ["UPDATE", 3]],
  );
  const [, reconnect] = server.frames.filter((frame) => frame.header.action === "CONNECT");
  assert.equal(reconnect?.control.sequence, undefined);
  assert.equal(reconnect?.control.session_id, "session-1");
  const { cslr, cslw, csuw } = reconnect?.header ?? {};
  assert.deepEqual({ cslr, cslw, csuw }, { cslr: 2, cslw: 1, csuw: 3 });
});

test("a frame sent into a dying socket is resent", async () => {
  const { server, timers, link } = await connected();
  await link.connect();
  server.socket.readyState = 3;
  link.message(request("NOTIFY"));
  assert.equal(server.accepted.length, 0);
  server.socket.break();
  await timers.pass(2_000);
  assert.equal(server.actions("NOTIFY").length, 1);
});

test("waits double from 1–2 s to 4 s while the server keeps the session, then to 10 s, with chance in them", async () => {
  const { server, timers, link } = await connected();
  await link.connect();
  const waits: number[] = [];
  link.on("reconnecting", ({ waitMs }) => waits.push(waitMs));
  server.reachable = false;
  server.socket.break();
  await timers.pass(60_000);
  const kept = [1_500, 3_000, 4_000, 4_000, 4_000, 4_000, 4_000, 4_000, 4_000];
  assert.deepEqual(waits.slice(0, 11), [...kept, 10_000, 10_000]);
  timers.chance = 0;
  server.reachable = true;
  await timers.pass(10_000);
  server.socket.break();
  assert.equal(waits.at(-1), 1_000);
});

test("a session that the server forgot is renewed and open requests fail", async () => {
  const { server, timers, link, log } = await connected();
  await link.connect();
  server.answer = () => undefined;
  const lost = assert.rejects(link.request(request("UPDATE")), { kind: "closed" });
  server.forget();
  server.socket.break();
  await timers.pass(2_000);
  await lost;
  assert.deepEqual(log, ["reconnecting", "renewed"]);
  assert.equal(link.sessionId, "session-2");
  server.answer = () => ({});
  await link.request(request("START"));
  assert.equal(server.accepted.at(-1)?.control.sequence, 1);
});

test("a token that is refused at a reconnect ends the link", async () => {
  const { server, timers, link, log } = await connected("dev");
  await link.connect();
  server.token = "other";
  server.socket.break();
  await timers.pass(2_000);
  assert.deepEqual(log, ["reconnecting", "closed"]);
});

test("a silent server is pinged, then given up", async () => {
  const { server, timers, link, log } = await connected();
  await link.connect();
  await timers.pass(21_000);
  assert.equal(server.frames.filter((frame) => frame.header.action === "PING").length, 1);
  assert.deepEqual(log, []);
  server.socket.readyState = 3;
  await timers.pass(31_000);
  assert.equal(log[0], "reconnecting");
});

test("the network coming back cuts the wait short", async () => {
  const { server, link, log } = await connected();
  await link.connect();
  server.socket.break();
  link.retryNow();
  await settle();
  assert.deepEqual(log, ["reconnecting", "resumed"]);
});

test("close ends all: no reconnect, open requests fail", async () => {
  const { server, timers, link, log } = await connected();
  await link.connect();
  server.answer = () => undefined;
  const lost = assert.rejects(link.request(request("UPDATE")), { kind: "closed" });
  link.close();
  await lost;
  await timers.pass(60_000);
  assert.deepEqual(log, ["closed"]);
  assert.equal(server.sockets.length, 1);
  await assert.rejects(link.request(request("UPDATE")), { kind: "closed" });
});

test("the retained window is bounded", async () => {
  const { server, timers, link } = await connected();
  await link.connect();
  server.socket.readyState = 3;
  for (let count = 0; count < RETAINED_FRAMES_MAX + 10; count += 1) {
    link.message(request("NOTIFY"));
  }
  server.socket.break();
  await timers.pass(2_000);
  // The server misses frames that are no longer retained: a new session is the only way.
  assert.equal(server.sessions, 2);
});

test("what is no frame is ignored", () => {
  for (const text of ["", "null", "[]", "3", "{}", '{"control":[]}', '{"control":{"type":5}}', "{"]) {
    assert.equal(parseFrame(text), undefined, text);
  }
  const frame = parseFrame('{"control":{"type":"message","sequence":"x","ack_sequence":-1}}');
  assert.equal(frame?.control.sequence, undefined);
  assert.equal(frame?.control.ack_sequence, undefined);
});
