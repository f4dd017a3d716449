import { StraitError, asStraitError } from "./errors.js";
import { TypedEvents } from "./events.js";
import { type ControlHeaders, type Frame, type GeneralHeaders, parseFrame } from "./frames.js";
import * as limits from "./limits.js";
import { type Located, atOrigin } from "./locator.js";
import type { ConnectAnswer } from "./protocol.js";
import { type Timers, realTimers } from "./timers.js";

/** The part of a WebSocket that the link uses. */
export interface Socket {
  readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export interface LinkOptions {
  /**
   * `wss://HOST/ws`, or who knows it; `failed` is the endpoint of the node that did, and nobody
   * waits for an answer any more once `signal` says so.
   */
  url: string | ((failed: string | undefined, signal: AbortSignal) => Promise<Located>);
  subprotocol: string;
  token: string | undefined;
  /** Display name, sent as `initiator`. */
  name: string | undefined;
  timers?: Timers;
  openSocket?: (url: string, subprotocol: string) => Socket;
}

/** A frame to send: the link adds type, sequence, session and acknowledgement. */
export interface Outgoing {
  action: string;
  packageType?: string;
  target?: string;
  subsession?: string | undefined;
  payload?: unknown;
}

export interface LinkEvents {
  /** A request or message of the server, in order, each once. */
  frame: Frame;
  /** The WebSocket broke; attempt `attempt` follows after `waitMs`. */
  reconnecting: { attempt: number; waitMs: number };
  /** The same session goes on, nothing was lost. */
  resumed: undefined;
  /** The scope is on another node now, `HOST:PORT`; `renewed` follows. */
  moved: { node: string };
  /** The server knew the session no more: everything starts afresh. */
  renewed: ConnectAnswer;
  /** The link is over; `error` says why, unless `close()` was called. */
  closed: { error: StraitError | undefined };
  /** An error frame that answers no request. */
  error: StraitError;
}

interface Pending {
  action: string;
  /** When it went out, if the socket that took it is still there. */
  sentAt: number | undefined;
  resolve(frame: Frame): void;
  reject(error: StraitError): void;
  cancelTimeout(): void;
}

type Phase = "idle" | "connecting" | "open" | "waiting" | "closed";

/**
 * JsonRTC over WebSocket (docs/reference/jsonrtc.md): sequence numbers, acknowledgements, a
 * retained window, and a session that outlives its WebSocket.
 */
export class JsonRtc extends TypedEvents<LinkEvents> {
  /** Given by the server in its answer to CONNECT. */
  sessionId: string | undefined;
  private readonly options: LinkOptions;
  private readonly timers: Timers;
  private readonly openSocket: (url: string, subprotocol: string) => Socket;
  private phase: Phase = "idle";
  private socket: Socket | undefined;
  private sent = 0;
  private received = 0;
  private acknowledged = 0;
  private retained: { sequence: number; frame: Frame }[] = [];
  private pending = new Map<string, Pending>();
  private attempt = 0;
  /** Where the server is, and where the session is. */
  private at: Located | undefined;
  private sessionAt: string | undefined;
  /** The node that could not be reached, was silent, or is about to end. */
  private failed: string | undefined;
  private cancelDoubt: (() => void) | undefined;
  private cancelCheck: (() => void) | undefined;
  /** How long the next attempt waits, where that is less than usual. */
  private soonMs: number | undefined;
  private waits = 0;
  /** Since when the session has no socket. */
  private lostAt: number | undefined;
  /** Attempts that are to follow soon: a network that is back has its routes and names a little later. */
  private hasty = 0;
  private cancelWait: () => void = () => {};
  private cancelConnect: () => void = () => {};
  private cancelPing: () => void = () => {};
  private heardAt = 0;
  private pingedAt: number | undefined;
  private early: unknown[] = [];
  /** How long the last answers on this socket took, that to CONNECT among them at first. */
  private tripsMs: number[] = [];

  constructor(options: LinkOptions) {
    super();
    this.options = options;
    this.timers = options.timers ?? realTimers;
    this.openSocket =
      options.openSocket ??
      ((url, subprotocol) => new WebSocket(url, subprotocol) as unknown as Socket);
  }

