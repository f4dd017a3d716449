// Two browsers go directly, and come back to the relay when a third one joins or their way dies.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { SLACK } from "./lib/bounds.mjs";
import { Browser } from "./lib/browsers.mjs";
import { Crossing } from "./lib/crossing.mjs";
import { join, sent } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";
import { growth } from "./lib/watch.mjs";

let server;
const browsers = [];
const tabs = {};
const [chromium, firefox] = [0, 1];

before(async () => {
  server = await Server.start({ direct: true });
  browsers.push(await Browser.chromium(), await Browser.firefox());
}, { timeout: 120_000 });

after(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  await server?.stop();
});

async function enter(name, browser, scope = "two", prepare = async () => {}) {
  const tab = await browsers[browser].tab();
  await prepare(tab);
  await join(tab, `${server.address}/?scope=${scope}`, { name, token: TOKEN });
  tabs[name] = tab;
  return tab;
}

const untilWay = (tab, type, timeoutMs = 20_000) =>
  tab.until(`going by ${type}`, (wanted) => globalThis.strait.connectionType === wanted, {
    argument: type,
    timeoutMs,
  });

/** All that a tab sends goes directly, and it shows all that it gets directly. */
const untilWhole = (tab) =>
  tab.until("everything going directly", () => {
    const { publications, peers } = globalThis.strait;
    const got = [...peers.values()].flatMap((peer) => [...peer.publications.values()]);
    return (
      publications.length === 2 && publications.every(({ directly }) => directly) &&
      got.length === 2 && got.every(({ directly }) => directly)
    );
  });

/** Notes when there is another picture of what is shown of a peer, whether its tab is the one in front or not. */
const watchFrames = (tab, name) =>
  tab.evaluate((wanted) => {
    globalThis.frames_ = [];
    const read = async () => {
      const peer = [...globalThis.strait.peers.values()].find((each) => each.name === wanted);
      const report = await peer?.find("camera")?.receiver?.getStats();
      const entry = [...(report?.values() ?? [])].find(({ type }) => type === "inbound-rtp");
      return entry && `${entry.ssrc} ${entry.framesDecoded}`;
    };
    let shown;
    const look = async () => {
      const now = await read().catch(() => undefined);
      if (now !== undefined && now !== shown) globalThis.frames_.push(Date.now());
      shown = now ?? shown;
      setTimeout(look, 20);
    };
    void look();
  }, name);

/** The longest time without another picture since then. */
const standstill = (tab, since) =>
  tab.evaluate((from) => {
    const times = [from, ...globalThis.frames_.filter((at) => at > from), Date.now()];
    return Math.max(...times.slice(1).map((at, index) => at - times[index]));
  }, since);

/** Where the direct connections of a tab's camera end. */
const ends = (tab) =>
  tab.evaluate(async () => {
    const camera = globalThis.strait.publications.find(({ kind }) => kind === "video");
    const report = [...(await camera.directly.getStats()).values()];
    const by = (id) => report.find((entry) => entry.id === id);
    const pair =
      by(report.find(({ type }) => type === "transport")?.selectedCandidatePairId) ??
      report.find(({ type, nominated }) => type === "candidate-pair" && nominated);
    const port = (id) => by(id)?.port;
    return { local: port(pair?.localCandidateId), remote: port(pair?.remoteCandidateId) };
  });

const relayed = (tab) =>
  tab.evaluate(async () => {
    const { packetsReceived, publications, subscriptions } =
      await globalThis.strait.relayStatistics();
    const came = publications
      .flatMap(({ encodings }) => encodings)
      .reduce((sum, { packets }) => sum + packets, 0);
    const forwarded = subscriptions.reduce((sum, { packets }) => sum + packets, 0);
    return { came, packetsReceived, forwarded };
  });

test("two browsers go directly, and the relay forwards nothing", { timeout: 120_000 }, async () => {
  const anna = await enter("anna", chromium);
  const bert = await enter("bert", firefox);
  for (const tab of [anna, bert]) {
    await untilWay(tab, "p2p");
    await untilWhole(tab);
    await tab.until("the page to say so", () =>
      document.querySelector("#state").textContent === "Connected directly",
    );
  }
  assert.ok((await growth(bert, "anna", "camera", "framesDecoded", 3_000)) > 10);
  assert.ok((await growth(anna, "bert", "camera", "framesDecoded", 3_000)) > 10);
  assert.ok((await growth(anna, "bert", "microphone", "totalAudioEnergy", 3_000)) > 0);
  for (const [tab, other] of [[anna, bert], [bert, anna]]) {
    const at = await ends(tab);
    assert.ok(at.remote > 0, JSON.stringify(at));
    assert.notEqual(at.remote, server.mediaPort, "it is not the relay");
    const before = await relayed(tab);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const now = await relayed(tab);
    assert.equal(now.forwarded, before.forwarded, "the relay forwards nothing");
    assert.ok(now.came - before.came < 5, "no media comes to it");
    const rates = (await sent(other)).map(({ bitrateBps }) => bitrateBps);
    assert.ok(rates.every((bps) => bps > 0), `what goes directly is measured: ${rates}`);
  }
  await anna.screenshot("direct");
});

