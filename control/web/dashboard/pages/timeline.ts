import { type Point, type Stream } from "../api.js";

/** How streams fared in a step of time: what went worst, and bitrates together. */
export interface Step {
  loss: number | null;
  queue: number | null;
  bitrate: number;
  roundTrip: number | null;
}

/** By the beginning of each step. */
export function stepsOf(streams: readonly Stream[]): Map<number, Step> {
  const found = new Map<number, Step>();
  for (const point of streams.flatMap(({ points }) => points)) {
    const before = found.get(point.at);
    const worst = point.worst ?? point;
    found.set(point.at, {
      loss: worse(before?.loss, worst.lossFraction),
      queue: worse(before?.queue, worst.queueDelaySeconds),
      bitrate: (before?.bitrate ?? 0) + bitrate(point),
      roundTrip: worse(before?.roundTrip, worst.roundTripSeconds),
    });
  }
  return found;
}

/** Of a step that was measured in part, over that part. */
function bitrate({ bytes, seconds }: Point): number {
  return seconds > 0 ? (bytes * 8) / seconds : 0;
}

function worse(a: number | null | undefined, b: number | null): number | null {
  return a === null || a === undefined ? b : b === null ? a : Math.max(a, b);
}