  /**
   * Opens the WebSocket and a session. Fails at once when the server is away or refuses; where
   * CnCs know others, one that is away is left for them.
   */
  async connect(): Promise<ConnectAnswer> {
    if (this.phase !== "idle") throw new StraitError("closed", "connect() was called before");
    try {
      return await this.firstSession();
    } catch (error) {
      this.finish(undefined);
      throw error;
    }
  }

  private async firstSession(): Promise<ConnectAnswer> {
    for (;;) {
      await this.locate();
      if (this.hasOthers) this.attempt += 1;
      try {
        return await this.openSession();
      } catch (thrown) {
        this.note(thrown);
        const isOver = (this.phase as Phase) === "closed";
        // One that refuses us is not left: its reason is the answer.
        if (isOver || this.failed === undefined) throw thrown;
        if (this.attempt === limits.FIRST_NODES_MAX) throw thrown;
      }
      await this.firstWait();
    }
  }

  /** As before a reconnect: a node that died has many clients. */
  private firstWait(): Promise<void> {
    return new Promise((resolve, reject) => {
      const waitMs = limits.RECONNECT_WAIT_MS * (1 + this.timers.random());
      const cancel = this.timers.after(waitMs, resolve);
      this.cancelConnect = () => {
        cancel();
        reject(closedError());
      };
    });
  }

  /**
   * To the server and back. An answer also takes what the server does for it, and what was lost on its
   * way: of the last ones the fastest counts.
   */
  get roundTripMs(): number {
    return this.tripsMs.length > 0 ? Math.min(...this.tripsMs) : 0;
  }

  private tookMs(ms: number): void {
    const last = this.tripsMs.slice(1 - limits.ROUND_TRIPS_KEPT);
    this.tripsMs = [...last, Math.min(ms, limits.ROUND_TRIP_MS_MAX)];
  }

  /** Sends a request; resolves with its final response. Waits out a reconnect. */
  request(outgoing: Outgoing): Promise<Frame> {
    if (this.phase === "closed") return Promise.reject(closedError());
    return new Promise((resolve, reject) => {
      const frame = this.compose("request", outgoing);
      const id = `c${frame.control.sequence}`;
      const cancelTimeout = this.timers.after(limits.REQUEST_TIMEOUT_MS, () => {
        this.pending.delete(id);
        const reason = `the server did not answer ${outgoing.action}; is it overloaded?`;
        reject(new StraitError("timeout", reason));
      });
      const sentAt = this.phase === "open" ? this.timers.now() : undefined;
      const { action } = outgoing;
      this.pending.set(id, { action, sentAt, resolve, reject, cancelTimeout });
      this.transmit(frame);
    });
  }

  /** Sends a message: delivered once and in order, answered by nothing. */
  message(outgoing: Outgoing): void {
    if (this.phase !== "closed") this.transmit(this.compose("message", outgoing));
  }

  /** The network has just come back: what waits, or waits for an answer by the one before, begins at once. */
  retryNow(roundTripMs = 0): void {
    // What came before it went says nothing of the one that is back.
    this.endCheck();
    this.check(roundTripMs);
    this.hasty = limits.RECONNECT_HASTY;
    if (this.phase === "connecting" && this.sessionId !== undefined) {
      this.soonMs = 0;
      this.cancelConnect();
    }
    if (this.phase !== "waiting") return;
    this.cancelWait();
    void this.reconnect();
  }

  /**
   * The network may be another one: a WebSocket that does not answer soon went with the one before, whatever media does.
   * `roundTripMs` is that of the media's path.
   */
  check(roundTripMs = 0): void {
    if (this.phase !== "open" || this.cancelCheck) return;
    this.cancelCheck = this.judge(limits.VERDICT_MS, roundTripMs, (isSilent) => {
      this.cancelCheck = undefined;
      if (isSilent) this.dropSocket("the network changed, and the server does not answer", 0);
      else this.hasty = 0;
    });
  }

  private endCheck(): void {
    this.cancelCheck?.();
    this.cancelCheck = undefined;
  }

