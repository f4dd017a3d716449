// What goes wrong: reload, broken WebSocket, restarted processes, wrong token, no camera.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { connected, join, others, received, untilOthers } from "./lib/page.mjs";
import { Cuttable, Server, TOKEN } from "./lib/server.mjs";
import { assertFlowing, untilGrown } from "./lib/watch.mjs";

let server;
let cuttable;
let browser;
const pair = {};

before(async () => {
  server = await Server.start();
  cuttable = await Cuttable.before(server.httpPort);
  browser = await Browser.chromium();
  pair.anna = await browser.tab();
  pair.bert = await browser.tab();
  await join(pair.anna, `${cuttable.address}/?scope=two`, { name: "anna", token: TOKEN });
  await join(pair.bert, `${server.address}/?scope=two`, { name: "bert", token: TOKEN });
  await untilOthers(pair.anna, ["bert"]);
  await untilOthers(pair.bert, ["anna"]);
}, { timeout: 120_000 });

after(async () => {
  await browser?.close();
  cuttable?.close();
  await server?.stop();
});

const both = () => [
  { name: "anna", tab: pair.anna, from: ["bert"] },
  { name: "bert", tab: pair.bert, from: ["anna"] },
];

async function untilReceived(tab, peer) {
  await tab.until(`media of ${peer}`, async () => {
    const { subscriptions } = await globalThis.strait.statistics();
    return subscriptions.filter((each) => (each.packetsReceived ?? 0) > 0).length >= 2;
  });
}

test("a broken WebSocket is mended without touching the media", { timeout: 60_000 }, async () => {
  await Promise.all([untilReceived(pair.anna, "bert"), untilReceived(pair.bert, "anna")]);
  await pair.anna.evaluate(() => {
    globalThis.seen = [];
    for (const name of ["reconnecting", "reconnected"]) {
      globalThis.strait.on(name, (detail) => globalThis.seen.push([name, detail?.fresh ?? null]));
    }
    globalThis.connectionBefore = globalThis.strait.media.connection;
  });
  cuttable.cut();
  try {
    await pair.anna.until("reconnecting", () => globalThis.strait.state === "reconnecting");
    await untilGrown(pair.anna, ["bert", "camera", "framesDecoded"], 10, 15_000);
    assert.equal(await pair.anna.evaluate(() => globalThis.strait.state), "reconnecting");
    // What happens meanwhile must arrive afterwards.
    await pair.bert.click("#microphone");
  } finally {
    cuttable.mend();
  }
  await connected(pair.anna);
  await pair.anna.until("bert shown as muted", () =>
    [...document.querySelectorAll(".tile.muted .who")].some((who) => who.textContent === "bert"),
  );
  const seen = await pair.anna.evaluate(() => globalThis.seen);
  assert.deepEqual(seen.at(-1), ["reconnected", false]);
  const same = () => globalThis.connectionBefore === globalThis.strait.media.connection;
  assert.equal(await pair.anna.evaluate(same), true, "the peer connection was replaced");
  await pair.bert.click("#microphone");
  await assertFlowing(both(), 1);
});

test("a reloaded page comes back into the call", { timeout: 60_000 }, async () => {
  await pair.bert.reload();
  await connected(pair.bert);
  await untilOthers(pair.bert, ["anna"]);
  await untilOthers(pair.anna, ["bert"]);
  await Promise.all([untilReceived(pair.anna, "bert"), untilReceived(pair.bert, "anna")]);
  await assertFlowing(both(), 1);
});

test("a restarted control is found again and the call goes on", { timeout: 90_000 }, async () => {
  server.kill("strait-control");
  await pair.anna.until("reconnecting", () => globalThis.strait.state === "reconnecting");
  await server.ready(20_000);
  await Promise.all([connected(pair.anna, 30_000), connected(pair.bert, 30_000)]);
  await untilOthers(pair.anna, ["bert"], 30_000);
  await untilOthers(pair.bert, ["anna"], 30_000);
  await Promise.all([untilReceived(pair.anna, "bert"), untilReceived(pair.bert, "anna")]);
  await assertFlowing(both(), 1);
});

