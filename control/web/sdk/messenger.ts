import { StraitError, asStraitError } from "./errors.js";
import * as limits from "./limits.js";
import { messageEntry, messageOf, type PeerMessage } from "./messages.js";
import type { MessageCounts, ScopeNotice } from "./protocol.js";
import type { Timers } from "./timers.js";

/** What a data channel for messages is called, and what is spoken on it (docs/reference/jsonrtc.md). */
export const CHANNEL_LABEL = "strait";
export const CHANNEL_PROTOCOL = "strait-messages/1";

const TEXT = 1;
const BYTES = 2;
const ANSWER = 3;
const DIRECT = 1;
const HEADER_BYTES = 7;

/** What the messenger asks of the scope. */
export interface MessengerHost {
  /** There is a stay, so that requests can be sent. */
  ready(): boolean;
  /** A NOTIFY over the WebSocket; resolves with the server's answer. */
  request(payload: object): Promise<unknown>;
  /** Another peer sent a message. */
  heard(message: PeerMessage): void;
}

interface Pending {
  number: number;
  data: string | Uint8Array;
  to: string | undefined;
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * Messages: over the data channel while one is open, over the WebSocket otherwise. They come once
 * and in order, also when the way changes: what goes over a channel is numbered and answered, and
 * what was not answered when it ends is sent again by the WebSocket with its number.
 */
export class Messenger {
  private channel: RTCDataChannel | undefined;
  /** The number of the last message that was sent over a channel. */
  private sent = 0;
  private pending: Pending[] = [];
  /** Those of a channel that ended. */
  private stale: Pending[] = [];
  /** Messages on their way over the WebSocket: the channel waits for them. */
  private overSocket = 0;
  /** The number of the last message that a channel brought. */
  private lastHeard = 0;
  /** The server said that it sends over the channel: all that it sent by WebSocket is here. */
  private on = false;
  private held: ArrayBuffer[] = [];
  private cancelTimer = () => {};

  constructor(
    private readonly host: MessengerHost,
    private readonly timers: Timers,
  ) {}

  /** Whether messages go over a data channel. */
  get isDirect(): boolean {
    return this.channel?.readyState === "open";
  }

  /** Uses a channel once it is open. */
  attach(channel: RTCDataChannel | undefined): void {
    this.detach();
    if (!channel) return;
    this.channel = channel;
    this.on = false;
    this.held = [];
    channel.binaryType = "arraybuffer";
    channel.addEventListener("message", ({ data }) => {
      if (this.channel !== channel || !(data instanceof ArrayBuffer)) return;
      // Answers have no place among messages.
      if (this.on || new Uint8Array(data)[0] === ANSWER) this.take(data);
      else this.held.push(data);
    });
    channel.addEventListener("open", () => this.turnOn(channel));
    channel.addEventListener("close", () => {
      if (this.channel === channel) this.detach();
    });
  }

  /** The channel is of no use any more: what it may not have brought goes over the WebSocket. */
  detach(): void {
    const { channel } = this;
    if (!channel) return;
    this.channel = undefined;
    this.cancelTimer();
    channel.close();
    this.stale.push(...this.pending.splice(0));
    this.sendAgain();
  }

  /** A stay began, and the server says what of this client's it took, and how much it sent. */
  started({ sent = 0, taken = 0 }: MessageCounts = {}): void {
    this.lastHeard = Math.min(this.lastHeard, sent);
    const first = this.stale[0]?.number ?? this.sent + 1;
    if (taken + 1 < first) {
      // Another stay, which knows nothing of these: whether they arrived is not to be known.
      const lost = new StraitError("closed", "the connection was lost; it may have arrived or not");
      for (const each of this.stale.splice(0)) each.reject(lost);
      this.sent = taken;
    }
    this.sendAgain();
  }

  async send(data: string | Uint8Array, to: string | undefined): Promise<void> {
    const entry = messageEntry(data, to);
    // It ends, and says so a moment later: what is on its way comes first.
    if (this.channel && ["closing", "closed"].includes(this.channel.readyState)) this.detach();
    const { channel } = this;
    if (channel && this.isDirect && this.overSocket === 0) {
      const number = this.sent + 1;
      const answered = new Promise<void>((resolve, reject) => {
        this.pending.push({ number, data, to, resolve, reject });
      });
      this.sent = number;
      try {
        channel.send(frameOf(number, data, to));
        if (this.pending.length === 1) this.watch();
      } catch {
        // It is full or just closed: the WebSocket takes it, behind what is on its way.
        this.detach();
      }
      return answered;
    }
    await this.request(entry);
  }

