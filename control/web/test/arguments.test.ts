// Applications without a type checker: what is wrong is said before anything is done.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { StraitError } from "../sdk/errors.js";
import type { Scope } from "../sdk/scope.js";
import { Strait } from "../sdk/strait.js";
import { joined } from "./fakecall.js";
import { FakeTrack } from "./fakeconnection.js";

/** Fails, as wrong arguments do, with a sentence that begins with the argument's name. */
async function refused(name: string, call: Promise<unknown>): Promise<void> {
  await assert.rejects(call, (error: StraitError) => {
    const { kind, reason } = error;
    assert.equal(kind, "unsupported", reason);
    assert.ok(reason.startsWith(`${name}: `) && reason.includes("it takes "), reason);
    return true;
  });
}

test("a message that is neither text nor bytes, or is for nobody, is refused and not sent", async () => {
  const { server, scope } = await joined();
  const send = scope.sendMessage.bind(scope) as (data: unknown, to?: unknown) => Promise<void>;
  for (const data of [{ a: 1 }, 5, null, undefined, [1, 2], new ArrayBuffer(2)]) {
    await refused("data", send(data));
  }
  for (const to of [null, 5, {}, "", "x".repeat(256)]) await refused("to", send("hello", to));
  assert.equal(server.actions("NOTIFY").length, 0);
  await send(Uint8Array.from([1, 2]));
  assert.equal(server.actions("NOTIFY").length, 1);
});

test("what cannot be published so is refused before anything is captured or offered", async () => {
  const { scope, updates } = await joined();
  const publish = scope.publish.bind(scope) as (...all: unknown[]) => Promise<unknown>;
  for (const input of ["nonsense", ["camera", "x"], null, 7, {}]) {
    await refused("publish", publish(input));
  }
  const track = new FakeTrack("video");
  const size = { width: 320, height: 240, frameRate: 10, bitrateBps: 64_000 };
  const wrong: [string, object][] = [
    ["quality", { quality: "ultra" }],
    ["quality", { quality: "toString" }],
    ["quality.width", { quality: { ...size, width: -1 } }],
    ["quality.height", { quality: { width: 320 } }],
    ["quality.bitrateBps", { quality: { ...size, bitrateBps: NaN } }],
    ["maxBitrateBps", { maxBitrateBps: "1" }],
    ["source", { source: "window" }],
    ["name", { name: 5 }],
    ["codecs", { codecs: "VP8" }],
  ];
  for (const [name, options] of wrong) await refused(name, publish(track, options));
  await refused("options of publish", publish(track, null));
  assert.deepEqual([scope.publications.length, updates().length], [0, 0]);
});

test("join looks at what it is to publish before it connects", async () => {
  const join = Strait.join as (options: object) => Promise<Scope>;
  await refused("publish", join({ scope: "lobby", publish: ["nonsense"] }));
  const publishOptions = { quality: "ultra" };
  await refused("quality", join({ scope: "lobby", publish: "camera", publishOptions }));
});

test("a cap that is no whole number changes nothing", async () => {
  const { scope, updates } = await joined();
  for (const bps of [NaN, -1, 1.5, Infinity, "5"]) {
    await refused("limitUplink", scope.limitUplink(bps as number));
  }
  assert.equal(updates().length, 0);
});

test("a screen is published with its picture first", async () => {
  const tracks = [new FakeTrack("audio"), new FakeTrack("video")];
  const getDisplayMedia = async () => ({ getTracks: () => tracks });
  const value = { mediaDevices: { getDisplayMedia } };
  Object.defineProperty(globalThis, "navigator", { value, configurable: true });
  const { timers, scope } = await joined();
  const publishing = scope.publish("screen");
  await timers.pass(100);
  assert.deepEqual((await publishing).map(({ source }) => source), ["screen", "screen-audio"]);
});