test("a third one brings it back to the relay without a standstill, and leaves again", {
  timeout: 180_000,
}, async () => {
  const { anna, bert } = tabs;
  await watchFrames(anna, "bert");
  await watchFrames(bert, "anna");
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  let since = Date.now();
  const carl = await enter("carl", chromium);
  for (const tab of [anna, bert, carl]) await untilWay(tab, "udp-relay");
  await carl.until("two pictures", () => {
    const videos = [...document.querySelectorAll(".tile:not(.own).picture video")];
    return videos.length === 2 && videos.every((video) => video.readyState >= 2);
  });
  // What was begun directly lasts for three seconds at most.
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  for (const [name, tab] of Object.entries({ anna, bert })) {
    const ms = await standstill(tab, since);
    console.log(`# ${name}: at most ${ms} ms without another picture when a third one came`);
    assert.ok(ms <= 500 * SLACK, `${name} saw nothing new for ${ms} ms when a third one came`);
  }
  since = Date.now();
  await carl.click("#leave");
  for (const tab of [anna, bert]) {
    await untilWay(tab, "p2p");
    await untilWhole(tab);
  }
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  for (const [name, tab] of Object.entries({ anna, bert })) {
    const ms = await standstill(tab, since);
    console.log(`# ${name}: at most ${ms} ms without another picture when it left`);
    assert.ok(ms <= 500 * SLACK, `${name} saw nothing new for ${ms} ms when it left`);
  }
});

test("what is muted, ended and published anew while it goes directly", {
  timeout: 120_000,
}, async () => {
  const { anna, bert } = tabs;
  await anna.click("#microphone");
  await bert.until("anna shown as muted", () =>
    [...document.querySelectorAll(".tile.muted .who")].some((who) => who.textContent === "anna"),
  );
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  assert.ok((await growth(bert, "anna", "microphone", "totalAudioEnergy", 2_000)) < 1e-6);
  await anna.click("#microphone");
  await anna.click("#screen");
  await bert.until("anna's screen, directly", () => {
    const video = document.querySelector('.tile[data-source="screen"] video');
    const all = [...globalThis.strait.peers.values()].flatMap((p) => [...p.publications.values()]);
    const screen = all.find(({ source }) => source === "screen");
    return video !== null && video.videoWidth > 0 && screen?.directly !== undefined;
  });
  await anna.click("#screen");
  await bert.until("the screen gone", () =>
    document.querySelector('.tile[data-source="screen"]') === null,
  );
  await untilWhole(bert);
  assert.ok((await growth(bert, "anna", "camera", "framesDecoded", 3_000)) > 10);
  await Promise.all([anna.click("#leave"), bert.click("#leave")]);
});

test("a direct way that dies is left within three seconds", { timeout: 120_000 }, async () => {
  const crossing = new Crossing();
  try {
    const carry = (tab) => crossing.carry(tab);
    const dora = await enter("dora", chromium, "dies", carry);
    const emil = await enter("emil", firefox, "dies", carry);
    for (const tab of [dora, emil]) await untilWhole(tab);
    await watchFrames(dora, "emil");
    await watchFrames(emil, "dora");
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    crossing.cut();
    const since = Date.now();
    for (const tab of [dora, emil]) await untilWay(tab, "udp-relay", 10_000);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    for (const [name, tab] of Object.entries({ dora, emil })) {
      const ms = await standstill(tab, since);
      console.log(`# ${name}: at most ${ms} ms without another picture when the way died`);
      assert.ok(ms <= 3_000 * SLACK, `${name} saw nothing new for ${ms} ms`);
    }
    assert.ok((await growth(emil, "dora", "camera", "framesDecoded", 2_000)) > 5);
    assert.ok((await growth(dora, "emil", "microphone", "totalAudioEnergy", 2_000)) > 0);
  } finally {
    crossing.close();
  }
});

test("no page wrote an error", () => {
  for (const [name, tab] of Object.entries(tabs)) assert.deepEqual(tab.errors, [], name);
});
