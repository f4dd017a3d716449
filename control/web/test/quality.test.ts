import assert from "node:assert/strict";
import { test } from "node:test";
import { Ladder, QUALITIES } from "../sdk/quality.js";

/** Observes the same for so many seconds; the levels that it went through. */
function observe(ladder: Ladder, from: number, seconds: number, estimateBps: number, slow = false) {
  const levels: number[] = [];
  for (let second = 0; second < seconds; second += 1) {
    if (ladder.observe({ estimateBps, slow }, (from + second) * 1_000)) levels.push(ladder.level);
  }
  return levels;
}

test("from 64 kbit/s QVGA 10 frames/s to 1.5 Mbit/s 720p 24 frames/s", () => {
  assert.deepEqual(QUALITIES.minimal, { width: 320, height: 240, frameRate: 10, bitrateBps: 64_000 });
  assert.deepEqual(QUALITIES.high, {
    width: 1280, height: 720, frameRate: 24, bitrateBps: 1_500_000,
  });
});

test("a narrow uplink gets at once what fits, and what fits stays", () => {
  const ladder = new Ladder("high");
  assert.deepEqual(ladder.current, { width: 1280, frameRate: 24, bitrateBps: 1_500_000 });
  assert.deepEqual(observe(ladder, 0, 60, 50_000), [0], "in one go");
  assert.deepEqual(ladder.current, { width: 320, frameRate: 10, bitrateBps: 150_000 });
  assert.deepEqual(observe(ladder, 60, 60, 95_000), [], "no room to spare");
});

test("an uplink that widens is followed one step after the other", () => {
  const ladder = new Ladder("high");
  observe(ladder, 0, 10, 50_000);
  const levels = observe(ladder, 10, 30, 2_000_000);
  assert.deepEqual(levels, [1, 2, 3]);
  assert.deepEqual(observe(ladder, 40, 30, 640_000), [2], "and down again");
  assert.deepEqual(observe(ladder, 70, 30, 700_000), [], "between the two it stays");
});

test("a moment is no reason", () => {
  const ladder = new Ladder("high");
  for (let second = 0; second < 30; second += 2) {
    assert.deepEqual(observe(ladder, second, 1, 50_000), []);
    assert.deepEqual(observe(ladder, second + 1, 1, 2_000_000), []);
  }
});

test("a slow processor gets less, and no more while it is slow", () => {
  const ladder = new Ladder("high");
  assert.deepEqual(observe(ladder, 0, 8, 5_000_000, true), [2]);
  assert.deepEqual(observe(ladder, 8, 3, 5_000_000, true), []);
  assert.deepEqual(observe(ladder, 11, 8, 5_000_000), [3]);
});

test("nothing better than what was asked for is sent", () => {
  const medium = new Ladder("medium");
  assert.deepEqual(observe(medium, 0, 30, 9_000_000), []);
  assert.equal(medium.current.bitrateBps, 500_000);
  const minimal = new Ladder("minimal");
  assert.deepEqual(observe(minimal, 0, 30, 1_000), [], "there is nothing less");
  assert.equal(minimal.current.bitrateBps, 64_000);
  const own = new Ladder({ width: 640, height: 360, frameRate: 12, bitrateBps: 300_000 });
  assert.deepEqual(own.current, { width: 640, frameRate: 12, bitrateBps: 300_000 });
  assert.deepEqual(observe(own, 0, 30, 50_000), [0]);
  assert.deepEqual(observe(own, 30, 30, 500_000), [1, 2]);
  assert.equal(own.current.frameRate, 12);
});
