import assert from "node:assert/strict";
import { test } from "node:test";
import { Direct, type DirectHost, directConfiguration } from "../sdk/direct/direct.js";
import { Publication, RemotePeer } from "../sdk/peers.js";
import { Speakers } from "../sdk/speakers.js";
import { LocalPublication, type PublicationHost } from "../sdk/publication.js";
import { FakeTrack } from "./fakeconnection.js";
import { FakeChannel, FakeNet, FakeReceiver, candidateLine } from "./fakepeers.js";
import { FakeTimers } from "./faketimers.js";

type Kind = "audio" | "video";

/** One of two browsers, with a camera; what the other one publishes comes from the relay at first. */
class Side {
  readonly locals: LocalPublication[] = [];
  readonly got = new Map<string, Publication>();
  /** What is not to be received. */
  readonly paused = new Set<string>();
  readonly log: string[] = [];
  readonly direct: Direct;
  /** Who speaks, as it is told. */
  readonly said: string[] = [];
  readonly speakers = new Speakers({
    find: (id) => this.got.get(id) ?? this.locals.find((each) => each.id === id),
    all: () => [...this.got.values(), ...this.locals],
    speaking: ({ id }, speaking) => void this.said.push(`${id} ${speaking ? "speaks" : "silent"}`),
    dominates: ({ id }) => void this.said.push(`${id} dominates`),
  });
  other: Side | undefined;

  constructor(
    readonly name: string,
    readonly timers: FakeTimers,
  ) {
    const host: DirectHost = {
      timers,
      configuration: {},
      signal: (number, text) => this.other?.direct.onNotice({ event: "signal", number, text }),
      sent: () => this.locals,
      share: () => undefined,
      received: (id) => (this.paused.has(id) ? undefined : this.got.get(id)),
      speaking: (publication, speaking) => this.speakers.heard(publication, speaking),
      sentDirectly: ({ id, directly }) => this.log.push(`${id} ${directly ? "direct" : "relay"}`),
      shown: ({ id, directly }) => this.log.push(`shows ${id} ${directly ? "direct" : "relay"}`),
      resume: ({ id }) => this.log.push(`resumes ${id}`),
    };
    this.direct = new Direct(host);
  }

  publish(id: string, kind: Kind = "video"): LocalPublication {
    const track = new FakeTrack(kind) as unknown as MediaStreamTrack;
    const host = { notifyMuted: () => {} } as unknown as PublicationHost;
    const publication = new LocalPublication(host, track, "camera", {});
    publication.setId(id);
    this.locals.push(publication);
    const peer = new RemotePeer({ peer: this.name });
    const other = new Publication(peer, { publication: id, kind, source: "camera" });
    other.relayed = new FakeReceiver(kind) as unknown as RTCRtpReceiver;
    this.other?.got.set(id, other);
    return publication;
  }
}

/** Ann has a camera, Bob a camera and a microphone. */
function two() {
  const net = new FakeNet();
  net.install();
  const timers = new FakeTimers();
  const [ann, bob] = [new Side("ann", timers), new Side("bob", timers)];
  [ann.other, bob.other] = [bob, ann];
  ann.publish("ann-cam");
  bob.publish("bob-cam");
  bob.publish("bob-mic", "audio");
  const tell = (event: string, number = 1) => {
    for (const side of [ann, bob]) side.direct.onNotice({ event, number });
  };
  /** Something arrives on every connection that receives. */
  const flow = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 50) {
      for (const { lines, channel } of net.up ? net.peers : []) {
        if (channel?.readyState !== "open") continue;
        for (const { sender, receiver } of lines) {
          if (sender.track) continue;
          receiver.came += 1;
          receiver.energy += receiver.level ** 2 * 0.05;
        }
      }
      await timers.pass(50);
    }
  };
  const isDirect = () =>
    [...ann.locals, ...bob.locals, ...ann.got.values(), ...bob.got.values()].map(
      ({ directly }) => directly !== undefined,
    );
  return { net, timers, ann, bob, tell, flow, isDirect };
}

const all = (is: boolean) => Array(6).fill(is);

