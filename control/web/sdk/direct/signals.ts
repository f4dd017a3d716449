import * as limits from "../limits.js";
import type { Timers } from "../timers.js";

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
  /** Those of the shown ones in which somebody speaks. */
  speaking: string[];
}

/** What the other one signals: what is no signal, or too much of one, is none. */
export function signalOf(text: unknown): DirectSignal | undefined {
  const said = parsed(text, limits.DIRECT_SIGNAL_CHARACTERS_MAX);
  const { attempt, offer, answer, receiver = false } = said;
  if (!isNumber(attempt) || typeof receiver !== "boolean") return undefined;
  const signal: DirectSignal = { attempt, receiver };
  if (offer !== undefined) {
    const publications = linesOf(said["publications"] ?? []);
    if (!isSdp(offer) || !publications) return undefined;
    Object.assign(signal, { offer, publications });
  }
  if (answer !== undefined) {
    if (!isSdp(answer)) return undefined;
    signal.answer = answer;
  }
  if (said["candidate"] !== undefined) {
    const candidate = candidateOf(said["candidate"]);
    if (!candidate) return undefined;
    signal.candidate = candidate;
  }
  return signal;
}

/** What the other one answers a beat with. */
export function answerOf(text: unknown): DirectAnswer | undefined {
  const { shown, unwanted, speaking = [] } = parsed(text, limits.DIRECT_ANSWER_CHARACTERS_MAX);
  const isGood = isStrings(shown) && isStrings(unwanted) && isStrings(speaking);
  return isGood ? { shown, unwanted, speaking } : undefined;
}

type Said = Record<string, unknown>;

/** The other of two may send anything. */
function parsed(text: unknown, charactersMax: number): Said {
  if (typeof text !== "string" || text.length > charactersMax) return {};
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

function linesOf(value: unknown): DirectSignal["publications"] {
  if (!Array.isArray(value) || value.length > limits.DIRECT_LINES_MAX) return undefined;
  const lines = value.flatMap((each: unknown) => {
    const { mid, publication } = isObject(each) ? each : {};
    return typeof mid === "string" && typeof publication === "string" ? { mid, publication } : [];
  });
  return lines.length === value.length ? lines : undefined;
}

function candidateOf(value: unknown): RTCIceCandidateInit | undefined {
  if (!isObject(value)) return undefined;
  const { candidate, sdpMid = null, sdpMLineIndex = null, usernameFragment = null } = value;
  const isText = (each: unknown) => each === null || typeof each === "string";
  const isGood =
    typeof candidate === "string" &&
    isText(sdpMid) &&
    isText(usernameFragment) &&
    (sdpMLineIndex === null || isNumber(sdpMLineIndex));
  if (!isGood) return undefined;
  return { candidate, sdpMid, sdpMLineIndex, usernameFragment } as RTCIceCandidateInit;
}

/** Each line of it costs this browser something. */
function isSdp(value: unknown): value is string {
  return typeof value === "string" && value.split(/[\r\n]m=/).length - 1 <= limits.DIRECT_LINES_MAX;
}

function isObject(value: unknown): value is Said {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((each) => typeof each === "string");
}

/** A connection; none where the browser gives none, as a page has only so many. */
export function opened(configuration: RTCConfiguration): RTCPeerConnection | undefined {
  try {
    return new RTCPeerConnection(configuration);
  } catch {
    return undefined;
  }
}

/** The address that a candidate names, by itself and in a description; as strict as browsers write it. */
const CANDIDATE = /^(?:a=)?candidate:\S+ \d+ (\S+ \d+ \S+ \d+) typ /i;

/**
 * The other one's candidates for one connection, of which only so many addresses are taken, however
 * it tells them. They wait until there is a description that they belong to.
 */
export class Candidates {
  private waiting: RTCIceCandidateInit[] | undefined = [];
  private readonly addresses = new Set<string>();

  constructor(private readonly connection: RTCPeerConnection) {}

  add(candidate: RTCIceCandidateInit): void {
    const count = this.addresses.size;
    // The browser has what is not new.
    if (!this.takes(candidate.candidate ?? "") || this.addresses.size === count) return;
    if (this.waiting) this.waiting.push(candidate);
    else this.take(candidate);
  }

  /** A description without the candidates that are too many: a later one names again what is known. */
  within(sdp: string): string {
    const lines = sdp.split(/\r\n|\r|\n/);
    return lines.filter((line) => !/^a=\s*candidate/i.test(line) || this.takes(line)).join("\r\n");
  }

  /** The description is there. */
  release(): void {
    const waiting = this.waiting ?? [];
    this.waiting = undefined;
    for (const each of waiting) this.take(each);
  }

  private takes(text: string): boolean {
    // The empty one tells that no more follow.
    const address = text === "" ? text : CANDIDATE.exec(text)?.[1];
    if (address === undefined) return false;
    if (this.addresses.size < limits.DIRECT_CANDIDATES_MAX) this.addresses.add(address);
    return this.addresses.has(address);
  }

  private take(candidate: RTCIceCandidateInit): void {
    // One that this browser cannot use: there are others, or media stays with the relay.
    this.connection.addIceCandidate(candidate).catch(() => {});
  }
}

/** Lets a thing be done once every so often, however often it is asked for: it is not done, or waits. */
export class Pace {
  private at: number | undefined;

  constructor(
    private readonly timers: Timers,
    private readonly eachMs: number,
  ) {}

  takes(): boolean {
    const now = this.timers.now();
    if (this.at !== undefined && now - this.at < this.eachMs) return false;
    this.at = now;
    return true;
  }

  async turn(): Promise<void> {
    const now = this.timers.now();
    const at = this.at === undefined ? now : Math.max(now, this.at + this.eachMs);
    this.at = at;
    if (at > now) await new Promise<void>((done) => void this.timers.after(at - now, done));
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
