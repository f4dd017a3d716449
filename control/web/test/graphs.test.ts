import assert from "node:assert/strict";
import { test } from "node:test";
import { Histories, type Point, SECONDS, line, point } from "../page/graphs.js";
import type { TileView } from "../page/tiles.js";
import type { Statistics } from "../sdk/index.js";

const second = (bitrate: number): Point => ({
  bitrate,
  loss: undefined,
  delay: undefined,
  queue: undefined,
  picture: undefined,
});

test("a line ends at the right and has gaps where nothing is known", () => {
  assert.equal(line([], 10), "");
  assert.equal(line([5], 10), "M59 8L59 8", "a dot");
  assert.equal(line([0, 10], 10), "M58 16L58 16L59 0");
  assert.equal(line([10, undefined, 5], 10), "M57 0L57 0M59 8L59 8");
  assert.equal(line([99], 10), "M59 0L59 0", "not beyond the scale");
});

test("a history is a minute long, and goes with its tile", () => {
  const histories = new Histories();
  for (let at = 0; at < SECONDS + 5; at += 1) histories.add(new Map([["a", second(at)]]));
  const kept = histories.of("a").map((each) => each.bitrate);
  assert.deepEqual([kept.length, kept[0], kept.at(-1)], [SECONDS, 5, SECONDS + 4]);
  histories.add(new Map([["b", second(1)]]));
  assert.equal(histories.of("a").length, 0);
  histories.clear();
  assert.equal(histories.of("b").length, 0);
});

test("a tile's second is that of its own streams", () => {
  const [video, audio, other] = [{}, {}, {}];
  const stream = { bitrateBps: 1000, lossRatio: 0.1, frameHeight: 360 };
  const statistics = {
    roundTripTimeMs: 12,
    publications: [{ ...stream, publication: video, queueDelayMs: 7 }],
    subscriptions: [
      { ...stream, publication: video },
      { publication: audio, bitrateBps: 30, lossRatio: 0.2, frameHeight: undefined },
      { ...stream, publication: other, lossRatio: 1 },
    ],
  } as unknown as Statistics;
  const view = { own: false, video, audio } as unknown as TileView;
  const expected = { bitrate: 1030, loss: 0.2, delay: 12, queue: undefined, picture: 360 };
  assert.deepEqual(point(view, statistics), expected);
  const sent = { bitrate: 1000, loss: 0.1, delay: 12, queue: 7, picture: 360 };
  assert.deepEqual(point({ ...view, own: true }, statistics), sent);
});