  /** A message that came over the WebSocket. */
  told(notice: ScopeNotice): void {
    const { number } = notice;
    if (number !== undefined) {
      if (number <= this.lastHeard) return;
      this.lastHeard = number;
    }
    const message = messageOf(notice);
    if (message) this.host.heard(message);
  }

  /** The scope is over. */
  close(error: StraitError): void {
    const { channel } = this;
    this.channel = undefined;
    this.cancelTimer();
    channel?.close();
    for (const each of [...this.stale.splice(0), ...this.pending.splice(0)]) each.reject(error);
  }

  private turnOn(channel: RTCDataChannel, tries = limits.CHANNEL_TRIES): void {
    if (this.on || this.channel !== channel || !this.host.ready()) return;
    const answered = this.host.request({ event: "channel" });
    answered.then(
      () => {
        const { held } = this;
        if (this.channel !== channel && this.channel) return;
        this.on = true;
        this.held = [];
        for (const frame of held) this.take(frame);
      },
      (error: unknown) => {
        // The server may hear of the channel a moment later than of this. Otherwise it was closed meanwhile, or the
        // server does not know it: messages go on over the WebSocket.
        if (tries <= 1 || asStraitError(error).code !== 409) return;
        this.timers.after(limits.CHANNEL_TRY_MS, () => this.turnOn(channel, tries - 1));
      },
    );
  }

  private take(frame: ArrayBuffer): void {
    const view = new DataView(frame);
    const kind = frame.byteLength >= HEADER_BYTES ? view.getUint8(0) : 0;
    const number = kind === 0 ? 0 : view.getUint32(1);
    if (kind === ANSWER) return this.answered(number, view.getUint16(5));
    const at = HEADER_BYTES + (kind === 0 ? 0 : view.getUint8(6));
    if ((kind !== TEXT && kind !== BYTES) || at > frame.byteLength) return this.detach();
    if (number > this.lastHeard + 1) return this.detach();
    if (number === this.lastHeard + 1) {
      this.lastHeard = number;
      const from = new TextDecoder().decode(new Uint8Array(frame, HEADER_BYTES, at - HEADER_BYTES));
      const payload = new Uint8Array(frame, at);
      const direct = (view.getUint8(5) & DIRECT) !== 0;
      const data = kind === TEXT ? new TextDecoder().decode(payload) : payload;
      this.host.heard({ from, direct, data });
    }
    this.answer(number);
  }

  private answer(number: number): void {
    const frame = new DataView(new ArrayBuffer(HEADER_BYTES));
    frame.setUint8(0, ANSWER);
    frame.setUint32(1, number);
    try {
      this.channel?.send(frame.buffer as ArrayBuffer);
    } catch {
      // It is closing: the server sends it again, and it is known.
    }
  }

  private answered(number: number, code: number): void {
    const at = this.pending.findIndex((each) => each.number === number);
    if (at < 0) return;
    const [pending] = this.pending.splice(at, 1);
    this.watch();
    if (code === 0) pending?.resolve();
    else pending?.reject(new StraitError("server", REASONS[code] ?? "it was refused", code));
  }

  /** A channel that brings no answers is given up. */
  private watch(): void {
    this.cancelTimer();
    if (this.pending.length === 0) return;
    this.cancelTimer = this.timers.after(limits.ANSWER_WITHIN_MS, () => this.detach());
  }

  private sendAgain(): void {
    if (!this.host.ready()) return;
    for (const { number, data, to, resolve, reject } of this.stale.splice(0)) {
      this.request({ ...messageEntry(data, to), number }).then(resolve, reject);
    }
  }

  private async request(payload: object): Promise<void> {
    this.overSocket += 1;
    try {
      await this.host.request(payload);
    } finally {
      this.overSocket -= 1;
    }
  }
}

const REASONS: Record<number, string> = {
  403: "the token does not allow messages",
  404: "there is no such peer, or it takes no messages",
  413: "the message is too large",
  429: "the peer reads too slowly and is cut off",
};

function frameOf(number: number, data: string | Uint8Array, to = ""): ArrayBuffer {
  const payload = typeof data === "string" ? new TextEncoder().encode(data) : data;
  const peer = new TextEncoder().encode(to);
  const frame = new Uint8Array(HEADER_BYTES + peer.length + payload.length);
  const view = new DataView(frame.buffer);
  view.setUint8(0, typeof data === "string" ? TEXT : BYTES);
  view.setUint32(1, number);
  view.setUint8(6, peer.length);
  frame.set(peer, HEADER_BYTES);
  frame.set(payload, HEADER_BYTES + peer.length);
  return frame.buffer;
}
