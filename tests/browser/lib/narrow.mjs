// One camera in layers and those who watch it, one of them over a line that is narrowed and widened again.
import { SLACK, STRICT } from "./bounds.mjs";
import { Browser } from "./browsers.mjs";
import { publishCamera } from "./camera.mjs";
import { Lab } from "./lab.mjs";
import { join, untilOthers } from "./page.mjs";
import { Server, TOKEN } from "./server.mjs";
import { publishVoice, speak } from "./voice.mjs";

const WIDE = "rate=5M queue=200ms delay=20ms";
const NARROW = "rate=300k";
const NARROW_MS = 15_000;
/** At most; where no bound is measured it ends as soon as the high layer was back for a while. */
const WIDE_MS = 12_000 * SLACK;
/** All have the high layer for so long before it begins. */
const STEADY_MS = 3_000;
const HIGH = 540;
const LOW = 135;
/** Who watches, the first one over the line. */
const WATCHERS = ["narrow", "second", "third"];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Plays it once: `narrow` is the browser of the one behind the line, `codecs` those of the camera. Returns what was seen;
 * `log` is told how it goes.
 */
export async function narrowLine({ narrow = "chromium", codecs, log = () => {} } = {}) {
  const closing = [];
  try {
    const server = await Server.start();
    closing.push(() => server.stop());
    const lab = await Lab.before(server.mediaPort, WIDE);
    closing.push(() => lab.close());
    const chromium = await Browser.chromium();
    closing.push(() => chromium.close());
    const other = narrow === "chromium" ? chromium : await Browser[narrow]();
    if (other !== chromium) closing.push(() => other.close());

    const address = `${server.address}/?scope=narrow`;
    const sender = await chromium.tab();
    await join(sender, address, { name: "sender", token: TOKEN, devices: false });
    await publishVoice(sender);
    await speak(sender, true);
    await publishCamera(sender, { codecs });
    const tabs = [];
    for (const name of WATCHERS) {
      const first = name === WATCHERS[0];
      const tab = await (first ? other : chromium).tab();
      if (first) await lab.carry(tab);
      await join(tab, address, { name, token: TOKEN, devices: false });
      await untilOthers(tab, ["sender", ...WATCHERS].slice(0, tabs.length + 1));
      tabs.push(tab);
    }
    return await play(lab, tabs, log);
  } finally {
    for (const close of closing.reverse()) await close();
  }
}

async function play(lab, tabs, log) {
  for (const tab of tabs) await sample(tab);
  const [first, ...others] = tabs;
  const began = Date.now();
  try {
    for (const tab of tabs) await untilHigh(tab);
  } catch (error) {
    const watched = await first.evaluate(() => globalThis.watched);
    const lines = [...timeline(watched, began, Date.now())];
    throw new Error([error.message, ...lines].join("\n"), { cause: error });
  }
  const narrowed = await lab.set(NARROW);
  await pause(NARROW_MS);
  const widened = await lab.set("rate=5M");
  const back = untilHigh(first, WIDE_MS).catch(() => undefined);
  await Promise.all([back, pause(STRICT ? WIDE_MS : STEADY_MS)]);
  const ended = Date.now();
  const told = await lab.tell();
  const seen = await Promise.all(tabs.map((tab) => tab.evaluate(() => globalThis.watched)));
  for (const line of timeline(seen[0], narrowed, ended)) log(line);
  log(`line: ${JSON.stringify(told)}`);

  const [watched, ...rest] = seen;
  const since = (list, from, to, found) => {
    const at = list.find((each) => each.at >= from && each.at < to && found(each))?.at;
    return at === undefined ? undefined : at - from;
  };
  const { samples, relay } = watched;
  const audio = (at) => samples.findLast((each) => each.at <= at) ?? samples[0];
  const lost = audio(widened).audioLost - audio(narrowed).audioLost;
  const received = audio(widened).audioReceived - audio(narrowed).audioReceived;
  return {
    browser: first.kind,
    fellMs: since(samples, narrowed, widened, ({ height }) => height === LOW),
    relayFellMs: since(relay, narrowed, widened, ({ layer }) => layer === 0),
    backMs: since(samples, widened, ended, ({ height }) => height === HIGH),
    relayBackMs: since(relay, widened, ended, ({ layer }) => layer === 2),
    freezeMs: standstill(samples, narrowed, ended),
    othersFreezeMs: Math.max(...rest.map((each) => standstill(each.samples, narrowed, ended))),
    othersHeights: [
      ...new Set(rest.flatMap((each) => heights(each.samples, narrowed, ended))),
    ],
    heights: heights(samples, narrowed, ended),
    audioLostShare: lost / Math.max(1, lost + received),
    /** How long nothing was sampled: what is shorter cannot be told. */
    samplingMs: Math.max(...seen.map((each) => gap(each.samples, narrowed, ended))),
    others: others.length,
  };
}

