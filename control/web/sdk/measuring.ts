import * as limits from "./limits.js";
import type { MediaSession } from "./media.js";
import { NodeFigures } from "./nodefigures.js";
import { type Statistics, StatisticsReader } from "./statistics.js";
import type { Timers } from "./timers.js";

/** Measures a call: when asked, and by itself. Each of the two has its own windows. */
export class Measuring {
  /** What the node tells of this client's streams. */
  readonly node = new NodeFigures();
  private readonly asked = new StatisticsReader();
  private told = new StatisticsReader();
  private intervalMs: number | undefined;
  private cancel: () => void = () => {};

  constructor(
    private readonly timers: Timers,
    private readonly media: () => { session: MediaSession; offersBefore: number } | undefined,
    private readonly tell: (statistics: Statistics) => void,
  ) {}

  /** Whether it measures by itself. */
  get isWatching(): boolean {
    return this.intervalMs !== undefined;
  }

  /** Undefined while there is no media session. */
  read(): Promise<Statistics> | undefined {
    return this.readBy(this.asked);
  }

  watch(intervalMs: number): void {
    this.stop();
    this.told = new StatisticsReader();
    this.intervalMs = Math.max(limits.STATISTICS_INTERVAL_MS_MIN, intervalMs);
    this.arm(this.intervalMs);
  }

  stop(): void {
    this.intervalMs = undefined;
    this.cancel();
  }

  private arm(intervalMs: number): void {
    this.cancel();
    this.cancel = this.timers.after(intervalMs, () => void this.turn(intervalMs));
  }

  private async turn(intervalMs: number): Promise<void> {
    try {
      const statistics = await this.readBy(this.told);
      if (statistics && this.intervalMs === intervalMs) this.tell(statistics);
    } catch {
      // A connection that was closed meanwhile has nothing to say; the next one will.
    }
    if (this.intervalMs === intervalMs) this.arm(intervalMs);
  }

  private readBy(reader: StatisticsReader): Promise<Statistics> | undefined {
    const media = this.media();
    if (!media) return undefined;
    return reader.read(media.session, media.offersBefore, this.node, this.timers.now());
  }
}
