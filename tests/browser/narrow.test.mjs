// A watcher whose line narrows to 300 kbit/s among three: the low layer comes instead of a standstill, for nobody else.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SLACK } from "./lib/bounds.mjs";
import { narrowLine } from "./lib/narrow.mjs";

/** docs/specification.md */
const FALLS_WITHIN_MS = 3_000 * SLACK;
const BACK_WITHIN_MS = 10_000 * SLACK;
const FREEZE_MS_MAX = 1_000 * SLACK;
const AUDIO_LOST_MAX = 0.01 * SLACK;

async function assertSeen(t, options) {
  const told = [];
  const seen = await narrowLine({ ...options, log: (line) => told.push(line) });
  t.diagnostic(JSON.stringify(seen));
  // What happened when is only of interest when it was not as it should be, or somebody asks.
  if (process.env.STRAIT_TIMELINE) for (const line of told) t.diagnostic(line);
  const what = `${JSON.stringify(seen)}\n${told.join("\n")}`;
  // The relay's own word, where a busy machine shows it late.
  const fellMs = Math.min(seen.fellMs ?? Infinity, seen.relayFellMs ?? Infinity);
  const backMs = Math.min(seen.backMs ?? Infinity, seen.relayBackMs ?? Infinity);
  assert.notEqual(seen.fellMs, undefined, `never fell: ${what}`);
  assert.notEqual(seen.backMs, undefined, `never came back: ${what}`);
  assert.ok(fellMs <= FALLS_WITHIN_MS, `fell after ${fellMs} ms: ${what}`);
  assert.ok(backMs <= BACK_WITHIN_MS, `came back after ${backMs} ms: ${what}`);
  assert.deepEqual(seen.othersHeights, [540], `the others keep theirs: ${what}`);
  assert.ok(seen.freezeMs <= FREEZE_MS_MAX, `stood still for ${seen.freezeMs} ms: ${what}`);
  assert.ok(seen.audioLostShare < AUDIO_LOST_MAX, `sound lost: ${what}`);
}

test("Chromium behind a line that narrows falls to the low layer and climbs back", {
  timeout: 180_000,
}, (t) => assertSeen(t, { narrow: "chromium" }));
