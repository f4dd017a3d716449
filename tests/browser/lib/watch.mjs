// Whether media really flows: figures and pictures over several windows.
import assert from "node:assert/strict";
import { SLACK } from "./bounds.mjs";
import { pictureHash, received } from "./page.mjs";

/** A window in which each stream must have moved; with other work beside it, it may take a few. */
export const WINDOW_MS = 5_000;
/** The sources have 15 frames/s; of four browsers on two cores with other work each may get to a few of them. */
const FRAMES_PER_WINDOW_MIN = 10;

/**
 * For `windows` windows: every video decodes frames, shows another picture and every
 * audio carries sound. `from` of a tab are the names of the others that send both.
 */
export async function assertFlowing(tabs, windows) {
  let before = await snapshot(tabs);
  for (let number = 1; number <= windows; number += 1) {
    const began = Date.now();
    let now, lack;
    await new Promise((resolve) => setTimeout(resolve, WINDOW_MS));
    for (;;) {
      now = await snapshot(tabs);
      lack = lacking(before, now);
      if (!lack) break;
      const ms = Date.now() - began;
      assert.ok(ms < WINDOW_MS * SLACK, `window ${number}, ${ms} ms: ${lack}`);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    before = now;
  }
}

/** What did not move enough, with the figure. */
function lacking(before, now) {
  for (const [name, figures] of Object.entries(now)) {
    for (const [key, value] of Object.entries(figures)) {
      const earlier = before[name][key];
      if (value.kind === "video") {
        const frames = value.framesDecoded - earlier.framesDecoded;
        if (frames < FRAMES_PER_WINDOW_MIN) return `${name} ← ${key}: ${frames} frames decoded`;
      } else {
        const energy = value.totalAudioEnergy - earlier.totalAudioEnergy;
        if (!(energy > 0)) return `${name} ← ${key}: no sound (${energy})`;
      }
    }
  }
  return undefined;
}

const STILL_MS = 1_200;

/** Per tab: the picture in each of the others' tiles changes within a second; with other work beside it, a few. */
export async function assertPicturesMove(tabs, count) {
  for (const { name, tab } of tabs) {
    for (let index = 0; index < count; index += 1) {
      const hashes = new Set();
      const end = Date.now() + STILL_MS * SLACK;
      while (hashes.size < 2 && Date.now() < end) {
        hashes.add(await pictureHash(tab, index));
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
      assert.ok(!hashes.has(0), `${name}: tile ${index} has no picture`);
      assert.ok(hashes.size > 1, `${name}: the picture of tile ${index} stands still`);
    }
  }
}

async function snapshot(tabs) {
  const entries = await Promise.all(
    tabs.map(async ({ name, tab, from }) => {
      const figures = {};
      for (const each of await received(tab)) {
        if (each.source === "camera" || each.source === "microphone") {
          figures[`${each.peer} ${each.kind}`] = each;
        }
      }
      const wanted = from.flatMap((other) => [`${other} audio`, `${other} video`]).sort();
      assert.deepEqual(Object.keys(figures).sort(), wanted, `${name} receives`);
      return [name, figures];
    }),
  );
  return Object.fromEntries(entries);
}

/** Waits until one figure of one publication grew by more than `least`: with other work beside it media is slow. */
export async function untilGrown(tab, [peer, source, figure], least, timeoutMs) {
  const began = Date.now();
  let grew = 0;
  while (grew <= least) {
    const ms = Date.now() - began;
    const what = `${tab.kind} ← ${peer}'s ${source}: ${figure} grew by ${grew} in ${ms} ms, not by more than ${least}`;
    assert.ok(ms < timeoutMs, what);
    grew += await growth(tab, peer, source, figure, 500);
  }
}

/** Growth of one figure of one publication within `ms`. */
export async function growth(tab, peer, source, figure, ms) {
  const read = async () => {
    const found = (await received(tab)).find(
      (each) => each.peer === peer && each.source === source,
    );
    assert.ok(found, `${peer}'s ${source} is not received`);
    return found[figure] ?? 0;
  };
  const before = await read();
  await new Promise((resolve) => setTimeout(resolve, ms));
  return (await read()) - before;
}
