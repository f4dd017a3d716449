import * as limits from "./limits.js";

/** How large, how often and with how much a picture is sent at most. */
export interface VideoQuality {
  width: number;
  height: number;
  frameRate: number;
  bitrateBps: number;
}

export type QualityName = "minimal" | "low" | "medium" | "high";

interface Step extends VideoQuality {
  /** What the uplink must carry for pictures alone for it to be worthwhile. */
  fromBps: number;
}

/** Lowest first. Each is better to look at than the one before once the line carries `fromBps`. */
const STEPS: readonly (Step & { name: QualityName })[] = [
  { name: "minimal", width: 320, height: 240, frameRate: 10, bitrateBps: 64_000, fromBps: 0 },
  { name: "low", width: 320, height: 240, frameRate: 15, bitrateBps: 150_000, fromBps: 90_000 },
  { name: "medium", width: 640, height: 480, frameRate: 20, bitrateBps: 500_000, fromBps: 250_000 },
  { name: "high", width: 1280, height: 720, frameRate: 24, bitrateBps: 1_500_000, fromBps: 650_000 },
];

/** The named qualities, from 64 kbit/s to 1.5 Mbit/s. */
export const QUALITIES: Readonly<Record<QualityName, VideoQuality>> = Object.fromEntries(
  STEPS.map(({ name, width, height, frameRate, bitrateBps }) => [
    name,
    { width, height, frameRate, bitrateBps },
  ]),
) as Record<QualityName, VideoQuality>;

/** What is sent now, as `RTCRtpEncodingParameters` say it. */
export interface SentQuality {
  width: number;
  frameRate: number;
  bitrateBps: number;
}

/** What the browser says of an uplink. */
export interface UplinkState {
  /** What it is believed to carry for this picture. */
  estimateBps: number;
  /** The processor is too slow for what is sent. */
  slow: boolean;
}

/**
 * Chooses what to send of a picture: down after a moment, up after a while. Rather fewer and
 * smaller pictures than ones that nobody can make out.
 */
export class Ladder {
  private readonly steps: readonly Step[];
  private index: number;
  private worseSince: number | undefined;
  private betterSince: number | undefined;

  constructor(best: QualityName | VideoQuality) {
    const bound = typeof best === "string" ? QUALITIES[best] : best;
    const below = STEPS.filter(
      (step) => step.bitrateBps < bound.bitrateBps && step.width <= bound.width,
    ).map((step) => ({ ...step, frameRate: Math.min(step.frameRate, bound.frameRate) }));
    const known = STEPS.find((step) => step.bitrateBps === bound.bitrateBps);
    const fromBps = below.length === 0 ? 0 : (known?.fromBps ?? bound.bitrateBps / 2);
    this.steps = [...below, { ...bound, fromBps }];
    this.index = this.steps.length - 1;
  }

  /** Which step it is on, 0 is the lowest. */
  get level(): number {
    return this.index;
  }

  /** What to send. Its bit rate has room for the estimate to grow up to the next step. */
  get current(): SentQuality {
    const { width, frameRate } = this.step(this.index);
    const above = this.step(Math.min(this.index + 1, this.steps.length - 1));
    return { width, frameRate, bitrateBps: above.bitrateBps };
  }

  /** Takes note of how the uplink is now. Whether something else is to be sent. */
  observe({ estimateBps, slow }: UplinkState, now: number): boolean {
    const { fromBps } = this.step(this.index);
    const worse = this.index > 0 && (estimateBps < fromBps || slow);
    const above = this.index + 1 < this.steps.length ? this.step(this.index + 1) : undefined;
    const better =
      above !== undefined && !slow && estimateBps >= above.fromBps * limits.QUALITY_UP_RATIO;
    this.worseSince = worse ? (this.worseSince ?? now) : undefined;
    this.betterSince = better ? (this.betterSince ?? now) : undefined;
    const patience = slow ? limits.QUALITY_SLOW_MS : limits.QUALITY_DOWN_MS;
    if (this.worseSince !== undefined && now - this.worseSince >= patience) {
      // Straight to what fits: each step in between would keep the queue full.
      let index = this.index - 1;
      while (index > 0 && !slow && estimateBps < this.step(index).fromBps) index -= 1;
      return this.go(index);
    }
    if (this.betterSince !== undefined && now - this.betterSince >= limits.QUALITY_UP_MS) {
      return this.go(this.index + 1);
    }
    return false;
  }

  private go(index: number): boolean {
    this.index = index;
    this.worseSince = this.betterSince = undefined;
    return true;
  }

  private step(index: number): Step {
    const step = this.steps[index] ?? this.steps[0];
    if (!step) throw new RangeError("a ladder has steps");
    return step;
  }
}
