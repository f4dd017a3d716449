import assert from "node:assert/strict";
import { test } from "node:test";
import { bob, joined } from "./fakecall.js";
import { FakeConnection, FakeTrack } from "./fakeconnection.js";

const asTrack = (track: FakeTrack) => track as unknown as MediaStreamTrack;

test("join: one offer with what is published and free slots, then COMPLETE", async () => {
  const { server, scope, starts, updates } = await joined([], [new FakeTrack("video")]);
  assert.equal(starts().length, 1);
  assert.deepEqual(starts()[0]?.publish, [{ mid: "0", source: "other", muted: false }]);
  const lines = JSON.parse(starts()[0]?.sdp ?? "[]") as { direction: string }[];
  assert.equal(lines.filter((line) => line.direction === "recvonly").length, 4);
  assert.equal(updates().length, 0);
  assert.equal(server.actions("COMPLETE").length, 1);
  assert.equal(server.actions("COMPLETE")[0]?.control.subsession_id, "c2");
  assert.equal(scope.peer, "p-own");
  assert.equal(scope.publications[0]?.id, "pub-own-1");
});

test("those already there are bound to free slots without an offer", async () => {
  const { scope, updates, log } = await joined([bob("cam-1", "mic-1")]);
  assert.equal(scope.peers.get("p-bob")?.name, "Bob");
  assert.equal(updates().length, 1);
  assert.equal(updates()[0]?.sdp, undefined);
  assert.deepEqual(updates()[0]?.subscribe?.map((entry) => entry.publication), ["mic-1", "cam-1"]);
  assert.deepEqual(log, ["track", "track"]);
  const camera = scope.peers.get("p-bob")?.find("camera");
  assert.equal(camera?.track?.kind, "video");
});

test("a joiner with more than the free slots costs one offer, the next one none", async () => {
  const { server, conference, timers, scope, updates, log } = await joined();
  conference.peers = [bob("cam-1", "cam-2", "cam-3", "mic-1")];
  server.notify({ event: "joined", peer: conference.peers[0] }, "c2");
  await timers.pass(100);
  assert.equal(updates().length, 1);
  assert.ok(updates()[0]?.sdp);
  assert.equal(updates()[0]?.subscribe?.length, 4);
  assert.equal(log.filter((name) => name === "track").length, 4);
  conference.peers.push({ ...bob("cam-4"), peer: "p-carol" });
  server.notify({ event: "joined", peer: conference.peers[1] }, "c2");
  await timers.pass(100);
  assert.equal(updates().length, 2);
  assert.equal(updates()[1]?.sdp, undefined);
  assert.ok(scope.peers.get("p-carol")?.find("camera")?.track);
});

test("a slot that its publisher left is bound anew", async () => {
  const { server, conference, timers, scope, updates, log } = await joined([bob("cam-1", "cam-2")]);
  const before = scope.peers.get("p-bob")?.publications.get("cam-1")?.track;
  server.notify({ event: "unpublished", peer: "p-bob", publication: "cam-1" }, "c2");
  await timers.pass(100);
  assert.equal(updates().length, 1);
  conference.peers = [bob("cam-2", "cam-3")];
  const published = { publication: "cam-3", kind: "video", source: "screen" };
  server.notify({ event: "published", peer: "p-bob", publication: published }, "c2");
  await timers.pass(100);
  assert.equal(updates().length, 2);
  assert.equal(updates()[1]?.sdp, undefined);
  const screen = scope.peers.get("p-bob")?.find("screen");
  assert.equal(screen?.track, before);
  assert.deepEqual(log.slice(-3), ["unpublished", "published", "track"]);
});

