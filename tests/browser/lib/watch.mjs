// Whether media really flows: figures and pictures over several windows.
import assert from "node:assert/strict";
import { pictureHash, received } from "./page.mjs";

/** A window in which each stream must have moved. */
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
    await new Promise((resolve) => setTimeout(resolve, WINDOW_MS));
    const now = await snapshot(tabs);
    for (const [name, figures] of Object.entries(now)) {
      for (const [key, value] of Object.entries(figures)) {
        const earlier = before[name][key];
        const what = `window ${number}, ${name} ← ${key}`;
        if (value.kind === "video") {
          const frames = value.framesDecoded - earlier.framesDecoded;
          assert.ok(frames >= FRAMES_PER_WINDOW_MIN, `${what}: ${frames} frames decoded`);
        } else {
          const energy = value.totalAudioEnergy - earlier.totalAudioEnergy;
          assert.ok(energy > 0, `${what}: no sound`);
        }
      }
    }
    before = now;
  }
}

/** Per tab: the picture in each of the others' tiles changes within a second. */
export async function assertPicturesMove(tabs, count) {
  for (const { name, tab } of tabs) {
    for (let index = 0; index < count; index += 1) {
      const hashes = new Set();
      for (let sample = 0; sample < 6 && hashes.size < 2; sample += 1) {
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
