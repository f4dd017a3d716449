import assert from "node:assert/strict";
import { test } from "node:test";
import { type Fetch, Locator, applicationOf } from "../sdk/locator.js";
import { FakeTimers } from "./faketimers.js";

const NODE = JSON.stringify({ endpoint: "node.example:8443", https: "https://node.example:8443" });
const resolvers = ["https://silent", "https://refuses/cnc", "https://answers/"];

function locator(chance: number) {
  const timers = new FakeTimers();
  timers.chance = chance;
  const asked: string[] = [];
  const fetch: Fetch = (url) => {
    asked.push(url);
    const { host } = new URL(url);
    if (host === "silent") return new Promise(() => {});
    const refused = { status: 503, text: async () => "no node has room" };
    const found = { status: 200, text: async () => NODE };
    return Promise.resolve(host === "answers" ? found : refused);
  };
  const wanted = { resolvers, application: "acme", scope: "a room", region: undefined };
  return { asked, timers, locator: new Locator(wanted, timers, fetch) };
}

test("a random CnC is asked first, then the next until one answers within its time", async () => {
  const first = new Set<string>();
  for (const chance of [0, 0.4, 0.9]) {
    const { asked, timers, locator: each } = locator(chance);
    const found = each.locate(undefined);
    await timers.pass(2_000);
    const node = { url: "wss://node.example:8443/ws", endpoint: "node.example:8443" };
    assert.deepEqual(await found, node);
    first.add(asked[0] ?? "");
    assert.equal(asked.at(-1), "https://answers/resolve?applicationId=acme&scopeId=a+room");
    const before = asked.length;
    assert.deepEqual(await each.locate("[::1]:8443"), node);
    assert.deepEqual(asked.slice(before), [
      "https://answers/resolve?applicationId=acme&scopeId=a+room" +
        "&reconnect=true&streamerEndpoint=%5B%3A%3A1%5D%3A8443",
    ]);
  }
  assert.equal(first.size, 3);
});

test("where none answers, the reason of the last is told", async () => {
  const timers = new FakeTimers();
  const fetch: Fetch = async () => ({ status: 503, text: async () => "no node has room" });
  const wanted = { resolvers: ["https://a"], application: "x", scope: "y", region: "eu" };
  const alone = new Locator(wanted, timers, fetch);
  await assert.rejects(alone.locate(undefined), { code: 503, reason: /no node has room/ });
});

test("plain text is a node that is reached as the CnC is; other words are none", async () => {
  const timers = new FakeTimers();
  const at = (text: string) => {
    const wanted = { resolvers: ["http://a"], application: "x", scope: "y", region: undefined };
    return new Locator(wanted, timers, async () => ({ status: 200, text: async () => text }));
  };
  const found = await at("10.0.0.1:8080\n").locate(undefined);
  assert.deepEqual(found, { url: "ws://10.0.0.1:8080/ws", endpoint: "10.0.0.1:8080" });
  for (const wrong of ["", "<html>", '{"https":"file:///x","endpoint":"a:1"}']) {
    await assert.rejects(at(wrong).locate(undefined), { kind: "server" }, wrong);
  }
});

test("an encrypted CnC leads to no node that is not", async () => {
  const timers = new FakeTimers();
  const wanted = { resolvers: ["https://a"], application: "x", scope: "y", region: undefined };
  const text = JSON.stringify({ endpoint: "b:80", https: "http://b" });
  const downgrade = new Locator(wanted, timers, async () => ({ status: 200, text: async () => text }));
  await assert.rejects(downgrade.locate(undefined), { kind: "server", reason: /not encrypted/ });
});

test("no CnC redirects, and a round is ended at once by who waits no more", async () => {
  const timers = new FakeTimers();
  const options: Parameters<Fetch>[1][] = [];
  const fetch: Fetch = (_, given) => {
    options.push(given);
    return new Promise(() => {});
  };
  const silent = new Locator({ resolvers, application: "x", scope: "y", region: undefined }, timers, fetch);
  const ends = new AbortController();
  const found = assert.rejects(silent.locate(undefined, ends.signal), { kind: "closed" });
  await timers.pass(100);
  ends.abort();
  await found;
  assert.equal(options.length, 1, "no other one is asked");
  assert.deepEqual([options[0]?.redirect, options[0]?.signal.aborted], ["error", true]);
  await assert.rejects(silent.locate(undefined, ends.signal), { kind: "closed" });
});

test("slow lines get more time in each round", async () => {
  const timers = new FakeTimers();
  const wanted = { resolvers: ["https://a"], application: "x", scope: "y", region: undefined };
  const silent = new Locator(wanted, timers, () => new Promise(() => {}));
  for (const withinMs of [2_000, 4_000, 8_000, 8_000]) {
    let ended = false;
    const round = silent.locate(undefined).catch(() => (ended = true));
    await timers.pass(withinMs - 1);
    assert.equal(ended, false);
    await timers.pass(1);
    await round;
  }
});

test("the application is that of the token", () => {
  const claims = Buffer.from('{"iss":"acme","x":"~~~???"}').toString("base64url");
  assert.equal(applicationOf(`x.${claims}.y`), "acme");
  for (const other of [undefined, "dev", "a.b.c"]) assert.equal(applicationOf(other), "dev");
});
