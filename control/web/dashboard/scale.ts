import { path } from "../page/lines.js";

/** Units of a plot's picture. */
export const WIDTH = 1000;
export const HEIGHT = 100;

/** The end of a scale, whose half is a round figure too; at least `least`. */
export function niceMost(values: readonly (number | null)[], least: number): number {
  const most = Math.max(least, ...known(values));
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  // Of 0.3 = 3 × 0.1 floating point makes 2.9999….
  const steps = most / power - 1e-9;
  return power * (STEPS.find((each) => steps <= each) ?? 10);
}

export function known(values: readonly (number | null)[]): number[] {
  return values.filter((value) => value !== null);
}

/** Where each time is from the left; one alone is at the left. */
export function across(times: readonly number[]): number[] {
  const [first = 0, last = 0] = [times[0], times.at(-1)];
  return times.map((at) => (last > first ? ((at - first) / (last - first)) * WIDTH : 0));
}

/** The line of a series: broken where nothing is known, and where more than a step is missing. */
export function linePath(
  times: readonly number[],
  values: readonly (number | null)[],
  most: number,
  stepMs: number,
): string {
  const xs = across(times);
  const points: ([number, number] | undefined)[] = [];
  times.forEach((at, index) => {
    const before = times[index - 1];
    if (before !== undefined && at - before > stepMs * 1.5) points.push(undefined);
    const value = values[index] ?? null;
    const up = (Math.min(value ?? 0, most) / most) * HEIGHT;
    points.push(value === null ? undefined : [xs[index] ?? 0, HEIGHT - up]);
  });
  return path(points);
}

/** Beginnings of all days or months (UTC) or hours from `from` to before `to`. */
export function periods(by: string, from: number, to: number): number[] {
  const found: number[] = [];
  for (let at = begin(by, from); at < to && found.length < PERIODS_MAX; at = after(by, at)) {
    found.push(at);
  }
  return found;
}

/** The beginning of the period after that which begins at `at`. */
export function after(by: string, at: number): number {
  if (by !== "month") return at + (by === "day" ? 86_400_000 : 3_600_000);
  const date = new Date(at);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1);
}

function begin(by: string, at: number): number {
  const date = new Date(at);
  if (by === "month") return Date.UTC(date.getUTCFullYear(), date.getUTCMonth());
  const unit = by === "day" ? 86_400_000 : 3_600_000;
  return Math.floor(at / unit) * unit;
}

const STEPS = [1, 1.5, 2, 3, 4, 6, 8, 10];

/** More than the API answers at once: 31 days by hour, 400 days, ten years of months. */
const PERIODS_MAX = 800;
