import { type Point, type Stream } from "../api.js";

/** How streams fared in a minute: what went worst, and bitrates together. */
export interface Minute {
  loss: number | null;
  queue: number | null;
  bitrate: number;
  roundTrip: number | null;
}

/** By the beginning of each minute. */
export function minutesOf(streams: readonly Stream[]): Map<number, Minute> {
  const found = new Map<number, Minute>();
  for (const point of streams.flatMap(({ points }) => points)) {
    const before = found.get(point.at);
    found.set(point.at, {
      loss: worse(before?.loss, point.lossFraction),
      queue: worse(before?.queue, point.queueDelaySeconds),
      bitrate: (before?.bitrate ?? 0) + bitrate(point),
      roundTrip: worse(before?.roundTrip, point.roundTripSeconds),
    });
  }
  return found;
}

/** Of a minute that was measured in part, over that part. */
function bitrate({ bytes, seconds }: Point): number {
  return seconds > 0 ? (bytes * 8) / seconds : 0;
}

function worse(a: number | null | undefined, b: number | null): number | null {
  return a === null || a === undefined ? b : b === null ? a : Math.max(a, b);
}
