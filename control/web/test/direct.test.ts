import assert from "node:assert/strict";
import { test } from "node:test";
import { Direct, type DirectHost, directConfiguration } from "../sdk/direct/direct.js";
import { Publication, RemotePeer } from "../sdk/peers.js";
import { LocalPublication, type PublicationHost } from "../sdk/publication.js";
import { FakeTrack } from "./fakeconnection.js";
import { FakeNet, FakeReceiver } from "./fakepeers.js";
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
        for (const line of lines) if (!line.sender.track) line.receiver.came += 1;
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

test("no server is on the direct way but those that say where one is", () => {
  const iceServers = [
    { urls: ["stun:one.example", "turn:two.example"], username: "a", credential: "b" },
    { urls: "turns:three.example" },
  ];
  assert.deepEqual(directConfiguration({ iceServers }).iceServers, [{ urls: "stun:one.example" }]);
});
