// Who speaks: the relay hears it by the levels in the packets, and every page is told.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { join, untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";
import { book, keepBook, publishVoice, read, speak } from "./lib/voice.mjs";

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
  for (const tab of Object.values(tabs)) await keepBook(tab);
}, { timeout: 120_000 });

after(async () => {
  await browser?.close();
  await server?.stop();
});

test("everybody is told who speaks, and the page marks it", { timeout: 60_000 }, async () => {
  await speak(tabs.anna, true);
  await read(tabs.anna, "self speaks");
  for (const name of ["bert", "carl"]) {
    await read(tabs[name], "anna speaks");
    await read(tabs[name], "anna dominates");
    await tabs[name].until("anna marked", () =>
      [...document.querySelectorAll(".tile.speaking.dominant .who")].some(
        (who) => who.textContent === "anna",
      ),
    );
  }
  await tabs.carl.screenshot("speech-anna");
  await speak(tabs.anna, false);
  await read(tabs.carl, "anna silent");
  assert.equal(await tabs.carl.evaluate(() => document.querySelector(".tile.speaking")), null);
  const still = await tabs.carl.evaluate(() => globalThis.strait.dominantSpeaker?.peer.name);
  assert.equal(still, "anna", "silence keeps who dominated");
});

test("who speaks next dominates", { timeout: 60_000 }, async () => {
  await speak(tabs.bert, true);
  await read(tabs.carl, "bert dominates");
  await read(tabs.bert, "self dominates");
});

test("a mute ends speech at once, and what is muted is not heard", { timeout: 60_000 }, async () => {
  await tabs.bert.evaluate(() => {
    globalThis.book.length = 0;
    globalThis.strait.publications[0].mute();
  });
  await read(tabs.bert, "self silent");
  await read(tabs.carl, "bert silent");
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.deepEqual(await book(tabs.bert), ["self silent"]);
  await tabs.bert.evaluate(() => globalThis.strait.publications[0].unmute());
  await read(tabs.bert, "self speaks");
});

test("no page wrote an error", () => {
  for (const [name, tab] of Object.entries(tabs)) assert.deepEqual(tab.errors, [], name);
});
