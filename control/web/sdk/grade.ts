/** How good a stream, or a line, is for a call. */
export type Grade = "fine" | "average" | "bad";

/** What is graded; what is not known does not count. */
export interface GradedFigures {
  /** 0 to 1. */
  lossRatio?: number | undefined;
  roundTripTimeMs?: number | undefined;
  jitterMs?: number | undefined;
  queueDelayMs?: number | undefined;
  /** Of a camera that is on: other pictures may well stand still. */
  framesPerSecond?: number | undefined;
}

/**
 * At most this is fine, and at most that average. Loss: what is repaired before anybody sees or
 * hears it, and what sound survives. Round trip: with as much again to the other peer, the one-way
 * delays of ITU-T G.114 (150 ms: nobody minds; 400 ms: people interrupt one another).
 */
const MOST = {
  lossRatio: [0.02, 0.1],
  roundTripTimeMs: [200, 400],
  jitterMs: [30, 60],
  queueDelayMs: [100, 300],
} as const;

/** At least this is fine, and at least that average: a movement, and a slide show. */
const FRAMES_PER_SECOND = [8, 4] as const;

/** The grade of the worst figure; undefined when none is known. */
export function gradeOf(figures: GradedFigures): Grade | undefined {
  const grades: Grade[] = [];
  for (const name of ["lossRatio", "roundTripTimeMs", "jitterMs", "queueDelayMs"] as const) {
    const value = figures[name];
    const [fine, average] = MOST[name];
    if (value !== undefined) grades.push(within(value <= fine, value <= average));
  }
  const { framesPerSecond: rate } = figures;
  const [fine, average] = FRAMES_PER_SECOND;
  if (rate !== undefined) grades.push(within(rate >= fine, rate >= average));
  return worst(grades);
}

/** The worst of them; undefined when there is none. */
export function worst(grades: readonly (Grade | undefined)[]): Grade | undefined {
  return (["bad", "average", "fine"] as const).find((grade) => grades.includes(grade));
}

function within(fine: boolean, average: boolean): Grade {
  return fine ? "fine" : average ? "average" : "bad";
}
