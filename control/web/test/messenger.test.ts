import assert from "node:assert/strict";
import { test } from "node:test";

import { StraitError } from "../sdk/errors.js";
import type { PeerMessage } from "../sdk/messages.js";
import { Messenger } from "../sdk/messenger.js";
import { FakeTimers } from "./faketimers.js";

class FakeChannel extends EventTarget {
  readyState = "connecting";
  binaryType = "";
  sent: Uint8Array[] = [];
  fails = false;

  send(frame: ArrayBuffer): void {
    if (this.fails || this.readyState !== "open") throw new Error("it is full");
    this.sent.push(new Uint8Array(frame));
  }

  close(): void {
    this.readyState = "closed";
  }

  open(): void {
    this.readyState = "open";
    this.dispatchEvent(new Event("open"));
  }

  brings(...bytes: number[]): void {
    const data = new Uint8Array(bytes).buffer;
    this.dispatchEvent(Object.assign(new Event("message"), { data }));
  }

  ends(): void {
    this.close();
    this.dispatchEvent(new Event("close"));
  }
}

/** A messenger with a channel, a WebSocket whose requests are answered by hand, and what it heard. */
function setup() {
  const timers = new FakeTimers();
  const requests: {
    payload: Record<string, unknown>;
    answer: () => Promise<void>;
    refuse: (code: number) => Promise<void>;
  }[] = [];
  const heard: PeerMessage[] = [];
  const state = { ready: true };
  const messenger = new Messenger(
    {
      ready: () => state.ready,
      request: (payload) =>
        new Promise((resolve, reject) => {
          const answer = async () => {
            resolve({});
            await settled();
          };
          const refuse = async (code: number) => {
            reject(new StraitError("server", "refused", code));
            await settled();
          };
          requests.push({ payload: payload as Record<string, unknown>, answer, refuse });
        }),
      heard: (message) => heard.push(message),
    },
    timers,
  );
  const channel = new FakeChannel();
  const attach = (each: FakeChannel) => messenger.attach(each as unknown as RTCDataChannel);
  return { messenger, timers, requests, heard, state, channel, attach };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));
const text = (number: number, said: string) => [
  ...[1, 0, 0, 0, number, 0, 1, "p".charCodeAt(0)],
  ...new TextEncoder().encode(said),
];
const answer = (number: number, code = 0) => [3, 0, 0, 0, number, code >> 8, code & 255];

test("messages go over the WebSocket, and over the channel once it is open", async () => {
  const { messenger, requests, channel, attach } = setup();
  attach(channel);
  const first = messenger.send("one", undefined);
  assert.equal(messenger.isDirect, false);
  channel.open();
  assert.deepEqual(
    requests.map(({ payload }) => payload),
    [{ event: "message", text: "one" }, { event: "channel" }],
  );
  // Behind what is on its way.
  const second = messenger.send("two", undefined);
  assert.equal(requests.length, 3);
  await requests[0]?.answer();
  await requests[2]?.answer();
  await Promise.all([first, second]);
  const third = messenger.send("ab", "p-2");
  const fourth = messenger.send(new Uint8Array([0, 255]), undefined);
  assert.deepEqual(channel.sent, [
    new Uint8Array([1, 0, 0, 0, 1, 0, 3, 112, 45, 50, 97, 98]),
    new Uint8Array([2, 0, 0, 0, 2, 0, 0, 0, 255]),
  ]);
  channel.brings(...answer(1));
  channel.brings(...answer(2, 404));
  await third;
  await assert.rejects(fourth, { code: 404 });
  const tooLarge = { kind: "unsupported", code: 0 };
  await assert.rejects(messenger.send("x".repeat(65537), undefined), tooLarge);
});

test("what the channel brings waits for what came before it by the WebSocket", async () => {
  const { messenger, requests, heard, channel, attach } = setup();
  attach(channel);
  channel.open();
  channel.brings(...text(1, "two"));
  messenger.told({ event: "message", from: "p", direct: false, text: "one" });
  await requests[0]?.answer();
  channel.brings(...text(2, "three"));
  channel.brings(...text(2, "three"));
  assert.deepEqual(
    heard.map(({ data }) => data),
    ["one", "two", "three"],
  );
  assert.deepEqual(channel.sent.at(-1), new Uint8Array(answer(2)));
  // The channel ends: what the server knows no answer of comes again, with its number.
  channel.ends();
  messenger.told({ event: "message", from: "p", text: "three", number: 2 });
  messenger.told({ event: "message", from: "p", text: "four", number: 3 });
  messenger.told({ event: "message", from: "p", text: "five" });
  assert.deepEqual(
    heard.slice(3).map(({ data }) => data),
    ["four", "five"],
  );
});

test("what is not answered when the channel ends goes over the WebSocket with its number", async () => {
  const { messenger, requests, channel, attach } = setup();
  attach(channel);
  channel.open();
  const sent = ["a", "b", "c"].map((each) => messenger.send(each, undefined));
  channel.brings(...answer(1));
  channel.fails = true;
  sent.push(messenger.send("d", undefined));
  assert.equal(channel.readyState, "closed");
  sent.push(messenger.send("e", undefined));
  assert.deepEqual(
    requests.slice(1).map(({ payload }) => [payload["text"], payload["number"]]),
    [["b", 2], ["c", 3], ["d", 4], ["e", undefined]],
  );
  for (const each of requests) await each.answer();
  await Promise.all(sent);
});

test("a channel that is closing is not used, and what was on its way goes first", async () => {
  const { messenger, requests, channel, attach } = setup();
  attach(channel);
  channel.open();
  const sent = [messenger.send("a", undefined)];
  channel.readyState = "closing";
  sent.push(messenger.send("b", undefined));
  assert.deepEqual(
    requests.slice(1).map(({ payload }) => [payload["text"], payload["number"]]),
    [["a", 1], ["b", undefined]],
  );
  for (const each of requests) await each.answer();
  await Promise.all(sent);
});

test("a server that hears of the channel a moment later is asked again, some times", async () => {
  const { timers, requests, channel, attach } = setup();
  attach(channel);
  channel.open();
  for (let n = 0; n < 10; n += 1) {
    await requests.at(-1)?.refuse(409);
    await timers.pass(200);
  }
  assert.equal(requests.length, 5);
});

test("a channel without answers is given up", async () => {
  const { messenger, timers, requests, channel, attach } = setup();
  attach(channel);
  channel.open();
  const sent = messenger.send("a", undefined);
  await timers.pass(10_000);
  assert.equal(channel.readyState, "closed");
  await requests[1]?.answer();
  await sent;
});

test("a new stay goes on where the old one was, or begins anew", async () => {
  const { messenger, requests, heard, state, channel, attach } = setup();
  attach(channel);
  channel.open();
  await requests[0]?.answer();
  channel.brings(...text(1, "one"));
  const first = messenger.send("a", undefined);
  state.ready = false;
  const next = new FakeChannel();
  attach(next);
  state.ready = true;
  messenger.started({ sent: 1, taken: 0 });
  assert.deepEqual(requests[1]?.payload, { event: "message", text: "a", number: 1 });
  await requests[1]?.answer();
  await first;
  next.open();
  const second = messenger.send("b", undefined);
  assert.equal(next.sent[0]?.[4], 2);
  // A server that has forgotten all of it.
  state.ready = false;
  messenger.detach();
  state.ready = true;
  messenger.started({ sent: 0, taken: 0 });
  await assert.rejects(second, { kind: "closed" });
  messenger.told({ event: "message", from: "p", text: "again", number: 1 });
  assert.deepEqual(
    heard.map(({ data }) => data),
    ["one", "again"],
  );
});
