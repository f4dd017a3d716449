import { FLOW_LOOKS, PULSE_LOOK_MS, SILENT_LOOKS } from "./limits.js";
import type { Timers } from "./timers.js";

/** What is looked at of a candidate pair. */
interface Entry {
  type: string;
  bytesReceived?: number;
  responsesReceived?: number;
  /** Seconds. */
  currentRoundTripTime?: number;
}

/** The part of a peer connection that is looked at. */
export interface Pulsing {
  readonly connectionState: string;
  getStats(): Promise<{ forEach(each: (entry: Entry) => void): void }>;
}

/** What a silent path was like. */
export interface Silence {
  /** Media came all the time; otherwise nobody may have sent any. */
  brokeOff: boolean;
  /** As it was measured last; 0 where it was not. */
  roundTripMs: number;
}

/** Tells when a media path that was up brings nothing any more, nor answers checks: the node may be dead. */
export class Pulse {
  private cancel: () => void = () => {};
  private before:
    | { connection: Pulsing; bytes: number; responses: number; silent: number; flow: number }
    | undefined;

  constructor(
    private readonly timers: Timers,
    private readonly connection: () => Pulsing | undefined,
    private readonly onSilence: (silence: Silence) => void,
    private readonly onLife: () => void,
  ) {}

  start(): void {
    this.cancel = this.timers.after(PULSE_LOOK_MS, () => void this.look());
  }

  stop(): void {
    this.cancel();
    this.cancel = () => {};
    this.before = undefined;
  }

  private async look(): Promise<void> {
    this.start();
    const connection = this.connection();
    if (connection === undefined || connection.connectionState === "new") return;
    let [bytes, responses, roundTripMs] = [0, 0, 0];
    try {
      (await connection.getStats()).forEach((entry) => {
        // Of the path: what belongs to streams is in it.
        if (entry.type !== "candidate-pair") return;
        bytes += entry.bytesReceived ?? 0;
        responses += entry.responsesReceived ?? 0;
        roundTripMs = Math.max(roundTripMs, 1_000 * (entry.currentRoundTripTime ?? 0));
      });
    } catch {
      return;
    }
    const last = this.before;
    if (last?.connection !== connection) {
      // What has just begun counts as a flow until it proves to be none.
      this.before = { connection, bytes, responses, silent: 0, flow: FLOW_LOOKS };
      return;
    }
    // What a pair that was given up had received is subtracted, and no sign of life.
    const hasMedia = bytes > last.bytes;
    const isSilent = !hasMedia && responses <= last.responses && bytes + responses > 0;
    const silent = isSilent ? last.silent + 1 : 0;
    // As long as nothing comes at all it is what broke off.
    let { flow } = last;
    if (hasMedia) flow = last.silent < SILENT_LOOKS ? flow + 1 : 1;
    else if (!isSilent) flow = 0;
    this.before = { connection, bytes, responses, silent, flow };
    if (silent >= SILENT_LOOKS) this.onSilence({ brokeOff: flow >= FLOW_LOOKS, roundTripMs });
    else if (silent === 0) this.onLife();
  }
}