test("what arrives directly is shown, and the relay gets none of it", async () => {
  const { timers, ann, bob, tell, flow, isDirect, net } = two();
  tell("direct");
  await timers.pass(1_000);
  assert.deepEqual(isDirect(), all(false), "nothing arrived yet");
  await flow(1_000);
  assert.deepEqual(isDirect(), all(true));
  assert.deepEqual(ann.log.sort(), [
    "ann-cam direct", "shows bob-cam direct", "shows bob-mic direct",
  ]);
  assert.notEqual(ann.got.get("bob-cam")?.track, ann.got.get("bob-cam")?.relayed?.track);
  assert.equal(net.peers.length, 4, "each has one for what it sends, and one for what it gets");
  assert.ok(net.peers.every(({ candidates }) => candidates > 0));
  bob.direct.close();
  ann.direct.close();
  assert.deepEqual(isDirect(), all(false));
  assert.equal(net.peers.length, 0);
});

test("when it is over, what comes directly is shown until the relay brings something", async () => {
  const { ann, bob, tell, flow, isDirect, net, timers } = two();
  tell("direct");
  await flow(1_000);
  ann.log.length = 0;
  tell("direct-ended");
  assert.deepEqual(ann.log, ["ann-cam relay", "resumes bob-cam", "resumes bob-mic"], "at once");
  await flow(1_000);
  assert.ok(ann.got.get("bob-cam")?.directly, "the relay brought nothing yet");
  for (const side of [ann, bob]) {
    for (const { relayed } of side.got.values()) {
      (relayed as unknown as FakeReceiver).came += 1;
    }
  }
  await flow(300);
  assert.deepEqual(isDirect(), all(false));
  await timers.pass(3_000);
  assert.equal(net.peers.length, 0);
  // And once more, as another pair.
  tell("direct", 2);
  await flow(1_000);
  assert.deepEqual(isDirect(), all(true));
});

test("what is over lasts for three seconds, whatever the relay brings", async () => {
  const { tell, flow, isDirect, net } = two();
  tell("direct");
  await flow(1_000);
  tell("direct-ended");
  await flow(3_200);
  assert.deepEqual(isDirect(), all(false));
  assert.equal(net.peers.length, 0);
});

test("a way that dies is left within two seconds, and tried again later and later", async () => {
  const { ann, net, timers, tell, flow, isDirect } = two();
  tell("direct");
  await flow(1_000);
  net.up = false;
  await flow(1_500);
  assert.deepEqual(isDirect(), all(true), "a moment is forgiven");
  await flow(700);
  assert.deepEqual(isDirect(), all(false));
  assert.ok(ann.log.includes("ann-cam relay"));
  net.up = true;
  await flow(5_000);
  assert.deepEqual(isDirect(), all(true));
  // Attempts that come to nothing become rare.
  net.up = false;
  await flow(120_000);
  const before = net.attempts;
  await timers.pass(120_000);
  const attempts = net.attempts - before;
  assert.ok(attempts > 0 && attempts <= 6, `${attempts} attempts of both in two minutes`);
});

test("what is not wanted is not sent directly either", async () => {
  const { ann, bob, net, tell, flow } = two();
  ann.paused.add("bob-cam");
  tell("direct");
  await flow(1_000);
  const [camera, microphone] = bob.locals;
  assert.equal(camera?.directly, undefined);
  assert.ok(microphone?.directly);
  const sending = net.peers.flatMap(({ lines }) => lines);
  const line = sending.find(({ sender }) => sender.track === (camera?.track as unknown));
  assert.equal(line?.encodings[0]?.active, false);
  ann.paused.clear();
  await flow(1_000);
  assert.equal(line?.encodings[0]?.active, true);
  assert.ok(camera?.directly);
  ann.paused.add("bob-mic");
  await flow(1_000);
  assert.equal(microphone?.directly, undefined);
  assert.equal(ann.got.get("bob-mic")?.directly, undefined);
});

test("what is published or ended meanwhile is offered anew", async () => {
  const { ann, bob, tell, flow } = two();
  tell("direct");
  await flow(1_000);
  const screen = bob.publish("bob-screen");
  bob.direct.update();
  await flow(1_000);
  assert.ok(screen.directly);
  assert.ok(ann.got.get("bob-screen")?.directly);
  bob.locals.splice(0, 1);
  ann.got.delete("bob-cam");
  bob.direct.update();
  await flow(1_000);
  assert.ok(ann.got.get("bob-screen")?.directly);
  assert.ok(ann.got.get("bob-mic")?.directly);
});

