import * as limits from "./limits.js";
import type { LocalPublication } from "./publication.js";
import { Ladder, type SentQuality } from "./quality.js";
import type { Timers } from "./timers.js";

/** What is sent, as the media session knows it. */
interface Sending {
  readonly transceiver: RTCRtpTransceiver;
  readonly publication: LocalPublication | undefined;
}

/** The fields of a report that are looked at. */
interface Entry {
  type: string;
  id: string;
  kind?: string;
  mid?: string;
  timestamp: number;
  state?: string;
  nominated?: boolean;
  bytesSent?: number;
  availableOutgoingBitrate?: number;
  qualityLimitationReason?: string;
}

interface Adapted {
  readonly publication: LocalPublication;
  readonly ladder: Ladder;
  busy: boolean;
}

/**
 * Makes the pictures that this client sends smaller and rarer when its uplink is narrow, and
 * larger again. Sound is left alone: what it needs is taken off first.
 */
export class Adaptation {
  private readonly adapted = new Map<RTCRtpTransceiver, Adapted>();
  private readonly sent = new Map<string, { bytes: number; at: number }>();
  private cancel: () => void = () => {};
  private running = false;

  constructor(
    private readonly connection: RTCPeerConnection,
    private readonly uplinks: readonly Sending[],
    private readonly timers: Timers,
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
      const report = await this.connection.getStats();
      const entries: Entry[] = [];
      report.forEach((entry: Entry) => entries.push(entry));
      if (this.running) this.adapt(entries);
    } catch {
      // A connection that was closed meanwhile has nothing to say.
    }
    const again = this.running && this.uplinks.some(({ publication }) => publication?.adapts);
    this.running = false;
    if (again) this.start();
  }

  private adapt(entries: readonly Entry[]): void {
    const pictures: Adapted[] = [];
    for (const { transceiver, publication } of this.uplinks) {
      const quality = publication?.options.quality;
      if (!publication?.adapts || quality === undefined) {
        this.adapted.delete(transceiver);
        continue;
      }
      let adapted = this.adapted.get(transceiver);
      if (adapted?.publication !== publication) {
        adapted = { publication, ladder: new Ladder(quality), busy: false };
        this.adapted.set(transceiver, adapted);
      }
      // Who is muted sends next to nothing, and nothing is learned from it.
      if (publication.muted) continue;
      pictures.push(adapted);
    }
    const soundBps = this.soundBps(entries);
    const pair = entries.find(
      ({ type, availableOutgoingBitrate, nominated, state }) =>
        type === "candidate-pair" &&
        availableOutgoingBitrate !== undefined &&
        (nominated === true || state === "succeeded"),
    );
    // Firefox does not say: there, the browser alone adapts within the bounds.
    if (pair?.availableOutgoingBitrate === undefined || pictures.length === 0) return;
    const estimateBps = Math.max(0, pair.availableOutgoingBitrate - soundBps) / pictures.length;
    for (const [transceiver, adapted] of this.adapted) {
      if (!pictures.includes(adapted)) continue;
      const slow = entries.some(
        ({ type, mid, qualityLimitationReason }) =>
          type === "outbound-rtp" && mid === transceiver.mid && qualityLimitationReason === "cpu",
      );
      if (adapted.ladder.observe({ estimateBps, slow }, this.timers.now())) {
        void apply(transceiver.sender, adapted);
      }
    }
  }

  /** What sound takes, by what was sent since the last look. */
  private soundBps(entries: readonly Entry[]): number {
    let total = 0;
    for (const { type, kind, id, bytesSent = 0, timestamp } of entries) {
      if (type !== "outbound-rtp" || kind !== "audio") continue;
      const before = this.sent.get(id);
      this.sent.set(id, { bytes: bytesSent, at: timestamp });
      if (before && timestamp > before.at) {
        total += (8_000 * Math.max(0, bytesSent - before.bytes)) / (timestamp - before.at);
      }
    }
    return total;
  }
}

async function apply(sender: RTCRtpSender, adapted: Adapted): Promise<void> {
  if (adapted.busy) return;
  adapted.busy = true;
  let applied: number | undefined;
  try {
    // What is decided meanwhile is applied after it: a sender takes one change at a time.
    while (applied !== adapted.ladder.level) {
      applied = adapted.ladder.level;
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings) {
        Object.assign(encoding, encodingOf(adapted.ladder.current, adapted.publication));
      }
      await sender.setParameters(parameters);
    }
  } catch {
    // A browser that cannot, or a sender that was stopped: all goes on as before.
  } finally {
    adapted.busy = false;
  }
}

/** What an encoding's parameters are for this. */
export function encodingOf(
  quality: SentQuality,
  { track, options }: LocalPublication,
): Pick<RTCRtpEncodingParameters, "maxBitrate" | "maxFramerate" | "scaleResolutionDownBy"> {
  const width = track.getSettings?.().width ?? quality.width;
  return {
    maxBitrate: Math.min(quality.bitrateBps, options.maxBitrateBps ?? Number.POSITIVE_INFINITY),
    maxFramerate: quality.frameRate,
    scaleResolutionDownBy: Math.max(1, width / quality.width),
  };
}