test("an operator's restart of control brings everyone back, not to the lobby", {
  timeout: 90_000,
}, async () => {
  for (const tab of [pair.anna, pair.bert]) {
    await tab.evaluate(() => {
      const scope = globalThis.strait;
      globalThis.restart = [];
      globalThis.scopeBefore = scope;
      scope.on("closed", ({ error }) => globalThis.restart.push(`closed: ${error?.reason}`));
      scope.on("reconnected", ({ fresh }) => globalThis.restart.push(`reconnected, fresh: ${fresh}`));
    });
  }
  server.kill("strait-control", "SIGTERM");
  const tabs = [pair.anna, pair.bert];
  const leaving = () => globalThis.scopeBefore.state !== "connected";
  await Promise.all(tabs.map((tab) => tab.until("the end of the stay", leaving)));
  await server.ready(30_000);
  await Promise.all(tabs.map((tab) => connected(tab, 30_000)));
  await untilOthers(pair.anna, ["bert"], 30_000);
  await untilOthers(pair.bert, ["anna"], 30_000);
  for (const tab of tabs) {
    assert.deepEqual(await tab.evaluate(() => globalThis.restart), ["reconnected, fresh: true"]);
    assert.equal(await tab.evaluate(() => globalThis.scopeBefore === globalThis.strait), true);
  }
  await Promise.all([untilReceived(pair.anna, "bert"), untilReceived(pair.bert, "anna")]);
  await assertFlowing(both(), 1);
});

test("a restarted relay is found again and the call goes on", { timeout: 90_000 }, async () => {
  server.kill("strait-relay");
  await pair.anna.until("reconnecting", () => globalThis.strait.state === "reconnecting");
  await server.ready(20_000);
  await Promise.all([connected(pair.anna, 40_000), connected(pair.bert, 40_000)]);
  await untilOthers(pair.anna, ["bert"], 30_000);
  await Promise.all([untilReceived(pair.anna, "bert"), untilReceived(pair.bert, "anna")]);
  await assertFlowing(both(), 1);
});

test("a wrong token is told in a sentence, and the right one works after it", {
  timeout: 60_000,
}, async () => {
  const tab = await browser.tab();
  await tab.goto(`${server.address}/?scope=token`);
  await tab.fill("#token", "wrong");
  await tab.click("#join");
  await tab.until("an error", () => !document.querySelector("#lobby-error").hidden);
  const text = await tab.evaluate(() => document.querySelector("#lobby-error").textContent);
  assert.match(text, /does not accept this token/);
  await tab.screenshot("wrong-token");
  await tab.fill("#token", TOKEN);
  await tab.click("#join");
  await connected(tab);
  await tab.page.close();
});

test("without a camera one can still watch, and is told why", { timeout: 60_000 }, async () => {
  const refusing = await Browser.chromium({ camera: false });
  try {
    const tab = await refusing.tab();
    await join(tab, `${server.address}/?scope=two`, { name: "dora", token: TOKEN });
    const text = await tab.evaluate(() => document.querySelector("#call-error").textContent);
    assert.match(text, /camera/);
    await tab.until("a picture", () =>
      [...document.querySelectorAll(".tile:not(.own).picture video")].some(
        (video) => video.readyState >= 2,
      ),
    );
    await tab.screenshot("no-camera");
    assert.equal((await received(tab)).length, 4);
    assert.deepEqual(await others(tab), ["anna", "bert"]);
  } finally {
    await refusing.close();
  }
});

test("the page and a call work over HTTPS", {
  timeout: 60_000,
}, async () => {
  const tabs = [await browser.tab(), await browser.tab()];
  for (const [index, tab] of tabs.entries()) {
    const options = { name: `secure-${index}`, token: TOKEN };
    await join(tab, `${server.secureAddress}/?scope=secure`, options);
  }
  await untilReceived(tabs[0], "secure-1");
  for (const tab of tabs) await tab.page.close();
});
