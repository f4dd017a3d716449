import { FLOW_LOOKS, PULSE_LOOK_MS, SILENT_LOOKS } from "./limits.js";
import type { Timers } from "./timers.js";

/** What is looked at of a candidate pair. */
interface Entry {
  id?: string;
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

interface Look {
  connection: Pulsing;
  bytes: number;
  responses: number;
  silent: number;
  flow: number;
  roundTripMs: number;
  /** Of each pair of candidates. */
  pairs: Map<string, number>;
  /** The pair by which most came last. */
  carrier: string | undefined;
}

/** What it does. */
export interface PulseActions {
  onSilence(silence: Silence): void;
  onLife(): void;
  /** Media comes by another pair of candidates: the network may have changed. */
  onMoved?(roundTripMs: number): void;
}

/**
 * Tells when a media path that was up brings nothing any more, nor answers checks: the node may be
 * dead, or the network that led to it.
 */
export class Pulse {
  private cancel: () => void = () => {};
  private before: Look | undefined;

  constructor(
    private readonly timers: Timers,
    private readonly connection: () => Pulsing | undefined,
    private readonly actions: PulseActions,
  ) {}

  start(): void {
    this.cancel = this.timers.after(PULSE_LOOK_MS, () => void this.look());
  }

  stop(): void {
    this.cancel();
    this.cancel = () => {};
    this.before = undefined;
  }

  /** Of the media's path, as it was measured last; 0 where it was not. */
  get roundTripMs(): number {
    return this.before?.roundTripMs ?? 0;
  }

  private async look(): Promise<void> {
    this.start();
    const connection = this.connection();
    if (connection === undefined || connection.connectionState === "new") return;
    let [bytes, responses, roundTripMs] = [0, 0, 0];
    const pairs = new Map<string, number>();
    try {
      (await connection.getStats()).forEach((entry) => {
        // Of the path: what belongs to streams is in it.
        if (entry.type !== "candidate-pair") return;
        pairs.set(entry.id ?? "", entry.bytesReceived ?? 0);
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
      const flow = FLOW_LOOKS;
      const first = { silent: 0, flow, roundTripMs, pairs, carrier: undefined };
      this.before = { connection, bytes, responses, ...first };
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
    const carrier = carrierOf(pairs, last.pairs) ?? last.carrier;
    this.before = { connection, bytes, responses, silent, flow, roundTripMs, pairs, carrier };
    const { actions } = this;
    if (silent >= SILENT_LOOKS) actions.onSilence({ brokeOff: flow >= FLOW_LOOKS, roundTripMs });
    else if (silent === 0) actions.onLife();
    if (last.carrier !== undefined && carrier !== last.carrier) actions.onMoved?.(roundTripMs);
  }
}

/** The pair by which most came since the last look. */
function carrierOf(pairs: Map<string, number>, before: Map<string, number>): string | undefined {
  let [carrier, most]: [string | undefined, number] = [undefined, 0];
  for (const [id, bytes] of pairs) {
    const came = bytes - (before.get(id) ?? 0);
    if (came > most) [carrier, most] = [id, came];
  }
  return carrier;
}
