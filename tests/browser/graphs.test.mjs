// The graphs on the page's tiles: they show what the browser measures, and move nothing.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { join, untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";

const SECONDS = 8;
/** Of the bitrate: the graph's seconds and the test's begin at different times. */
const SHARE = 0.3;

let server;
let browser;
const tabs = {};

before(async () => {
  server = await Server.start();
  browser = await Browser.chromium();
  for (const name of ["anna", "bert"]) {
    tabs[name] = await browser.tab();
    await join(tabs[name], `${server.address}/?scope=graphs`, { name, token: TOKEN });
  }
  await untilOthers(tabs.bert, ["anna"]);
  await tabs.bert.until("anna's picture", () => {
    const video = document.querySelector(".tile:not(.own).picture video");
    return video !== null && video.readyState >= 2;
  });
}, { timeout: 120_000 });

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Of a tile's graphs: values from the oldest to now, `null` where nothing is known, and label. */
function graphs(tab, tile) {
  return tab.evaluate((selector) => {
    const found = {};
    for (const graph of document.querySelectorAll(`${selector} .graphs:not([hidden]) .graph`)) {
      const svg = graph.querySelector("svg");
      const most = Number(svg.dataset.most);
      const points = new Map();
      const steps = svg.querySelector("path").getAttribute("d").matchAll(/[ML](\S+) ([^ML]+)/g);
      for (const [, x, y] of steps) points.set(Number(x), most * (1 - Number(y) / 16));
      const values = [...points.keys()].sort((a, b) => a - b).map((x) => points.get(x));
      const label = svg.getAttribute("aria-label");
      const text = graph.querySelector(".graph-value").textContent;
      found[graph.dataset.figure] = { values, label, text, isNow: points.has(59) };
    }
    return found;
  }, tile);
}

/** What the browser itself says to have received, by its raw reports. */
function raw(tab) {
  return tab.evaluate(async () => {
    const report = [...(await globalThis.strait.media.connection.getStats()).values()];
    const inbound = report.filter(({ type }) => type === "inbound-rtp");
    const pair = report.find(({ type, nominated }) => type === "candidate-pair" && nominated);
    const sum = (field) => inbound.reduce((total, each) => total + (each[field] ?? 0), 0);
    return {
      at: performance.now(),
      bytes: sum("bytesReceived"),
      lost: sum("packetsLost"),
      height: Math.max(...inbound.map(({ frameHeight }) => frameHeight ?? 0)),
      roundTripMs: pair.currentRoundTripTime * 1000,
    };
  });
}

const boxes = (tab) =>
  tab.evaluate(() =>
    // Captions are as wide as what they say, and who speaks is marked in them.
    [...document.querySelectorAll(".tile, .tile video, .controls")].map((element) => {
      const { x, y, width, height } = element.getBoundingClientRect();
      return [x, y, width, height].map(Math.round).join(" ");
    }),
  );

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

test("graphs show what the browser measures", { timeout: 120_000 }, async () => {
  const before = await boxes(tabs.bert);
  await tabs.bert.click("#statistics");
  await tabs.bert.until("graphs", () => document.querySelectorAll(".graph").length > 0);
  const began = await raw(tabs.bert);
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1_000));
  const ended = await raw(tabs.bert);
  const shown = await graphs(tabs.bert, ".tile:not(.own)");
  assert.deepEqual(await boxes(tabs.bert), before, "nothing moved");

  const { bitrate, loss, delay, picture } = shown;
  assert.ok(bitrate.isNow && bitrate.values.length >= SECONDS - 2, JSON.stringify(bitrate));
  const measured = ((ended.bytes - began.bytes) * 8_000) / (ended.at - began.at);
  const drawn = mean(bitrate.values.slice(1 - SECONDS));
  assert.ok(
    Math.abs(drawn - measured) < SHARE * measured,
    `${drawn} bit/s drawn, ${measured} measured`,
  );
  if (ended.lost === began.lost) assert.ok(mean(loss.values) < 0.01, loss.label);
  const off = Math.abs(delay.values.at(-1) - ended.roundTripMs);
  assert.ok(off <= 20 + ended.roundTripMs, `${delay.text}, ${ended.roundTripMs} ms measured`);
  assert.ok(Math.abs(picture.values.at(-1) - ended.height) < 1, `${picture.text}: ${ended.height}`);
  for (const { label, text } of [bitrate, loss, delay, picture]) {
    assert.match(label, /over the last minute: now /);
    assert.ok(label.includes(text), `${label}: ${text}`);
  }
  assert.equal(shown.queue, undefined, "of others this is not known");
  await tabs.bert.screenshot("graphs");
});

test("the own tile shows what the relay says of the queue", { timeout: 60_000 }, async () => {
  await tabs.bert.until(
    "a queuing delay",
    () => Boolean(document.querySelector('.tile.own [data-figure="queue"] path')?.getAttribute("d")),
    { timeoutMs: 15_000 },
  );
  const { queue } = await graphs(tabs.bert, ".tile.own");
  // One machine: what queues does so for want of a core.
  assert.ok(queue.values.every((value) => value >= 0 && value < 1_000), queue.label);
});

test("graphs go when they are not wanted", { timeout: 30_000 }, async () => {
  await tabs.bert.click("#statistics");
  await tabs.bert.until("no graphs", () =>
    [...document.querySelectorAll(".graphs")].every(({ hidden }) => hidden),
  );
  for (const [name, tab] of Object.entries(tabs)) assert.deepEqual(tab.errors, [], name);
});
