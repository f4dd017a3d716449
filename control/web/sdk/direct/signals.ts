import { type Timers } from "../timers.js";

/** What one of two browsers tells the other through the server (docs/reference/jsonrtc.md). */
export interface DirectSignal {
  /** Which of the sender's connections it is about, from 1; a later one replaces those before. */
  attempt: number;
  /** From who sends media: what it offers, and which publication each m-line carries. */
  offer?: string;
  publications?: { mid: string; publication: string }[];
  /** From who receives it. */
  answer?: string;
  /** From who sends media, or, with `receiver`, from who receives it. */
  candidate?: RTCIceCandidateInit;
  receiver?: boolean;
}

/** What the receiver of media answers each beat with. */
export interface DirectAnswer {
  /** Publications that arrive and are shown. */
  shown: string[];
  /** Those that it does not want. */
  unwanted: string[];
}

export function signalOf(text: string | undefined): DirectSignal | undefined {
  const signal = parsed(text) as DirectSignal | undefined;
  return typeof signal?.attempt === "number" ? signal : undefined;
}

export function answerOf(text: unknown): DirectAnswer | undefined {
  const { shown, unwanted } = (parsed(text) ?? {}) as Partial<DirectAnswer>;
  return Array.isArray(shown) && Array.isArray(unwanted) ? { shown, unwanted } : undefined;
}

/** The other of two may send anything. */
function parsed(text: unknown): object | undefined {
  try {
    const value: unknown = typeof text === "string" ? JSON.parse(text) : undefined;
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Candidates wait until there is a description that they belong to. */
export class Candidates {
  private waiting: RTCIceCandidateInit[] | undefined = [];

  constructor(private readonly connection: RTCPeerConnection) {}

  add(candidate: RTCIceCandidateInit): void {
    if (this.waiting) this.waiting.push(candidate);
    // One that this browser cannot use: there are others, or media stays with the relay.
    else this.connection.addIceCandidate(candidate).catch(() => {});
  }

  /** The description is there. */
  release(): void {
    const waiting = this.waiting ?? [];
    this.waiting = undefined;
    for (const each of waiting) this.add(each);
  }
}

/** Does a thing every so often until it is stopped. */
export class Ticker {
  private cancel: () => void = () => {};
  private stopped = false;

  constructor(
    private readonly timers: Timers,
    private readonly intervalMs: number,
    private readonly task: () => void,
  ) {
    this.arm();
  }

  stop(): void {
    this.stopped = true;
    this.cancel();
  }

  private arm(): void {
    this.cancel = this.timers.after(this.intervalMs, () => {
      this.task();
      if (!this.stopped) this.arm();
    });
  }
}