test("several changes at once share one offer", async () => {
  const { timers, scope, updates } = await joined();
  const tracks = [new FakeTrack("video"), new FakeTrack("audio")].map(asTrack);
  const all = Promise.all([
    scope.publish(tracks[0]!, { source: "camera" }),
    scope.publish(tracks[1]!, { source: "microphone", muted: true }),
  ]);
  await timers.pass(100);
  const [camera] = await all;
  assert.equal(updates().length, 1);
  assert.deepEqual(
    updates()[0]?.publish?.map(({ source, muted }) => [source, muted]),
    [["camera", false], ["microphone", true]],
  );
  assert.match(camera.id ?? "", /^pub-own-/);
});

test("unpublish frees the m-line and the next publication of the kind reuses it", async () => {
  const { timers, scope, updates } = await joined([], [new FakeTrack("video")]);
  const gone = scope.publications[0]?.unpublish();
  await timers.pass(100);
  await gone;
  assert.deepEqual(updates()[0]?.publish, []);
  assert.match(updates()[0]?.sdp ?? "", /"mid":"0","kind":"video","direction":"inactive"/);
  const again = scope.publish(asTrack(new FakeTrack("video")));
  await timers.pass(100);
  await again;
  assert.equal(updates()[1]?.publish?.[0]?.mid, "0");
  assert.equal(scope.publications.length, 1);
});

test("layers that nobody needs are stopped and started again", async () => {
  const { server, timers, scope } = await joined();
  const publishing = scope.publish(asTrack(new FakeTrack("video")), { simulcast: true });
  await timers.pass(100);
  const camera = await publishing;
  const sending = FakeConnection.last.transceivers.find(({ direction }) => direction === "sendonly");
  const active = () => sending?.sender.encodings.map((each) => each.active ?? true);
  assert.deepEqual(active(), [true, true, true]);
  const tell = (layers: string[], publication = camera.id) =>
    server.notify({ event: "layers", publication, active: layers }, "c2");
  tell(["q"]);
  await timers.pass(1);
  assert.deepEqual(active(), [true, false, false]);
  assert.deepEqual(camera.layers, ["q"]);
  tell([], "pub-of-somebody");
  tell(["q", "h"]);
  tell(["h", "f"]);
  await timers.pass(1);
  assert.deepEqual(active(), [false, true, true], "the last word counts");
});

test("a refused publication tells its caller and leaves the rest alone", async () => {
  const { conference, timers, scope, log } = await joined([], [new FakeTrack("audio")]);
  conference.refuse = 415;
  const refused = assert.rejects(scope.publish(asTrack(new FakeTrack("video"))), { code: 415 });
  await timers.pass(100);
  await refused;
  assert.equal(scope.publications.length, 1);
  assert.equal(FakeConnection.last.signalingState, "stable");
  conference.refuse = undefined;
  const taken = scope.publish(asTrack(new FakeTrack("video")));
  await timers.pass(200);
  assert.equal((await taken).kind, "video");
  assert.ok(!log.includes("error"), "the call has told it");
});

test("what is refused in a fresh join ends and is told by an event", async () => {
  const { server, conference, timers, scope, log } = await joined([], [new FakeTrack("video")]);
  FakeConnection.last.setState("connected");
  conference.rejected = ["0"];
  server.notify({ event: "media-lost", reason: "relay restarted" }, "c2");
  await timers.pass(1_000);
  assert.equal(scope.publications.length, 0);
  assert.equal(log.filter((name) => name === "error").length, 1);
});

test("an m-line that the answer rejects is a refused publication", async () => {
  const { conference, timers, scope } = await joined();
  conference.rejected = ["4"];
  const refused = assert.rejects(scope.publish(asTrack(new FakeTrack("video"))), { code: 488 });
  await timers.pass(200);
  await refused;
  assert.equal(scope.publications.length, 0);
});

test("mute silences the track and tells the others; so does unmute", async () => {
  const track = new FakeTrack("audio");
  const { server, timers, scope } = await joined([], [track]);
  const [publication] = scope.publications;
  publication?.mute();
  publication?.mute();
  await timers.pass(10);
  assert.equal(track.enabled, false);
  publication?.unmute();
  await timers.pass(10);
  assert.deepEqual(
    server.actions("NOTIFY").map((frame) => frame.payload),
    [
      { event: "mute", publication: "pub-own-1" },
      { event: "unmute", publication: "pub-own-1" },
    ],
  );
});