  /**
   * Media is silent: a server that does not answer soon is taken for dead, unless `believe()` is
   * called before. `brokeOff`: it came all the time; otherwise nobody may have sent any.
   * `roundTripMs` is that of its path. Only of use where there are others.
   */
  doubt(brokeOff = true, roundTripMs = 0): void {
    if (this.phase !== "open" || this.cancelDoubt) return;
    const silentMs = brokeOff ? limits.DOUBT_MS : limits.QUIET_MS;
    if (this.timers.now() - this.heardAt < silentMs) return;
    const leastMs = brokeOff ? limits.VERDICT_MS : limits.QUIET_MS;
    this.cancelDoubt = this.judge(leastMs, roundTripMs, (isSilent) => {
      this.cancelDoubt = undefined;
      if (!isSilent) return;
      // Where there are others, it is their CnCs that all clients of a dead node ask.
      const soonMs = limits.RECONNECT_SOON_MS * this.timers.random();
      const reason = "neither the server nor its media answers";
      this.dropSocket(reason, this.hasOthers ? undefined : soonMs);
    });
  }

  /** The path of the media lives, and so does the server. */
  believe(): void {
    this.cancelDoubt?.();
    this.cancelDoubt = undefined;
  }

  /** Pings, and says after a while whether anything came since then. Returns what calls it off. */
  private judge(leastMs: number, roundTripMs: number, verdict: (isSilent: boolean) => void) {
    const since = this.timers.now();
    this.ping();
    const slowMs = limits.VERDICT_ROUND_TRIPS * Math.max(roundTripMs, this.roundTripMs);
    const verdictMs = Math.min(Math.max(leastMs, slowMs), limits.VERDICT_MS_MAX);
    return this.timers.after(verdictMs, () => verdict(this.heardAt < since));
  }

  /** Does what a server may answer with another node (307), on whatever node that is in the end. */
  async wherever(task: () => Promise<void>, moved: (answer: ConnectAnswer) => void): Promise<void> {
    for (let hop = 0; ; hop += 1) {
      try {
        return await task();
      } catch (thrown) {
        const { location } = asStraitError(thrown);
        if (location === undefined) throw thrown;
        if (hop === limits.REDIRECTS_MAX) {
          throw new StraitError("server", "nodes send this client on in a circle", 307);
        }
        moved(await this.follow(location));
      }
    }
  }

  /** Goes to another node for a session there; comes back if that fails. */
  private async follow(origin: string): Promise<ConnectAnswer> {
    const there = atOrigin(origin, this.at?.url ?? "");
    if (!there) throw new StraitError("server", `the server names no node: ${origin}`);
    this.releaseSocket("elsewhere");
    this.at = there;
    try {
      return await this.openSession();
    } catch (thrown) {
      this.note(thrown);
      if ((this.phase as Phase) !== "closed") this.waitAndReconnect();
      throw thrown;
    }
  }

  /** The node, `HOST:PORT`, where that is known. */
  get node(): string {
    return this.at?.endpoint ?? "";
  }

  /** Ends the link; the session on the server ends with its time limit. */
  close(): void {
    this.finish(undefined);
  }

  // -- the way out ------------------------------------------------------------------------

  private compose(type: "request" | "message", outgoing: Outgoing): Frame {
    const control: ControlHeaders = { type, version: "1.0", sequence: ++this.sent };
    if (outgoing.packageType) control.package_type = outgoing.packageType;
    if (outgoing.subsession) control.subsession_id = outgoing.subsession;
    const header: GeneralHeaders = { action: outgoing.action };
    if (outgoing.target !== undefined) header.target = outgoing.target;
    return { control, header, payload: outgoing.payload ?? {} };
  }

  private transmit(frame: Frame): void {
    this.retained.push({ sequence: frame.control.sequence ?? 0, frame });
    // A reconnect that needs a dropped frame fails and starts afresh: bounded beats complete.
    if (this.retained.length > limits.RETAINED_FRAMES_MAX) this.retained.shift();
    if (this.phase === "open") this.write(frame);
  }

  private write(frame: Frame): void {
    if (this.received > 0 && frame.header.action !== "CONNECT") {
      frame.control.ack_sequence = this.received;
      this.acknowledged = this.received;
    }
    if (this.sessionId !== undefined) frame.control.session_id = this.sessionId;
    this.socket?.send(JSON.stringify(frame));
  }

  private acknowledge(): void {
    const control: ControlHeaders = { type: "acknowledgement", ack_sequence: this.received };
    if (this.sessionId !== undefined) control.session_id = this.sessionId;
    this.acknowledged = this.received;
    this.socket?.send(JSON.stringify({ control, header: {} }));
  }

  // -- the way in -------------------------------------------------------------------------