test("who speaks is heard where the server hears nothing", async () => {
  const { ann, bob, tell, flow, net } = two();
  const said = (side: Side) => side.said.splice(0);
  for (const { speakers } of [ann, bob]) speakers.toldMost("ann-cam");
  said(ann);
  said(bob);
  tell("direct");
  await flow(1_000);
  assert.deepEqual(said(ann), []);
  const lines = net.peers.flatMap((peer) => peer.lines);
  const ear = lines.find(({ kind, sender }) => kind === "audio" && !sender.track)?.receiver;
  assert.ok(ear);
  ear.level = 0.3;
  await flow(1_000);
  assert.deepEqual(said(ann), ["bob-mic speaks", "bob-mic dominates"], "once");
  assert.deepEqual(said(bob), ["bob-mic speaks", "bob-mic dominates"], "oneself, too");
  // The server believes otherwise, as it hears nothing.
  for (const { speakers } of [ann, bob]) {
    speakers.told("bob-mic", false);
    speakers.toldAll({ speaking: [], dominant: "ann-cam" });
  }
  ear.level = 0;
  await flow(400);
  assert.deepEqual(said(ann), [], "a pause is no silence");
  await flow(800);
  assert.deepEqual(said(ann), ["bob-mic silent"]);
  assert.deepEqual(said(bob), ["bob-mic silent"]);
  ear.level = 0.3;
  await flow(600);
  assert.deepEqual(said(ann), ["bob-mic speaks"]);
  const heard = ann.got.get("bob-mic");
  assert.ok(heard);
  heard.muted = true;
  await flow(300);
  assert.deepEqual(said(ann), ["bob-mic silent"], "a mute is one at once");
  heard.muted = false;
  await flow(800);
  for (const side of [ann, bob]) assert.equal(said(side).at(-1), "bob-mic speaks");
  tell("direct-ended");
  for (const side of [ann, bob]) {
    assert.deepEqual(said(side), ["bob-mic silent", "ann-cam dominates"], "the server tells again");
    side.speakers.told("bob-mic", true);
    assert.deepEqual(said(side), ["bob-mic speaks"]);
  }
  await flow(4_000);
  for (const side of [ann, bob]) assert.deepEqual(said(side), []);
});

test("what belongs to no pair, or is nonsense, does nothing", async () => {
  const { ann, tell, flow, net } = two();
  ann.direct.onNotice({ event: "signal", number: 1, text: '{"attempt":1,"offer":"x"}' });
  assert.equal(net.peers.length, 0);
  tell("direct", 2);
  for (const text of ["", "{", "null", "[]", '{"attempt":"1"}', undefined]) {
    ann.direct.onNotice({ event: "signal", number: 2, ...(text === undefined ? {} : { text }) });
  }
  ann.direct.onNotice({ event: "signal", number: 1, text: '{"attempt":9,"offer":"x"}' });
  await flow(1_000);
  assert.equal(net.peers.length, 4);
});

test("however often it begins anew, the connections of two pairs are all there are", async () => {
  const { ann, bob, tell, flow, net, timers, isDirect } = two();
  // Nobody answers, and so nobody closes.
  ann.other = undefined;
  for (let number = 1; number <= 50; number += 1) {
    ann.direct.onNotice({ event: "direct", number });
    if (number % 2) ann.direct.onNotice({ event: "direct-ended" });
    await timers.pass(20);
    assert.ok(net.peers.length <= 2, `${net.peers.length} after ${number}`);
  }
  ann.other = bob;
  tell("direct", 51);
  await flow(4_000);
  assert.equal(net.peers.length, 4);
  assert.deepEqual(isDirect(), all(true));
});

test("attempts of the other one that follow each other too fast are not taken", async () => {
  const { ann, net, timers } = two();
  ann.direct.onNotice({ event: "direct", number: 1 });
  ann.other = undefined;
  const before = net.made;
  const offer = JSON.stringify({ id: 0, kinds: ["video"] });
  for (let attempt = 1; attempt <= 1_000; attempt += 1) {
    const text = JSON.stringify({ attempt, offer });
    ann.direct.onNotice({ event: "signal", number: 1, text });
    if (attempt % 100 === 0) await timers.pass(100);
  }
  assert.ok(net.made - before <= 2, `${net.made - before} within a second`);
});

