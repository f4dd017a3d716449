import assert from "node:assert/strict";
import { test } from "node:test";
import { Histories, type Point, Queues, SECONDS, line, point } from "../page/graphs.js";
import type { TileView } from "../page/tiles.js";
import type { QualityInfo, Statistics } from "../sdk/index.js";

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
    publications: [],
    subscriptions: [
      { ...stream, publication: video },
      { publication: audio, bitrateBps: 30, lossRatio: 0.2, frameHeight: undefined },
      { ...stream, publication: other, lossRatio: 1 },
    ],
  } as unknown as Statistics;
  const view = { own: false, video, audio } as unknown as TileView;
  const expected = { bitrate: 1030, loss: 0.2, delay: 12, queue: undefined, picture: 360 };
  assert.deepEqual(point(view, statistics, 7), expected);
  const nothing = { bitrate: undefined, loss: undefined, delay: 12, queue: 7, picture: undefined };
  assert.deepEqual(point({ ...view, own: true }, statistics, 7), nothing);
});

test("queues are those of the newest figures", () => {
  const queues = new Queues();
  const told = (publication: string, rid: string, queueDelaySeconds: number | null) =>
    ({ publications: [{ publication, rid, queueDelaySeconds }] }) as unknown as QualityInfo;
  queues.note(told("pub-1", "q", 0.03), 0);
  queues.note(told("pub-1", "f", 0.05), 1000);
  queues.note(told("pub-2", "", null), 1000);
  queues.note({ subscriptions: [] }, 1000);
  assert.equal(queues.of("pub-1", 2000), 50);
  queues.note(told("pub-1", "f", 0.01), 3000);
  assert.equal(queues.of("pub-1", 3000), 30);
  assert.equal(queues.of("pub-1", 5500), 10, "the other is stale");
  assert.equal(queues.of("pub-2", 5500), undefined);
  assert.equal(queues.of(undefined, 5500), undefined);
});