  private onText(text: string): void {
    this.heardAt = this.timers.now();
    const frame = parseFrame(text);
    if (!frame) return;
    const { control } = frame;
    if (control.ack_sequence !== undefined) this.onAcknowledged(control.ack_sequence);
    if (control.sequence !== undefined) {
      if (control.sequence <= this.received) return;
      if (control.sequence > this.received + 1) {
        // WebSocket delivers in order, so a gap means lost state: the reconnect repairs it.
        this.dropSocket("a frame of the server is missing");
        return;
      }
      this.received = control.sequence;
    }
    this.deliver(frame);
    if (
      this.phase === "open" &&
      this.received - this.acknowledged >= limits.UNACKNOWLEDGED_FRAMES_MAX
    ) {
      this.acknowledge();
    }
  }

  private onAcknowledged(sequence: number): void {
    if (sequence > this.sent) return;
    this.retained = this.retained.filter((kept) => kept.sequence > sequence);
  }

  private deliver(frame: Frame): void {
    const { type, correlation_id: correlation, message_state: state } = frame.control;
    if (type === "response") {
      if (state === "initial" || state === "subsequent") return;
      const pending = this.take(correlation);
      pending?.resolve(frame);
    } else if (type === "error") {
      const { error_code: code = 500, reason = "the server gave no reason" } = frame.header;
      const { location } = frame.header;
      // Nothing was refused: all of it goes elsewhere.
      const error = new StraitError(location === undefined ? "server" : "closed", reason, code);
      error.location = location;
      const pending = this.take(correlation);
      if (pending) pending.reject(error);
      else this.emit("error", error);
    } else if (type === "message" || type === "request") {
      if (frame.header.action !== "PONG") this.emit("frame", frame);
      else if (this.pingedAt !== undefined) {
        this.tookMs(this.timers.now() - this.pingedAt);
        this.pingedAt = undefined;
      }
    }
  }

  private take(correlation: string | undefined): Pending | undefined {
    if (correlation === undefined) return undefined;
    const pending = this.pending.get(correlation);
    this.pending.delete(correlation);
    pending?.cancelTimeout();
    if (pending?.sentAt !== undefined) this.tookMs(this.timers.now() - pending.sentAt);
    return pending;
  }

  // -- the socket -------------------------------------------------------------------------

  private get hasOthers(): boolean {
    return typeof this.options.url === "function";
  }

  /** Keeps whether the node that was tried is one that failed: one that refuses us lives. */
  private note(thrown: unknown): void {
    const { kind, code } = asStraitError(thrown);
    const isAway = kind === "unreachable" || kind === "timeout" || code === 503;
    this.failed = isAway ? this.at?.endpoint : undefined;
  }

  /** Finds out where the server is. Where no CnC answers, it is where it was. */
  private async locate(): Promise<void> {
    const { url } = this.options;
    this.phase = "connecting";
    const asking = new AbortController();
    this.cancelConnect = () => asking.abort();
    try {
      if (typeof url === "function") this.at = await url(this.failed, asking.signal);
      // Who was sent elsewhere tries there once more.
      else if (this.attempt !== 1) this.at = { url, endpoint: undefined };
    } catch (thrown) {
      if (this.at === undefined) throw thrown;
    } finally {
      this.cancelConnect = () => {};
    }
    if ((this.phase as Phase) === "closed") throw closedError();
  }

  /** A new WebSocket, ready to send; its frames go to `onFrame` until it is `adopt`ed. */
  private open(): Promise<Socket> {
    this.phase = "connecting";
    const url = this.at?.url ?? "";
    // Another node is worth a quick look; whoever has a slow line is given more time each time.
    const quickMs = limits.NODE_CONNECT_TIMEOUT_MS * 2 ** Math.max(0, this.attempt - 1);
    const isQuick = this.hasOthers && this.attempt > 0;
    const withinMs = Math.min(isQuick ? quickMs : Infinity, limits.CONNECT_TIMEOUT_MS);
    return new Promise((resolve, reject) => {
      const fail = (reason: string) => {
        cancel();
        socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
        socket.close();
        reject(new StraitError("unreachable", reason));
      };
      const away = `no answer from ${url}: is the server running and reachable?`;
      const cancel = this.timers.after(withinMs, () => fail(away));
      const socket = this.openSocket(url, this.options.subprotocol);
      this.cancelConnect = () => fail("closed while connecting");
      socket.onerror = () => {};
      socket.onclose = () => fail(away);
      socket.onopen = () => {
        cancel();
        this.cancelConnect = () => {};
        socket.onclose = null;
        resolve(socket);
      };
    });
  }