test("the mute state of the others is kept and told once", async () => {
  const { server, scope, log } = await joined([bob("mic-1")]);
  server.notify({ event: "muted", peer: "p-bob", publication: "mic-1" }, "c2");
  server.notify({ event: "muted", peer: "p-bob", publication: "mic-1" }, "c2");
  assert.equal(scope.peers.get("p-bob")?.find("microphone")?.muted, true);
  assert.equal(log.filter((name) => name === "muted").length, 1);
});

test("messages go to one or to all, as text or bytes, and come in order", async () => {
  const { server, scope } = await joined([bob()]);
  const got: unknown[] = [];
  const stop = scope.onMessage((message) => got.push(message));
  const peer = scope.peers.get("p-bob");
  assert.ok(peer);
  await scope.sendMessage("to all ☕");
  await scope.sendMessage(new Uint8Array([0, 255, 1]), peer);
  await scope.sendMessage("to one", "p-bob");
  assert.deepEqual(
    server.actions("NOTIFY").map((frame) => frame.payload),
    [
      { event: "message", text: "to all ☕" },
      { event: "message", to: "p-bob", data: "AP8B" },
      { event: "message", to: "p-bob", text: "to one" },
    ],
  );
  await assert.rejects(scope.sendMessage("x".repeat(65537)), { kind: "unsupported" });
  server.notify({ event: "message", from: "p-bob", direct: false, text: "hello" }, "c2");
  server.notify({ event: "message", from: "p-bob", direct: true, data: "AP8B" }, "c2");
  server.notify({ event: "message", from: "p-bob" }, "c2");
  stop();
  server.notify({ event: "message", from: "p-bob", direct: false, text: "later" }, "c2");
  assert.deepEqual(got, [
    { from: "p-bob", direct: false, data: "hello" },
    { from: "p-bob", direct: true, data: new Uint8Array([0, 255, 1]) },
  ]);
});

test("who speaks is kept, oneself included, and told once", async () => {
  const { server, timers, scope, log } = await joined([bob("mic-1")], [new FakeTrack("audio")]);
  await timers.pass(10);
  const voice = scope.peers.get("p-bob")?.find("microphone");
  const [own] = scope.publications;
  assert.ok(voice && own);
  const tell = (event: string, peer: string, publication: string | undefined) =>
    server.notify({ event, peer, publication }, "c2");
  tell("speaking", "p-bob", "mic-1");
  tell("speaking", "p-bob", "mic-1");
  tell("dominant", "p-bob", "mic-1");
  tell("speaking", "p-own", own.id);
  assert.deepEqual([voice.speaking, own.speaking], [true, true]);
  assert.equal(scope.dominantSpeaker, voice);
  tell("silent", "p-bob", "mic-1");
  tell("dominant", "p-own", own.id);
  assert.equal(scope.dominantSpeaker, own);
  assert.equal(voice.speaking, false);
  tell("speaking", "p-eve", "mic-9");
  assert.deepEqual(
    log.filter((name) => name === "speaking" || name === "dominantspeaker"),
    ["speaking", "dominantspeaker", "speaking", "speaking", "dominantspeaker"],
  );
  // After a reconnect, all that was missed at once.
  server.notify({ event: "speakers", speaking: ["mic-1"], dominant: "mic-1" }, "c2");
  assert.deepEqual([voice.speaking, own.speaking], [true, false]);
  assert.equal(scope.dominantSpeaker, voice);
  server.notify({ event: "left", peer: "p-bob" }, "c2");
  assert.equal(scope.dominantSpeaker, undefined);
});

