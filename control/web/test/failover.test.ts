import assert from "node:assert/strict";
import { test } from "node:test";
import { JsonRtc } from "../sdk/jsonrtc.js";
import type { Located } from "../sdk/locator.js";
import { Pulse, type Pulsing, type Silence } from "../sdk/pulse.js";
import { bob, joined as inScope } from "./fakecall.js";
import { FakeConnection, FakeTrack } from "./fakeconnection.js";
import { FakeServer } from "./fakeserver.js";
import { FakeTimers, settle } from "./faketimers.js";

const at = (name: string): Located => ({ url: `wss://${name}/ws`, endpoint: `${name}:443` });

/** A session on the node `one`, with what a CnC says next, and what it was asked. */
async function joined() {
  const made = joining();
  await made.link.connect();
  return made;
}

/** The same before it connects. */
function joining() {
  const nodes: Record<string, FakeServer> = { one: new FakeServer(), two: new FakeServer() };
  const timers = new FakeTimers();
  const cnc = {
    answer: at("one") as Located | undefined,
    asked: [] as (string | undefined)[],
    isSilent: false,
    signal: undefined as AbortSignal | undefined,
  };
  const link = new JsonRtc({
    url: async (failed, signal) => {
      cnc.asked.push(failed);
      cnc.signal = signal;
      if (cnc.isSilent) await new Promise(() => {});
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

test("on a slow line a doubted server has some round trips, and where nobody sent, more time", async () => {
  const { one, timers, link, log } = await joined();
  const answers = one.onFrame.bind(one);
  const doubtFor = async (brokeOff: boolean, roundTripMs: number) => {
    one.onFrame = () => {};
    await timers.pass(4_000);
    const since = timers.now();
    link.doubt(brokeOff, roundTripMs);
    while (log.at(-1) !== "reconnecting") await timers.pass(50);
    const lasted = timers.now() - since;
    one.onFrame = answers;
    while (log.at(-1) !== "resumed") await timers.pass(50);
    return lasted;
  };
  assert.equal(await doubtFor(true, 10), 750);
  assert.equal(await doubtFor(true, 600), 1_800);
  assert.equal(await doubtFor(true, 60_000), 5_000);
  assert.equal(await doubtFor(false, 10), 2_000);
  // The server's own round trip counts as well.
  one.onFrame = (socket, frame) => void timers.after(500, () => answers(socket, frame));
  for (let each = 0; each < 3; each += 1) {
    await timers.pass(4_000);
    link.doubt();
    await timers.pass(600);
    link.believe();
  }
  assert.equal(await doubtFor(true, 10), 1_500);
});

test("a path that lives clears a doubted server; who was sent nothing asks it seldom", async () => {
  const { one, timers, link, log } = await joined();
  one.onFrame = () => {};
  await timers.pass(1_900);
  const before = one.frames.length;
  link.doubt(false);
  assert.equal(one.frames.length, before);
  await timers.pass(200);
  link.doubt(true);
  await timers.pass(700);
  link.believe();
  await timers.pass(5_000);
  assert.deepEqual(log, []);
});

test("the first join leaves a node that just died, and tells CnCs of it", async () => {
  const { one, timers, cnc, link } = joining();
  one.reachable = false;
  const session = link.connect();
  await timers.pass(500);
  assert.deepEqual(cnc.asked, [undefined]);
  cnc.answer = at("two");
  await timers.pass(1_500);
  await session;
  assert.deepEqual([cnc.asked, link.node], [[undefined, "one:443"], "two:443"]);
});

test("the first join ends where all nodes are away, and where one refuses", async () => {
  const away = joining();
  away.one.reachable = false;
  const session = assert.rejects(away.link.connect(), { kind: "unreachable" });
  await away.timers.pass(10_000);
  await session;
  assert.deepEqual(away.cnc.asked, [undefined, "one:443", "one:443"]);
  const refused = joining();
  refused.one.token = "another";
  await assert.rejects(refused.link.connect(), { code: 401 });
  assert.equal(refused.cnc.asked.length, 1);
});

test("close() ends whatever the first join waits for", async () => {
  const asking = joining();
  asking.cnc.isSilent = true;
  asking.link.connect().catch(() => {});
  await settle();
  asking.link.close();
  assert.equal(asking.cnc.signal?.aborted, true);
  const waiting = joining();
  waiting.one.reachable = false;
  const session = assert.rejects(waiting.link.connect(), { kind: "closed" });
  await waiting.timers.pass(500);
  waiting.link.close();
  await session;
  await waiting.timers.pass(5_000);
  assert.equal(waiting.cnc.asked.length, 1);
});

test("a node that refuses has not failed", async () => {
  const { one, timers, cnc, log } = await joined();
  one.onFrame = (socket, { header }) => {
    const full = { action: header.action, error_code: 429, reason: "full" };
    socket.deliver({ control: { type: "error", correlation_id: "c1" }, header: full });
  };
  one.socket.break();
  await timers.pass(6_000);
  assert.deepEqual(cnc.asked.slice(0, 3), [undefined, "one:443", undefined]);
  assert.ok(!log.includes("closed"));
});

test("media that comes no more is told, unless none came before", async () => {
  const timers = new FakeTimers();
  let bytes = 0;
  let told = 0;
  const getStats = async () => new Map([["x", { type: "candidate-pair", bytesReceived: bytes }]]);
  let connection: Pulsing = { connectionState: "connected", getStats };
  const onSilence = () => (told += 1);
  const pulse = new Pulse(timers, () => connection, { onSilence, onLife: () => {} });
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

test("a path that answers checks lives; whether media broke off or nobody sent any is told", async () => {
  const timers = new FakeTimers();
  const pair = { type: "candidate-pair", bytesReceived: 0, responsesReceived: 1, currentRoundTripTime: 0.3 };
  const connection = { connectionState: "connected", getStats: async () => new Map([["x", pair]]) };
  const silences: Silence[] = [];
  let lives = 0;
  const onLife = () => {
    lives += 1;
    silences.length = 0;
  };
  const onSilence = (silence: Silence) => silences.push(silence);
  const pulse = new Pulse(timers, () => connection, { onSilence, onLife });
  pulse.start();
  const looks = async (count: number, bytes: number, responses: number) => {
    for (let each = 0; each < count; each += 1) {
      pair.bytesReceived += bytes;
      pair.responsesReceived += responses;
      await timers.pass(400);
    }
  };
  await looks(3, 0, 1);
  assert.deepEqual([lives, silences], [2, []], "nobody sends, and checks are answered");
  await looks(4, 0, 0);
  assert.deepEqual(silences.at(-1), { brokeOff: false, roundTripMs: 300 });
  await looks(1, 50, 0);
  await looks(4, 0, 0);
  assert.equal(silences.at(-1)?.brokeOff, false, "a report now and then is no flow");
  await looks(4, 50, 0);
  assert.equal(silences.length, 0);
  await looks(4, 0, 0);
  assert.equal(silences.at(-1)?.brokeOff, true);
  // They stopped sending, as answers to checks show.
  await looks(1, 0, 1);
  await looks(4, 0, 0);
  assert.equal(silences.at(-1)?.brokeOff, false);
  pulse.stop();
});

test("an encrypted node leads to none that is not", async () => {
  const there = ["https://two.example:8443", "http://three.example"];
  await assert.rejects(inScope([], [], {}, there), { kind: "server", reason: /not encrypted/ });
});

test("who comes to a node that has not the scope goes to the one that has", async () => {
  const origins = ["https://two.example:8443", "https://three.example"];
  const { server, link, scope, log } = await inScope([bob("cam")], [new FakeTrack("video")], {}, [
    ...origins,
  ]);
  assert.deepEqual([server.sessions, link.node], [3, "three.example:443"]);
  assert.deepEqual(log, ["track"]);
  assert.equal(scope.peers.size, 1);
  assert.ok(scope.publications[0]?.id);
});

test("who is sent away from a running call goes where the scope is, and is told", async () => {
  const { server, timers, conference, link, scope, log } = await inScope([bob("cam")]);
  FakeConnection.last.setState("connected");
  const moved: string[] = [];
  scope.on("moved", ({ node }) => moved.push(node));
  conference.elsewhere = ["https://two.example:8443"];
  server.push({ type: "request", subsession_id: "c2" }, { action: "SHUTDOWN" }, { again: true });
  await timers.pass(2_500);
  FakeConnection.last.setState("connected");
  await timers.pass(10);
  assert.deepEqual([moved, link.node], [["two.example:8443"], "two.example:8443"]);
  assert.deepEqual([scope.state, log.at(-1), server.sessions], ["connected", "reconnected", 2]);
  // A broken WebSocket is mended there.
  server.socket.break();
  await timers.pass(2_500);
  assert.deepEqual([server.sessions, link.node], [2, "two.example:8443"]);
});

test("nodes that send one another's clients in a circle are an error", async () => {
  const circle = Array.from({ length: 9 }, () => "https://two.example:8443");
  await assert.rejects(inScope([], [], {}, circle), { code: 307 });
  await assert.rejects(inScope([], [], {}, ["file:///x"]), { kind: "server" });
});