  /** Sends CONNECT on a fresh socket and returns what answers it. */
  private exchangeConnect(socket: Socket, frame: Frame): Promise<Frame> {
    return new Promise((resolve, reject) => {
      const began = this.timers.now();
      const end = (error: StraitError) => {
        this.cancelConnect = () => {};
        cancel();
        socket.onmessage = socket.onclose = null;
        socket.close();
        reject(error);
      };
      const cancel = this.timers.after(limits.CONNECT_TIMEOUT_MS, () =>
        end(new StraitError("timeout", "the server did not answer CONNECT")),
      );
      this.cancelConnect = () => end(closedError());
      socket.onclose = () =>
        end(new StraitError("unreachable", "the server closed the connection at CONNECT"));
      socket.onmessage = ({ data }) => {
        const answer = typeof data === "string" ? parseFrame(data) : undefined;
        if (!answer) return;
        const { error_code: code = 500, reason = "CONNECT was refused" } = answer.header;
        if (answer.control.type === "error") {
          end(new StraitError("server", reason, code));
          return;
        }
        if (answer.control.type !== "response") return;
        this.cancelConnect = () => {};
        cancel();
        this.tripsMs = [];
        this.tookMs(this.timers.now() - began);
        // Frames right behind the answer wait until the session is set up.
        this.early = [];
        socket.onmessage = ({ data }) => this.early.push(data);
        resolve(answer);
      };
      socket.send(JSON.stringify(frame));
    });
  }

  private connectFrame(): Frame {
    const header: GeneralHeaders = { action: "CONNECT" };
    if (this.options.name) header.initiator = this.options.name;
    if (this.options.token) header.token = this.options.token;
    return { control: { type: "request", version: "1.0" }, header, payload: {} };
  }

  /** CONNECT as the first frame of a new session. */
  private async openSession(): Promise<ConnectAnswer> {
    const socket = await this.open();
    const frame = this.connectFrame();
    frame.control.sequence = 1;
    return this.beginSession(socket, await this.exchangeConnect(socket, frame), 1);
  }

  /** Both series start afresh behind the answer to a CONNECT. */
  private beginSession(socket: Socket, answer: Frame, sent: number): ConnectAnswer {
    // Whatever was asked of the old session meanwhile means nothing to the new one.
    this.failPending(new StraitError("closed", "the session was lost in a reconnect"));
    this.retained = [];
    this.sent = sent;
    this.acknowledged = 0;
    this.sessionId = answer.control.session_id;
    this.sessionAt = this.at?.url;
    this.received = answer.control.sequence ?? 0;
    this.adopt(socket);
    return answer.payload as ConnectAnswer;
  }

  /**
   * CONNECT of the same session on a new WebSocket. Undefined when it goes on; otherwise the
   * answer of the session that the server opened instead.
   */
  private async resumeSession(): Promise<ConnectAnswer | undefined> {
    const socket = await this.open();
    const frame = this.connectFrame();
    if (this.sessionId !== undefined) frame.control.session_id = this.sessionId;
    frame.header.cslr = this.received;
    frame.header.cslw = (this.retained[0]?.sequence ?? this.sent + 1) - 1;
    frame.header.csuw = this.sent;
    let answer: Frame;
    try {
      answer = await this.exchangeConnect(socket, frame);
    } catch (thrown) {
      const error = asStraitError(thrown);
      if (error.code === 404 || error.code === 409) return this.openSession();
      throw error;
    }
    const known = answer.header.sslr;
    if (answer.control.session_id !== this.sessionId || known === undefined) {
      // This CONNECT stood outside the series, so the first frame of the new one is the next.
      return this.beginSession(socket, answer, 0);
    }
    this.onAcknowledged(known);
    this.adopt(socket);
    for (const { frame: kept } of this.retained) this.write(kept);
    return undefined;
  }