test("what the other one sends is held to its form and its bounds", async () => {
  const { ann, bob, net, flow, tell } = two();
  const rejected: unknown[] = [];
  const note = (reason: unknown) => void rejected.push(reason);
  process.on("unhandledRejection", note);
  bob.other = undefined;
  tell("direct");
  const bad: unknown[] = [
    null, 7, "", [], {}, [[]], { toString: 1 }, { length: 9 }, -1, 1.5, 1e300, true,
    [null], [{ mid: 1, publication: "x" }], [{ mid: "0" }], Array(65).fill({ mid: "0", publication: "x" }),
    "\nm=audio".repeat(65), "\rm=audio".repeat(65), "\na=candidate:1".repeat(65), "x".repeat(64 * 1024 + 1),
  ];
  const good = { attempt: 1, offer: "{}", answer: "{}", publications: [], candidate: {}, receiver: true };
  for (const key of Object.keys(good)) {
    for (const value of bad) {
      for (const with_ of [{}, good]) {
        const text = JSON.stringify({ attempt: 1, ...with_, [key]: value });
        ann.direct.onNotice({ event: "signal", number: 1, text });
      }
    }
  }
  // Its candidates, before there is a description and after it.
  const feed = (receiver: boolean) => {
    for (let n = 0; n < 500; n += 1) {
      const candidate = { candidate: candidateLine(n), sdpMid: "0" };
      const text = JSON.stringify({ attempt: 2, candidate, receiver });
      ann.direct.onNotice({ event: "signal", number: 1, text });
    }
  };
  await flow(1_500);
  const offer = JSON.stringify({ id: 0, kinds: ["video"] });
  ann.direct.onNotice({ event: "signal", number: 1, text: JSON.stringify({ attempt: 2, offer }) });
  feed(false);
  await flow(100);
  feed(false);
  await flow(100);
  const most = Math.max(...net.peers.map(({ candidates }) => candidates));
  assert.equal(most, 64);
  process.off("unhandledRejection", note);
  assert.deepEqual(rejected, []);
});

test("however often an attempt offers, its addresses and the answers are only so many", async () => {
  const { ann, net, timers } = two();
  const told: string[] = [];
  ann.other = { direct: { onNotice: ({ text }: { text: string }) => told.push(text) } } as never;
  ann.direct.onNotice({ event: "direct", number: 1 });
  let port = 0;
  const lines = (count: number) =>
    Array.from({ length: count }, () => `a=${candidateLine((port += 1))}`);
  const offer = (attempt: number, candidates: string[]) => {
    const sdp = [JSON.stringify({ id: 0, kinds: ["video"] }), ...candidates].join("\r\n");
    const text = JSON.stringify({ attempt, offer: sdp });
    ann.direct.onNotice({ event: "signal", number: 1, text });
  };
  const own = lines(10);
  for (let passed = 0; passed < 5_000; passed += 10) {
    // What it named before, an honest one names again.
    offer(1, passed < 2_500 ? own : [...own, ...lines(60)]);
    const text = JSON.stringify({ attempt: 1, candidate: { candidate: own[0]?.slice(2) } });
    ann.direct.onNotice({ event: "signal", number: 1, text });
    await timers.pass(10);
  }
  const peer = net.peers.find(({ offers }) => offers > 0);
  assert.ok(peer && peer.offers >= 9 && peer.offers <= 11, `${peer?.offers} offers in 5 s`);
  assert.ok(own.every((line) => peer.named.has(line)));
  assert.equal(peer.named.size, 64);
  assert.equal(peer.candidates, 1, "once, and then it is known");
  const answers = told.filter((text) => text.includes('"answer"')).length;
  assert.equal(answers, peer.offers);
  // As no browser writes them, or beyond the bound.
  for (const bad of ["a=CANDIDATE:1\t1\t1 1 udp 1 192.0.2.1 9 typ host", "a= candidate:x", ...lines(1)]) {
    await timers.pass(500);
    offer(1, [bad]);
  }
  await timers.pass(500);
  assert.equal(peer.named.size, 64);
  // So with what is answered.
  const sending = net.peers.find((each) => each.lines.some(({ sender }) => sender.track));
  const answer = [JSON.stringify({ id: 0, kinds: [] }), ...lines(100)].join("\r\n");
  const text = JSON.stringify({ attempt: 1, answer });
  ann.direct.onNotice({ event: "signal", number: 1, text });
  await timers.pass(10);
  assert.equal(sending?.named.size, 64);
  // Another connection has its own.
  offer(2, lines(3));
  await timers.pass(500);
  assert.equal(net.peers.find(({ offers }) => offers > 0)?.named.size, 3);
});