test("unsubscribe frees the slot on the server; subscribe takes it again", async () => {
  const { timers, scope, updates } = await joined([bob("cam-1")]);
  const camera = scope.peers.get("p-bob")?.find("camera");
  assert.ok(camera);
  const freed = scope.unsubscribe(camera);
  await timers.pass(100);
  await freed;
  assert.deepEqual(updates()[1]?.subscribe?.map((entry) => entry.publication), [null]);
  assert.equal(camera.track, undefined);
  const again = scope.subscribe(camera);
  await timers.pass(100);
  assert.equal(await again, camera.track);
});

test("a leaver is told with his publications first", async () => {
  const { server, scope, log } = await joined([bob("cam-1", "mic-1")]);
  server.notify({ event: "left", peer: "p-bob", reason: "closed" }, "c2");
  assert.equal(scope.peers.size, 0);
  assert.deepEqual(log.slice(-3), ["unpublished", "unpublished", "left"]);
});

test("a broken WebSocket leaves the media alone", async () => {
  const { server, timers, scope, log, starts } = await joined([bob("cam-1")]);
  const connection = FakeConnection.last;
  connection.setState("connected");
  server.socket.break();
  assert.equal(scope.state, "reconnecting");
  await timers.pass(2_000);
  assert.equal(scope.state, "connected");
  assert.equal(FakeConnection.last, connection);
  assert.equal(starts().length, 1);
  assert.deepEqual(log.slice(-3), ["connected", "reconnecting", "reconnected"]);
});

test("a lost session is joined afresh with all that was published", async () => {
  const { server, conference, timers, scope, log, starts } = await joined(
    [bob("cam-1")],
    [new FakeTrack("video")],
  );
  FakeConnection.last.setState("connected");
  conference.peers = [{ ...bob("cam-9"), peer: "p-carol" }];
  server.forget();
  server.socket.break();
  await timers.pass(3_000);
  assert.equal(starts().length, 2);
  assert.equal(starts()[1]?.publish?.length, 1);
  FakeConnection.last.setState("connected");
  assert.equal(scope.publications[0]?.id, "pub-own-2");
  assert.deepEqual([...scope.peers.keys()], ["p-carol"]);
  assert.ok(scope.peers.get("p-carol")?.find("camera")?.track);
  assert.equal(log.at(-1), "reconnected");
});

test("media-lost starts anew in the same session, once", async () => {
  const { server, timers, starts } = await joined([], [new FakeTrack("video")]);
  FakeConnection.last.setState("connected");
  server.notify({ event: "media-lost", reason: "relay restarted" }, "c2");
  server.notify({ event: "media-lost", reason: "relay restarted" }, "c2");
  await timers.pass(1_000);
  assert.equal(starts().length, 2);
  assert.equal(server.actions("SHUTDOWN").length, 0);
  assert.equal(server.sessions, 1);
});

test("failed ICE is restarted by UPDATE, then joined afresh", async () => {
  const { timers, starts, updates } = await joined();
  const connection = FakeConnection.last;
  connection.setState("connected");
  connection.setState("failed");
  await timers.pass(100);
  assert.equal(connection.restarts, 1);
  assert.equal(updates().length, 1);
  await timers.pass(8_000);
  assert.equal(starts().length, 2);
});

test("a short interruption is waited out", async () => {
  const { timers, log } = await joined();
  const connection = FakeConnection.last;
  connection.setState("connected");
  connection.setState("disconnected");
  await timers.pass(900);
  connection.setState("connected");
  await timers.pass(20_000);
  assert.equal(connection.restarts, 0);
  assert.deepEqual(log, ["connected"]);
});

test("leave says goodbye, stops all and tells it", async () => {
  const { server, timers, scope, log } = await joined([], [new FakeTrack("video")]);
  const left = scope.leave();
  await timers.pass(10);
  await left;
  assert.equal(server.actions("SHUTDOWN").length, 1);
  assert.equal(scope.state, "closed");
  assert.equal(log.at(-1), "closed");
  assert.equal(server.socket.closedByClient, true);
  await assert.rejects(scope.publish(asTrack(new FakeTrack("video"))), { kind: "closed" });
});