function untilHigh(tab, timeoutMs = 60_000) {
  const steady = ([height, ms]) => {
    const { samples } = globalThis.watched;
    const lately = samples.filter(({ at }) => Date.now() - at < ms);
    const whole = samples[0]?.at < Date.now() - ms;
    return (whole && lately.every((s) => s.height === height)) || JSON.stringify(samples.at(-1));
  };
  const argument = [HIGH, STEADY_MS];
  return tab.until("the high layer for a while", steady, { timeoutMs, argument });
}

/** Begins to note, every 50 ms, what is shown, and every 200 ms what the relay says of it. */
function sample(tab) {
  return tab.evaluate(async () => {
    const { strait } = globalThis;
    const watched = (globalThis.watched = { samples: [], relay: [] });
    const find = (source) =>
      [...strait.peers.values()].map((peer) => peer.find(source)).find((found) => found);
    const read = async (source) => {
      const report = await find(source)?.receiver?.getStats();
      return [...(report?.values() ?? [])].find(({ type }) => type === "inbound-rtp");
    };
    const often = async (list, ms, take) => {
      for (;;) {
        const entry = await take().catch(() => undefined);
        if (entry) list.push({ at: Date.now(), ...entry });
        await new Promise((resolve) => setTimeout(resolve, ms));
      }
    };
    void often(watched.samples, 50, async () => {
      const [video, audio] = await Promise.all([read("camera"), read("microphone")]);
      if (!video) return undefined;
      const { frameHeight: height, framesDecoded: frames, bytesReceived: bytes } = video;
      const { packetsLost: lost, totalFreezesDuration: frozen } = video;
      const { nackCount: nacks, pliCount: plis, keyFramesDecoded: keyFrames } = video;
      const { retransmittedPacketsReceived: again = 0, packetsReceived: packets } = video;
      const { packetsLost: audioLost = 0, packetsReceived: audioReceived = 0 } = audio ?? {};
      const asked = { nacks, plis, keyFrames, again, packets };
      return { height, frames, bytes, lost, frozen, audioLost, audioReceived, ...asked };
    });
    void often(watched.relay, 200, async () => {
      const { budgetBps, roundTripSeconds, subscriptions } = await strait.relayStatistics();
      // Sound has no layers to permit.
      const camera = subscriptions.find(({ layerWanted }) => typeof layerWanted === "number");
      const { layer, heldBack, layerPermitted, retransmissions } = camera ?? {};
      return { budgetBps, roundTripSeconds, layer, layerPermitted, heldBack, retransmissions };
    });
  });
}

const within = (samples, from, to) => samples.filter(({ at }) => at >= from && at < to);

/** Heights in their order. */
function heights(samples, from, to) {
  const all = within(samples, from, to).map(({ height }) => height);
  return all.filter((height, index) => height !== all[index - 1]);
}

/** The longest time without another picture. */
function standstill(samples, from, to) {
  let [frames, movedAt, longest] = [undefined, from, 0];
  for (const { at, frames: now } of within(samples, from, to)) {
    longest = Math.max(longest, at - movedAt);
    if (now !== frames) [frames, movedAt] = [now, at];
  }
  return longest;
}

function gap(samples, from, to) {
  const times = within(samples, from, to).map(({ at }) => at);
  return Math.max(...times.slice(1).map((at, index) => at - times[index]));
}

/** What was seen in each half of a second, in words. */
function* timeline({ samples, relay }, from, to) {
  yield "s: height, frames, kbit/s, packets, lost, by RTX, key frames, NACK, PLI, audio lost | relay: budget, layer";
  for (let at = from - 1_000; at < to; at += 500) {
    const [first, last] = [samples.findLast((s) => s.at <= at), samples.findLast((s) => s.at < at + 500)];
    const told = relay.findLast((each) => each.at < at + 500) ?? {};
    if (!first || !last) continue;
    const kbps = ((last.bytes - first.bytes) * 8) / (last.at - first.at);
    const grown = (figure) => last[figure] - first[figure];
    const figures = ["packets", "lost", "again", "keyFrames", "nacks", "plis"].map(grown);
    const shown = [last.height, grown("frames"), Math.round(kbps), ...figures];
    const budget = Math.round((told.budgetBps ?? NaN) / 1_000);
    yield `${((at - from) / 1_000).toFixed(1)}: ${shown.join(", ")}, ${grown("audioLost")} | ` +
      `${budget}, ${told.layer} of ${told.layerPermitted} (${told.heldBack}), ${told.roundTripSeconds} s, ` +
      `RTX ${told.retransmissions}`;
  }
}
