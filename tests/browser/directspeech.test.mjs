// Who speaks while two browsers send to one another directly, and the server hears nothing of it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { join } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";
import { book, keepBook, publishVoice, read, speak } from "./lib/voice.mjs";

let server;
const browsers = [];
const tabs = {};

before(async () => {
  server = await Server.start({ direct: true });
  browsers.push(await Browser.chromium(), await Browser.firefox());
  const address = `${server.address}/?scope=speech`;
  for (const [index, name] of ["anna", "bert"].entries()) {
    const tab = await browsers[index].tab();
    // Firefox hums into its fake microphone; Chromium gets a made voice.
    await join(tab, address, { name, token: TOKEN, devices: name === "bert" });
    tabs[name] = tab;
  }
  await publishVoice(tabs.anna);
  await tabs.bert.evaluate(async () => {
    const { strait } = globalThis;
    await strait.unpublish(strait.publications.find(({ kind }) => kind === "video"));
  });
}, { timeout: 120_000 });

after(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  await server?.stop();
});

const forget = (name) => tabs[name].evaluate(() => void globalThis.book.splice(0));
const untilDirect = (tab) =>
  tab.until("all sound going directly", () => {
    const { publications, peers } = globalThis.strait;
    const got = [...peers.values()].flatMap((peer) => [...peer.publications.values()]);
    const all = [...publications, ...got];
    return all.length === 2 && all.every(({ directly }) => directly);
  });

test("each hears the other speak, and oneself, without the server", { timeout: 120_000 }, async () => {
  for (const tab of Object.values(tabs)) {
    await untilDirect(tab);
    await keepBook(tab);
  }
  await tabs.bert.evaluate(() => globalThis.strait.publications[0].mute());
  for (const tab of Object.values(tabs)) {
    await tab.until("silence", () => {
      const { publications, peers } = globalThis.strait;
      const got = [...peers.values()].flatMap((peer) => [...peer.publications.values()]);
      return [...publications, ...got].every(({ speaking }) => !speaking);
    });
  }
  for (const name of Object.keys(tabs)) await forget(name);
  await speak(tabs.anna, true);
  await read(tabs.bert, "anna speaks");
  await read(tabs.anna, "self speaks");
  await tabs.bert.until("anna marked", () =>
    [...document.querySelectorAll(".tile.speaking .who")].some((who) => who.textContent === "anna"),
  );
  await speak(tabs.anna, false);
  await read(tabs.bert, "anna silent");
  await read(tabs.anna, "self silent");
  await tabs.bert.evaluate(() => globalThis.strait.publications[0].unmute());
  await read(tabs.anna, "bert speaks");
  await read(tabs.bert, "self speaks");
  for (const [name, who] of [["anna", "bert"], ["bert", "self"]]) {
    await read(tabs[name], `${who} dominates`);
    await forget(name);
  }
  await tabs.bert.evaluate(() => globalThis.strait.publications[0].mute());
  await read(tabs.bert, "self silent");
  await read(tabs.anna, "bert silent");
  // A tone is one word: what is told is told once.
  for (const [name, who] of [["anna", "bert"], ["bert", "self"]]) {
    assert.deepEqual(await book(tabs[name]), [`${who} silent`]);
  }
});

test("no page wrote an error", () => {
  for (const [name, tab] of Object.entries(tabs)) assert.deepEqual(tab.errors, [], name);
});