test("the server can end the call with a reason", async () => {
  const { server, scope } = await joined();
  let reason = "";
  scope.on("closed", ({ error }) => (reason = error?.reason ?? ""));
  const control = { type: "request", subsession_id: "c2" };
  server.push(control, { action: "SHUTDOWN" }, { reason: "draining" });
  assert.equal(reason, "draining");
});

const SENT_AWAY = { type: "request", subsession_id: "c2" };
const AGAIN = { reason: "server is ending", again: true };

test("an end that is not final is followed by a fresh join in the same session", async () => {
  const { server, timers, scope, log, starts } = await joined(
    [bob("cam-1")],
    [new FakeTrack("video")],
  );
  FakeConnection.last.setState("connected");
  const before = FakeConnection.last;
  server.push(SENT_AWAY, { action: "SHUTDOWN" }, AGAIN);
  assert.equal(scope.state, "reconnecting");
  assert.equal(before.connectionState, "closed");
  // What is published meanwhile comes along, and opens nothing by itself.
  const late = scope.publish(asTrack(new FakeTrack("audio")));
  await timers.pass(1_499);
  assert.equal(starts().length, 1, "the wait is 1 to 2 s, here 1.5 s");
  await timers.pass(1);
  assert.equal(starts().length, 2);
  assert.equal(starts()[1]?.publish?.length, 2);
  assert.ok((await late).id);
  FakeConnection.last.setState("connected");
  assert.equal(server.sessions, 1);
  assert.equal(scope.state, "connected");
  assert.ok(scope.peers.get("p-bob")?.find("camera")?.track);
  assert.equal(log.at(-1), "reconnected");
  assert.ok(!log.includes("closed"));
});

test("a server that restarts is joined once, when it is there again", async () => {
  const { server, timers, scope, log, starts } = await joined([], [new FakeTrack("video")]);
  FakeConnection.last.setState("connected");
  server.push(SENT_AWAY, { action: "SHUTDOWN" }, AGAIN);
  server.forget();
  server.reachable = false;
  server.socket.break();
  await timers.pass(5_000);
  assert.equal(scope.state, "reconnecting");
  server.reachable = true;
  await timers.pass(10_000);
  FakeConnection.last.setState("connected");
  assert.equal(server.sessions, 2);
  assert.equal(starts().length, 2);
  assert.equal(scope.publications[0]?.id, "pub-own-2");
  assert.equal(log.at(-1), "reconnected");
  assert.equal(log.filter((each) => each === "reconnected").length, 1);
});

test("an end that is not final survives a break of the WebSocket alone", async () => {
  const { server, timers, scope, starts } = await joined();
  FakeConnection.last.setState("connected");
  server.push(SENT_AWAY, { action: "SHUTDOWN" }, AGAIN);
  server.socket.break();
  await timers.pass(5_000);
  FakeConnection.last.setState("connected");
  assert.equal(server.sessions, 1);
  assert.equal(starts().length, 2);
  assert.equal(scope.state, "connected");
});

test("leaving while away ends it", async () => {
  const { server, timers, scope, starts } = await joined();
  server.push(SENT_AWAY, { action: "SHUTDOWN" }, AGAIN);
  const left = scope.leave();
  await timers.pass(10_000);
  await left;
  assert.equal(scope.state, "closed");
  assert.equal(starts().length, 1);
});

