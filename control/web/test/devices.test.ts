import assert from "node:assert/strict";
import { test } from "node:test";
import type { DeviceChange } from "../sdk/devices.js";
import { listDevices, setSpeaker, watchDevices } from "../sdk/devices.js";
import { LocalPublication, type PublicationHost } from "../sdk/publication.js";
import { capture } from "../sdk/capture.js";
import { FakeTrack } from "./fakeconnection.js";
import "./fakeserver.js";
import { settle } from "./faketimers.js";

/** What the browser has. */
class FakeDevices extends EventTarget {
  infos: { deviceId: string; kind: string; label: string; groupId: string }[] = [];
  asked: MediaStreamConstraints[] = [];
  /** Names of errors with which the next captures fail; undefined: it works. */
  failures: (string | undefined)[] = [];

  async enumerateDevices() {
    return this.infos;
  }

  async getUserMedia(constraints: MediaStreamConstraints) {
    this.asked.push(constraints);
    const failure = this.failures.shift();
    if (failure) throw Object.assign(new Error(), { name: failure });
    const video = constraints.video as MediaTrackConstraints | undefined;
    const { exact = "cam-1" } = (video?.deviceId ?? {}) as { exact?: string };
    const track = new FakeTrack(video ? "video" : "audio", { deviceId: exact });
    return { getTracks: () => [track] };
  }
}

function browser(...names: string[]) {
  const devices = new FakeDevices();
  const has = (...all: string[]) => {
    devices.infos = all.map((label) => {
      const kind = { c: "videoinput", m: "audioinput", s: "audiooutput" }[label[0] ?? ""] ?? "";
      return { deviceId: label, kind, label, groupId: "" };
    });
    devices.dispatchEvent(new Event("devicechange"));
  };
  has(...names);
  const value = { mediaDevices: devices };
  Object.defineProperty(globalThis, "navigator", { value, configurable: true });
  return { devices, has };
}

test("devices are listed by kind", async () => {
  browser("cam-1", "cam-2", "mic-1", "speaker-1");
  const { cameras, microphones, speakers } = await listDevices();
  assert.deepEqual(cameras.map(({ id }) => id), ["cam-1", "cam-2"]);
  assert.deepEqual([microphones.length, speakers.length], [1, 1]);
  assert.deepEqual(microphones[0], { id: "mic-1", kind: "microphone", label: "mic-1", group: "" });
});

test("what comes and goes is told, until nobody listens", async () => {
  const { has } = browser("cam-1", "mic-1");
  const told: string[] = [];
  const stop = watchDevices(({ added, removed, devices }: DeviceChange) => {
    const ids = (list: { id: string }[]) => list.map(({ id }) => id).join();
    told.push(`+${ids(added)} -${ids(removed)} cameras ${ids(devices.cameras)}`);
  });
  await settle();
  has("cam-1", "cam-2", "mic-1");
  await settle();
  has("cam-1", "cam-2", "mic-1");
  await settle();
  has("cam-2");
  await settle();
  stop();
  has();
  await settle();
  assert.deepEqual(told, ["+cam-2 - cameras cam-1,cam-2", "+ -cam-1,mic-1 cameras cam-2"]);
});

async function publication() {
  const [track] = await capture("camera");
  assert.ok(track);
  const sent = { track, isOver: false };
  const host = {
    replaceTrack: async (_: LocalPublication, next: MediaStreamTrack) => void (sent.track = next),
    reconfigure: async () => {},
    notifyMuted: () => {},
    has: () => !sent.isOver,
    ended: () => (sent.isOver = true),
  } as unknown as PublicationHost;
  const options = { quality: "medium", constraints: { facingMode: "user" } } as const;
  return { own: new LocalPublication(host, track, "camera", options), sent, first: track };
}

const idOf = (track: MediaStreamTrack) => (track.getSettings() as { deviceId: string }).deviceId;
const isStopped = (track: MediaStreamTrack) => (track as unknown as FakeTrack).stopped;

test("a publication takes another device, captured as before", async () => {
  const { devices } = browser();
  const { own, sent, first } = await publication();
  own.mute();
  await own.useDevice("cam-2");
  const { deviceId, facingMode, width } = devices.asked.at(-1)?.video as MediaTrackConstraints;
  assert.deepEqual([deviceId, facingMode, width], [{ exact: "cam-2" }, "user", { ideal: 640 }]);
  assert.equal(idOf(own.track), "cam-2");
  assert.equal(sent.track, own.track);
  assert.deepEqual([isStopped(first), own.track.enabled], [true, false], "still muted");
});

test("a device that is not there changes nothing", async () => {
  const { devices } = browser();
  const { own, first } = await publication();
  devices.failures = ["OverconstrainedError"];
  await assert.rejects(own.useDevice("cam-9"), { kind: "device" });
  assert.deepEqual([own.track, isStopped(first)], [first, false]);
});

test("where one device runs at a time the first is stopped, and comes back if need be", async () => {
  const { devices } = browser();
  const { own } = await publication();
  devices.failures = ["NotReadableError"];
  await own.useDevice("cam-2");
  assert.equal(idOf(own.track), "cam-2");
  devices.failures = ["NotReadableError", "NotReadableError"];
  await assert.rejects(own.useDevice("cam-3"), { kind: "device" });
  assert.equal(idOf(own.track), "cam-2");
  assert.equal(isStopped(own.track), false);
});

test("a device that comes when its publication is over is released", async () => {
  const { devices } = browser();
  const { own, sent } = await publication();
  const { getUserMedia } = devices;
  let late: MediaStreamTrack | undefined;
  devices.getUserMedia = async (constraints) => {
    const stream = await getUserMedia.call(devices, constraints);
    sent.isOver = true;
    late = stream.getTracks()[0] as unknown as MediaStreamTrack;
    return stream;
  };
  await assert.rejects(own.useDevice("cam-2"), { kind: "closed" });
  assert.ok(late && isStopped(late));
});

test("where neither device can be had any more the publication is over", async () => {
  const { devices } = browser();
  const { own, sent } = await publication();
  devices.failures = ["NotReadableError", "NotReadableError", "NotReadableError"];
  await assert.rejects(own.useDevice("cam-2"), { kind: "device" });
  assert.equal(sent.isOver, true);
});

test("what was captured is captured anew when it is reconfigured", async () => {
  browser();
  const { own } = await publication();
  await own.reconfigureVideo({ width: 320, height: 180, frameRate: 10 });
  assert.deepEqual((own.track as unknown as FakeTrack).constraints, {
    width: { ideal: 320 }, height: { ideal: 180 }, frameRate: { ideal: 10 },
  });
});

test("sound goes to a loudspeaker, and each failure has its words", async () => {
  const played: string[] = [];
  const element = (name?: string) =>
    ({
      setSinkId: async (id: string) => {
        if (name) throw Object.assign(new Error(), { name });
        played.push(id);
      },
    }) as unknown as HTMLMediaElement;
  await setSpeaker(element(), "speaker-1");
  await setSpeaker(element(), { id: "speaker-2", kind: "speaker", label: "", group: "" });
  assert.deepEqual(played, ["speaker-1", "speaker-2"]);
  await assert.rejects(setSpeaker({} as HTMLMediaElement, ""), { kind: "unsupported" });
  await assert.rejects(setSpeaker(element("NotFoundError"), "x"), { kind: "device" });
  await assert.rejects(setSpeaker(element("NotAllowedError"), "x"), { kind: "permission" });
});
