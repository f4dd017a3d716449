// Who speaks: the relay hears it by the levels in the packets, and every page is told.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { join, untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";
import { publishVoice, speak } from "./lib/voice.mjs";

let server;
let browser;
const tabs = {};
const NAMES = ["anna", "bert", "carl"];

before(async () => {
  server = await Server.start();
  browser = await Browser.chromium();
  for (const name of NAMES) {
    tabs[name] = await browser.tab();
    const address = `${server.address}/?scope=speech`;
    await join(tabs[name], address, { name, token: TOKEN, devices: false });
  }
  await untilOthers(tabs.carl, ["anna", "bert"]);
  for (const name of ["anna", "bert"]) await publishVoice(tabs[name]);
  for (const tab of Object.values(tabs)) await tab.evaluate(keepBook);
}, { timeout: 120_000 });

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Writes the events of a page down. */
function keepBook() {
  globalThis.book = [];
  const { strait } = globalThis;
  const who = ({ peer }) => peer?.name ?? "self";
  strait.on("speaking", ({ publication, speaking }) => {
    globalThis.book.push(`${who(publication)} ${speaking ? "speaks" : "silent"}`);
  });
  strait.on("dominantspeaker", ({ publication }) => {
    globalThis.book.push(`${who(publication)} dominates`);
  });
}

const book = (name) => tabs[name].evaluate(() => globalThis.book);
const read = (name, line) =>
  tabs[name].until(`${name} reads ${line}`, (wanted) => globalThis.book.includes(wanted), {
    timeoutMs: 10_000,
    argument: line,
  });

test("everybody is told who speaks, and the page marks it", { timeout: 60_000 }, async () => {
  await speak(tabs.anna, true);
  await read("anna", "self speaks");
  for (const name of ["bert", "carl"]) {
    await read(name, "anna speaks");
    await read(name, "anna dominates");
    await tabs[name].until("anna marked", () =>
      [...document.querySelectorAll(".tile.speaking.dominant .who")].some(
        (who) => who.textContent === "anna",
      ),
    );
  }
  await tabs.carl.screenshot("speech-anna");
  await speak(tabs.anna, false);
  await read("carl", "anna silent");
  assert.equal(await tabs.carl.evaluate(() => document.querySelector(".tile.speaking")), null);
  const still = await tabs.carl.evaluate(() => globalThis.strait.dominantSpeaker?.peer.name);
  assert.equal(still, "anna", "silence keeps who dominated");
});

test("who speaks next dominates", { timeout: 60_000 }, async () => {
  await speak(tabs.bert, true);
  await read("carl", "bert dominates");
  await read("bert", "self dominates");
});

test("a mute ends speech at once, and what is muted is not heard", { timeout: 60_000 }, async () => {
  await tabs.bert.evaluate(() => {
    globalThis.book.length = 0;
    globalThis.strait.publications[0].mute();
  });
  await read("bert", "self silent");
  await read("carl", "bert silent");
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.deepEqual(await book("bert"), ["self silent"]);
  await tabs.bert.evaluate(() => globalThis.strait.publications[0].unmute());
  await read("bert", "self speaks");
});

test("no page wrote an error", () => {
  for (const [name, tab] of Object.entries(tabs)) assert.deepEqual(tab.errors, [], name);
});