test("allowed senders: what is not allowed ends, and whoever comes later is asked for by the rule", async () => {
  const { server, conference, timers, scope, updates } = await joined([bob("cam-1", "mic-1")]);
  const peer = scope.peers.get("p-bob");
  assert.ok(peer?.find("camera")?.subscribed);
  const allowing = scope.allowSenders({ video: [] });
  await timers.pass(100);
  await allowing;
  assert.deepEqual(updates().at(-1)?.allow, { audio: "all", video: [], screen: "all" });
  assert.equal(peer?.find("camera")?.track, undefined);
  assert.ok(peer?.find("microphone")?.track, "sound goes on");
  const carol = { ...bob("cam-2", "mic-2"), peer: "p-carol" };
  conference.peers = [bob("cam-1", "mic-1"), carol];
  server.notify({ event: "joined", peer: carol }, "c2");
  await timers.pass(100);
  assert.deepEqual(updates().at(-1)?.subscribe?.map((entry) => entry.publication), ["mic-2"]);
  const camera = scope.peers.get("p-carol")?.find("camera");
  assert.ok(camera);
  const refused = assert.rejects(scope.subscribe(camera), /allowSenders/);
  await timers.pass(100);
  await refused;
  const allowed = scope.allowSenders({ video: [camera.peer], audio: "all" });
  await timers.pass(100);
  await allowed;
  assert.ok(camera.track);
  assert.equal(peer?.find("camera")?.track, undefined);
});

test("allowed senders: a rule that the server refuses changes nothing", async () => {
  const { conference, timers, scope } = await joined([bob("cam-1")]);
  conference.refuse = 413;
  const allowing = assert.rejects(scope.allowSenders({ video: [] }), { code: 413 });
  await timers.pass(100);
  await allowing;
  conference.refuse = undefined;
  await timers.pass(1000);
  assert.ok(scope.peers.get("p-bob")?.find("camera")?.track);
});

test("allowed senders and the cap of the uplink go with a fresh start", async () => {
  const { server, timers, scope, starts, updates } = await joined([bob("cam-1")]);
  assert.equal(starts()[0]?.allow, undefined);
  const changing = Promise.all([scope.allowSenders({ screen: ["p-bob"] }), scope.limitUplink(3e5)]);
  await timers.pass(100);
  await changing;
  assert.equal(updates().at(-1)?.uplinkMaxBps, 300_000);
  server.notify({ event: "media-lost", reason: "gone" }, "c2");
  await timers.pass(100);
  assert.equal(starts().length, 2);
  assert.deepEqual(starts()[1]?.allow, { screen: ["p-bob"] });
  assert.equal(starts()[1]?.uplinkMaxBps, 300_000);
});

test("pictures with a quality follow the uplink; sound, and what has layers, does not", async () => {
  const tracks = [new FakeTrack("video"), new FakeTrack("audio")];
  const { timers, scope } = await joined([], tracks, { quality: "high" });
  const connection = FakeConnection.last;
  const [picture, sound] = connection.transceivers.map((each) => each.sender);
  assert.ok(picture && sound);
  assert.deepEqual(sound.encodings, [{}]);
  assert.equal(picture.encodings[0]?.maxBitrate, 1_500_000);
  const line = (availableOutgoingBitrate: number) =>
    connection.stats.set("pair", {
      type: "candidate-pair", id: "pair", nominated: true, availableOutgoingBitrate,
    });
  line(60_000);
  for (let second = 0; second < 4; second += 1) await timers.pass(1_000);
  assert.deepEqual(picture.encodings, [
    { maxBitrate: 150_000, maxFramerate: 10, scaleResolutionDownBy: 1 },
  ]);
  line(3_000_000);
  for (let second = 0; second < 20; second += 1) await timers.pass(1_000);
  assert.equal(picture.encodings[0]?.maxBitrate, 1_500_000);
  assert.equal(picture.encodings[0]?.maxFramerate, 24);
  assert.deepEqual(sound.encodings, [{}]);
  // Nothing is looked at when nothing is left that could change.
  const [publication] = scope.publications;
  assert.ok(publication);
  const ending = scope.unpublish(publication);
  await timers.pass(2_000);
  await ending;
  line(60_000);
  for (let second = 0; second < 4; second += 1) await timers.pass(1_000);
  assert.equal(picture.encodings[0]?.maxBitrate, 1_500_000);
  scope.leave();
});