test("what is measured when it is over says nothing of who speaks", async () => {
  const { ann, tell, flow, net } = two();
  tell("direct");
  await flow(1_000);
  const lines = net.peers.flatMap((peer) => peer.lines);
  const ear = lines.find(({ kind, sender }) => kind === "audio" && !sender.track)?.receiver;
  assert.ok(ear);
  let release = () => {};
  ear.held = new Promise((resolve) => (release = resolve));
  await flow(300);
  tell("direct-ended");
  ear.held = undefined;
  release();
  await flow(100);
  ann.said.length = 0;
  ann.speakers.told("bob-mic", true);
  assert.deepEqual(ann.said, ["bob-mic speaks"], "the server is believed at once");
});

test("what the other one says on its data channel is held to its form and its bounds", async () => {
  const { ann, net, flow, tell, isDirect, timers } = two();
  const rejected: unknown[] = [];
  const note = (reason: unknown) => void rejected.push(reason);
  process.on("unhandledRejection", note);
  tell("direct");
  await flow(1_000);
  const say = (to: FakeChannel, data: unknown) =>
    to.dispatchEvent(Object.assign(new Event("message"), { data }));
  const channels = net.peers.flatMap(({ channel }) => channel ?? []);
  const answers = [
    "", "{", "null", "[]", '{"shown":{},"unwanted":[]}', '{"shown":[],"unwanted":[{"toString":1}]}',
    '{"shown":[null],"unwanted":[[]]}', new ArrayBuffer(9), undefined,
    JSON.stringify({ shown: [], unwanted: ["x".repeat(20_000)] }),
  ];
  for (const data of answers) {
    await timers.pass(120);
    for (const channel of channels) say(channel, data);
  }
  await flow(500);
  assert.deepEqual(isDirect(), all(true), "as if nothing had been said");
  // One that takes its word back all the time makes nobody work all the time.
  ann.log.length = 0;
  const sent = channels.reduce((sum, { sent }) => sum + sent, 0);
  for (let n = 0; n < 1_000; n += 1) {
    const shown = n % 2 ? ["ann-cam"] : [];
    for (const channel of channels) say(channel, JSON.stringify({ shown, unwanted: [] }));
  }
  assert.ok(ann.log.length <= 1, ann.log.join());
  const replied = channels.reduce((sum, { sent }) => sum + sent, 0) - sent;
  assert.ok(replied <= channels.length, `${replied} answers at once`);
  // Channels of others, or one more, are none of ours.
  const receiving = net.peers.find(({ lines }) => lines.some(({ sender }) => !sender.track));
  const more = new FakeChannel(net, "strait-direct");
  receiving?.dispatchEvent(Object.assign(new Event("datachannel"), { channel: more }));
  assert.equal(more.readyState, "closed");
  process.off("unhandledRejection", note);
  assert.deepEqual(rejected, []);
});

test("without another connection media stays with the relay, and it is tried again", async () => {
  const { net, tell, flow, isDirect } = two();
  net.full = true;
  tell("direct");
  await flow(1_000);
  assert.deepEqual(isDirect(), all(false));
  net.full = false;
  await flow(3_000);
  assert.deepEqual(isDirect(), all(true));
});

test("the node says whom to ask how one is seen from outside", async () => {
  const { net, timers, ann, bob } = two();
  const iceServers = [{ urls: "stun:192.0.2.1:8443" }];
  for (const side of [ann, bob]) side.direct.onNotice({ event: "direct", number: 1, iceServers });
  await timers.pass(1_000);
  assert.deepEqual(net.configurations.map((each) => each?.iceServers), Array(4).fill(iceServers));
});

test("no server is on the direct way but those that say where one is", () => {
  const iceServers = [
    { urls: ["stun:one.example", "turn:two.example"], username: "a", credential: "b" },
    { urls: "turns:three.example" },
  ];
  assert.deepEqual(directConfiguration({ iceServers }).iceServers, [{ urls: "stun:one.example" }]);
});