  private adopt(socket: Socket): void {
    this.socket = socket;
    this.phase = "open";
    this.attempt = this.waits = this.hasty = 0;
    this.failed = this.pingedAt = this.soonMs = this.lostAt = undefined;
    this.heardAt = this.timers.now();
    socket.onmessage = ({ data }) => {
      if (typeof data === "string" && socket === this.socket) this.onText(data);
    };
    socket.onclose = () => {
      if (socket === this.socket) this.dropSocket("the WebSocket closed");
    };
    this.armPing(limits.PING_AFTER_MS);
    for (const data of this.early.splice(0)) if (typeof data === "string") this.onText(data);
  }

  /** A browser cannot send WebSocket pings: a dead path is found by a PING of our own. */
  private armPing(delayMs: number): void {
    this.cancelPing();
    this.cancelPing = this.timers.after(delayMs, () => {
      const silentMs = this.timers.now() - this.heardAt;
      if (silentMs >= limits.PING_AFTER_MS + limits.PONG_WITHIN_MS) {
        this.dropSocket("the server is silent");
      } else if (silentMs >= limits.PING_AFTER_MS) {
        this.ping();
        this.armPing(limits.PING_AFTER_MS + limits.PONG_WITHIN_MS - silentMs);
      } else {
        this.armPing(limits.PING_AFTER_MS - silentMs);
      }
    });
  }

  private ping(): void {
    this.pingedAt ??= this.timers.now();
    this.socket?.send(JSON.stringify({ control: { type: "message" }, header: { action: "PING" } }));
  }

  private releaseSocket(reason: string): void {
    const socket = this.socket;
    this.socket = undefined;
    this.cancelPing();
    this.believe();
    this.endCheck();
    for (const pending of this.pending.values()) pending.sentAt = undefined;
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close(1000, reason);
  }

  private dropSocket(reason: string, soonMs?: number): void {
    this.failed = this.at?.endpoint;
    this.soonMs = soonMs;
    this.releaseSocket(reason);
    this.waitAndReconnect();
  }

  private waitAndReconnect(): void {
    this.phase = "waiting";
    this.lostAt ??= this.timers.now();
    const isKept = this.timers.now() - this.lostAt < limits.SESSION_KEPT_MS;
    const mostMs = isKept ? limits.RECONNECT_KEPT_WAIT_MS_MAX : limits.RECONNECT_WAIT_MS_MAX;
    // At random, so that a restarted server does not meet all its clients at once.
    const firstMs = limits.RECONNECT_WAIT_MS * (1 + this.timers.random());
    const doubledMs = Math.min(firstMs * 2 ** this.waits, mostMs);
    const isHasty = this.soonMs === undefined && this.hasty > 0;
    const hastyMs = limits.RECONNECT_SOON_MS * (0.5 + this.timers.random());
    const waitMs = this.soonMs ?? (isHasty ? hastyMs : doubledMs);
    if (isHasty) this.hasty -= 1;
    else if (this.soonMs === undefined) this.waits += 1;
    this.soonMs = undefined;
    this.attempt += 1;
    this.cancelWait = this.timers.after(waitMs, () => void this.reconnect());
    this.emit("reconnecting", { attempt: this.attempt, waitMs });
  }

  private async reconnect(): Promise<void> {
    try {
      await this.locate();
      const moved = this.at?.url !== this.sessionAt;
      // Another node knows nothing of the session.
      const renewed = moved ? await this.openSession() : await this.resumeSession();
      if (moved) this.emit("moved", { node: this.node });
      if (renewed) this.emit("renewed", renewed);
      else this.emit("resumed", undefined);
    } catch (thrown) {
      if ((this.phase as Phase) === "closed") return;
      this.note(thrown);
      const error = asStraitError(thrown);
      if (error.code === 401 || error.code === 403) this.finish(error);
      else this.waitAndReconnect();
    }
  }

  private failPending(error: StraitError): void {
    const waiting = [...this.pending.values()];
    this.pending.clear();
    for (const pending of waiting) {
      pending.cancelTimeout();
      pending.reject(error);
    }
  }

  private finish(error: StraitError | undefined): void {
    if (this.phase === "closed") return;
    this.phase = "closed";
    this.cancelWait();
    this.cancelConnect();
    this.releaseSocket("left");
    this.failPending(error ?? closedError());
    this.emit("closed", { error });
  }
}

function closedError(): StraitError {
  return new StraitError("closed", "the connection to the server was closed");
}