test("the cap that the server tells bounds what is sent, sound first", async () => {
  const tracks = [new FakeTrack("video"), new FakeTrack("audio")];
  const { conference, timers, scope } = await joined([], tracks);
  const [picture, sound] = FakeConnection.last.transceivers.map((each) => each.sender);
  assert.deepEqual(picture?.encodings, [{}]);
  conference.uplinkMaxBps = 300_000;
  const limiting = scope.limitUplink(400_000);
  await timers.pass(10);
  await limiting;
  // The server's own cap is smaller; 48 kbit/s of it are the sound's, and 5 % headers.
  assert.deepEqual(picture?.encodings, [{ maxBitrate: 239_400 }]);
  assert.deepEqual(sound?.encodings, [{}]);
  const second = scope.publish(asTrack(new FakeTrack("video")));
  await timers.pass(100);
  const screen = await second;
  assert.deepEqual(picture?.encodings, [{ maxBitrate: 119_700 }], "half for each picture");
  const ending = screen.unpublish();
  await timers.pass(100);
  await ending;
  assert.deepEqual(picture?.encodings, [{ maxBitrate: 239_400 }]);
  conference.uplinkMaxBps = 0;
  const lifting = scope.limitUplink(0);
  await timers.pass(10);
  await lifting;
  assert.deepEqual(picture?.encodings, [{}]);
});

test("pictures with a quality follow a cap where the browser knows nothing of the line", async () => {
  const { conference, timers, scope } = await joined(
    [], [new FakeTrack("video")], { quality: "high" },
  );
  const picture = FakeConnection.last.transceivers[0]?.sender;
  conference.uplinkMaxBps = 300_000;
  void scope.limitUplink(300_000);
  for (let second = 0; second < 4; second += 1) await timers.pass(1_000);
  assert.deepEqual(picture?.encodings, [
    { maxBitrate: 285_000, maxFramerate: 20, scaleResolutionDownBy: 1 },
  ]);
  void scope.leave();
});

test("a running video is reconfigured without an offer", async () => {
  const track = new FakeTrack("video", { width: 1280, height: 720 });
  const { timers, scope, updates } = await joined([], [track]);
  const [publication] = scope.publications;
  const sender = FakeConnection.last.transceivers[0]?.sender;
  assert.ok(publication && sender);
  await publication.reconfigureVideo({ width: 640, frameRate: 10, bitrateBps: 200_000 });
  const small = { maxBitrate: 200_000, maxFramerate: 10, scaleResolutionDownBy: 2 };
  assert.deepEqual(sender.encodings, [small]);
  await publication.reconfigureVideo({ frameRate: 20 });
  assert.deepEqual(sender.encodings, [{ ...small, maxFramerate: 20 }], "the rest stays");
  assert.deepEqual(track.constraints, {}, "an application's track is its own");
  // Another track has another size.
  await publication.replaceTrack(asTrack(new FakeTrack("video", { width: 2560, height: 1440 })));
  assert.equal(sender.encodings[0]?.scaleResolutionDownBy, 4);
  for (const wrong of [{ width: 0 }, { frameRate: -1 }, { bitrateBps: Number.NaN }]) {
    await assert.rejects(publication.reconfigureVideo(wrong), /it takes a number above 0/);
  }
  await timers.pass(100);
  assert.equal(updates().length, 0);
});

test("a video with a quality is reconfigured within it", async () => {
  const track = new FakeTrack("video", { width: 1280, height: 720 });
  const { scope } = await joined([], [track], { quality: "high" });
  const sender = FakeConnection.last.transceivers[0]?.sender;
  await scope.publications[0]?.reconfigureVideo({ width: 640, height: 360, bitrateBps: 400_000 });
  assert.deepEqual(sender?.encodings, [
    { maxBitrate: 400_000, maxFramerate: 24, scaleResolutionDownBy: 2 },
  ]);
  void scope.leave();
});

