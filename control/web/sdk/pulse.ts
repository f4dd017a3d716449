import { PULSE_LOOK_MS } from "./limits.js";
import type { Timers } from "./timers.js";

/** The part of a peer connection that is looked at. */
export interface Pulsing {
  readonly connectionState: string;
  getStats(): Promise<{ forEach(each: (entry: { type: string; bytesReceived?: number }) => void): void }>;
}

/** Tells when a media path that was up brings nothing any more: the node may be dead. */
export class Pulse {
  private cancel: () => void = () => {};
  private before: { connection: Pulsing; bytes: number; silent: number } | undefined;

  constructor(
    private readonly timers: Timers,
    private readonly connection: () => Pulsing | undefined,
    private readonly onSilence: () => void,
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
    let bytes = 0;
    try {
      (await connection.getStats()).forEach((entry) => {
        // Of the path: what belongs to streams is in it.
        if (entry.type === "candidate-pair") bytes += entry.bytesReceived ?? 0;
      });
    } catch {
      return;
    }
    const { before } = this;
    const silent =
      before?.connection === connection && before.bytes === bytes && bytes > 0 ? before.silent + 1 : 0;
    this.before = { connection, bytes, silent };
    // One look without a packet is nothing: nobody may be sending.
    if (silent >= 2) this.onSilence();
  }
}
