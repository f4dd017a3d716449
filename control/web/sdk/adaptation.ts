import * as limits from "./limits.js";
import type { Uplink } from "./media.js";
import { type Entries, type Entry, entriesOf, number, selectedPair, sum } from "./report.js";
import type { Timers } from "./timers.js";

/**
 * Makes the pictures that this client sends smaller and rarer when its uplink is narrow, and
 * larger again. Sound is left alone: what it needs is taken off first.
 */
export class Adaptation {
  private readonly sent = new Map<string, { bytes: number; at: number }>();
  private cancel: () => void = () => {};
  private running = false;

  constructor(
    private readonly connection: RTCPeerConnection,
    private readonly uplinks: readonly Uplink[],
    private readonly timers: Timers,
    private readonly uplinkMaxBps: () => number,
  ) {}

  /** A publication with a quality was added. */
  start(): void {
    if (this.running) return;
    this.running = true;
    this.cancel = this.timers.after(limits.QUALITY_INTERVAL_MS, () => void this.look());
  }

  close(): void {
    this.running = false;
    this.cancel();
  }

  private async look(): Promise<void> {
    try {
      const entries = await entriesOf(this.connection);
      if (this.running) this.adapt(entries);
    } catch {
      // A connection that was closed meanwhile has nothing to say.
    }
    const again = this.running && this.uplinks.some(({ ladder }) => ladder);
    this.running = false;
    if (again) this.start();
  }

  private adapt(entries: Entries): void {
    const all = [...entries.values()];
    // Who is muted, or sends directly, sends next to nothing: nothing is learned from it.
    const pictures = this.uplinks.filter(
      ({ ladder, publication }) => ladder && !publication?.muted && !publication?.directly,
    );
    const soundBps = this.soundBps(all);
    // Firefox does not say: there, but for a cap, the browser alone adapts within the bounds.
    const availableBps = number(selectedPair(entries), "availableOutgoingBitrate");
    const capBps = this.uplinkMaxBps() || undefined;
    const caps = [availableBps, capBps].filter((bps) => bps !== undefined);
    if (caps.length === 0 || pictures.length === 0) return;
    const estimateBps = Math.max(0, Math.min(...caps) - soundBps) / pictures.length;
    for (const { transceiver, ladder, changer } of pictures) {
      const slow = all.some(
        ({ type, mid, qualityLimitationReason }) =>
          type === "outbound-rtp" && mid === transceiver.mid && qualityLimitationReason === "cpu",
      );
      if (!ladder?.observe({ estimateBps, slow }, this.timers.now())) continue;
      // A browser that cannot, or a sender that was stopped: all goes on as before.
      changer.apply().catch(() => {});
    }
  }

  /** What sound takes, by what was sent since the last look. */
  private soundBps(entries: readonly Entry[]): number {
    const rates = entries
      .filter(({ type, kind }) => type === "outbound-rtp" && kind === "audio")
      .map((entry) => {
        const { id, timestamp: at } = entry;
        const before = this.sent.get(id);
        const bytes = number(entry, "bytesSent") ?? 0;
        this.sent.set(id, { bytes, at });
        if (!before || at <= before.at) return 0;
        return (8_000 * Math.max(0, bytes - before.bytes)) / (at - before.at);
      });
    return sum(rates);
  }
}