test("other layers are published anew, in one offer", async () => {
  const { timers, scope, updates, log } = await joined([], [new FakeTrack("video")]);
  const [publication] = scope.publications;
  assert.ok(publication);
  assert.equal(publication.id, "pub-own-1");
  const change = publication.reconfigureVideo({ simulcast: true, bitrateBps: 900_000 });
  await timers.pass(100);
  await change;
  assert.equal(updates().length, 1);
  assert.equal(publication.id, "pub-own-2");
  assert.deepEqual(scope.publications, [publication]);
  const { transceivers } = FakeConnection.last;
  assert.equal(transceivers[0]?.direction, "inactive");
  const sending = transceivers.find(({ direction }) => direction === "sendonly");
  assert.deepEqual(
    sending?.sender.encodings.map(({ rid, maxBitrate }) => [rid, maxBitrate]),
    [["q", 90_000], ["h", 300_000], ["f", 900_000]],
  );
  assert.ok(!log.includes("error"));
});

test("what the server does not take again is told, and ended", async () => {
  const { conference, timers, scope, log } = await joined([], [new FakeTrack("video")]);
  const [publication] = scope.publications;
  conference.refuse = 415;
  const refused = assert.rejects(publication?.reconfigureVideo({ simulcast: true }) ?? Promise.resolve());
  await timers.pass(100);
  await refused;
  assert.equal(scope.publications.length, 0);
  assert.ok(log.includes("error"));
});

test("the way of the media is told when it changes", async () => {
  const { timers, scope } = await joined();
  const connection = FakeConnection.last;
  const told: string[] = [];
  scope.on("connectiontype", ({ type, previous }) => told.push(`${previous} > ${type}`));
  const way = (protocol: string, more: object = {}) => {
    connection.stats.set("P", {
      type: "candidate-pair", id: "P", nominated: true, state: "succeeded", localCandidateId: "L",
    });
    connection.stats.set("L", { type: "local-candidate", id: "L", protocol, ...more });
  };
  assert.equal(scope.connectionType, "none");
  way("udp");
  connection.setState("connected");
  await timers.pass(10);
  assert.equal(scope.connectionType, "udp-relay");
  way("tcp");
  await timers.pass(2_000);
  // By UDP from a TURN server to the node, but by TLS to that server.
  way("udp", { relayProtocol: "tls" });
  await timers.pass(4_000);
  way("udp");
  await timers.pass(2_000);
  connection.setState("disconnected");
  assert.equal(scope.connectionType, "none");
  connection.setState("connected");
  await timers.pass(10);
  void scope.leave();
  await timers.pass(10);
  assert.deepEqual(told, [
    "none > udp-relay", "udp-relay > tcp-relay", "tcp-relay > udp-relay", "udp-relay > none",
    "none > udp-relay", "udp-relay > none",
  ]);
});

test("statistics are told by themselves, with what the server measures", async () => {
  const { server, timers, scope } = await joined([], [new FakeTrack("video")]);
  FakeConnection.last.setState("connected");
  const [queues, qualities]: [unknown[], unknown[]] = [[], []];
  scope.on("statistics", ({ publications: [own] }) => queues.push(own?.queueDelayMs));
  scope.on("quality", (told) => qualities.push(told));
  const asked = () =>
    server.actions("NOTIFY").map(({ payload }) => (payload as { on?: boolean }).on);
  scope.watchStatistics(true, 1_000);
  await timers.pass(1_500);
  assert.deepEqual([queues, asked()], [[undefined], [true]]);
  const quality = { publication: "pub-own-1", rid: "", queueDelaySeconds: 0.02 };
  server.notify({ event: "quality", publications: [quality] }, "c2");
  await timers.pass(1_000);
  assert.deepEqual(queues, [undefined, 20]);
  assert.deepEqual(qualities, [], "nobody asked for those");
  scope.watchQuality();
  server.notify({ event: "quality", publications: [quality] }, "c2");
  assert.equal(qualities.length, 1);
  scope.watchStatistics(false);
  scope.watchQuality(false);
  await timers.pass(10_000);
  assert.equal(queues.length, 2);
  assert.deepEqual(asked(), [true, false], "asked once, for both");
});
