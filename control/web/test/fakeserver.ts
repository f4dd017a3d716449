import type { Frame } from "../sdk/frames.js";
import type { Socket } from "../sdk/jsonrtc.js";

// Node 18 has the class behind a flag only.
globalThis.CustomEvent ??= class<Detail> extends Event {
  readonly detail: Detail;

  constructor(type: string, { detail }: { detail: Detail }) {
    super(type);
    this.detail = detail;
  }
} as unknown as typeof CustomEvent;

/** One WebSocket as the client sees it, driven by `FakeServer`. */
export class FakeSocket implements Socket {
  readyState = 0;
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  closedByClient = false;

  constructor(private readonly server: FakeServer) {}

  send(text: string): void {
    if (this.readyState === 1) this.server.onFrame(this, JSON.parse(text) as Frame);
  }

  close(): void {
    this.closedByClient = true;
    this.readyState = 3;
  }

  accept(): void {
    this.readyState = 1;
    this.onopen?.(undefined as never);
  }

  deliver(frame: unknown): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  break(): void {
    this.readyState = 3;
    this.onclose?.({ code: 1006, reason: "" });
  }
}

/** A server that keeps the rules of docs/reference/jsonrtc.md, for tests of the client only. */
export class FakeServer {
  readonly sockets: FakeSocket[] = [];
  /** Every frame that arrived, over all sockets. */
  readonly frames: Frame[] = [];
  /** Frames with a sequence, each once, as a server acts on them. */
  readonly accepted: Frame[] = [];
  reachable = true;
  /** Requests are answered by this; undefined leaves them open. */
  answer: (
    frame: Frame,
  ) => { payload?: unknown; error?: number; location?: string } | undefined = () => ({});
  token: string | undefined;
  sessions = 0;
  private sessionId = "";
  private sent = 0;
  received = 0;
  private retained: { sequence: number; frame: unknown }[] = [];

  readonly open = (): Socket => {
    const socket = new FakeSocket(this);
    this.sockets.push(socket);
    setImmediate(() => (this.reachable ? socket.accept() : socket.break()));
    return socket;
  };

  get socket(): FakeSocket {
    const last = this.sockets[this.sockets.length - 1];
    if (!last) throw new Error("no socket was opened");
    return last;
  }

  /** The session is forgotten, as after a restart of the server. */
  forget(): void {
    this.sessionId = "forgotten";
  }

  /** Requests and messages with this action. */
  actions(action: string): Frame[] {
    return this.accepted.filter((frame) => frame.header.action === action);
  }

  notify(payload: unknown, subsession?: string): void {
    this.push({ type: "message", subsession_id: subsession }, { action: "NOTIFY" }, payload);
  }

  /** Sends a frame of the series; without a live socket it is only retained. */
  push(control: object, header: object, payload: unknown = {}): void {
    const sequence = ++this.sent;
    const frame = {
      control: { ...control, sequence, session_id: this.sessionId, ack_sequence: this.received },
      header,
      payload,
    };
    this.retained.push({ sequence, frame });
    if (this.socket.readyState === 1) this.socket.deliver(frame);
  }

  onFrame(socket: FakeSocket, frame: Frame): void {
    this.frames.push(frame);
    const { control, header } = frame;
    if (header.action === "CONNECT") return this.onConnect(socket, frame);
    if (header.action === "PING") {
      return socket.deliver({ control: { type: "message" }, header: { action: "PONG" } });
    }
    if (control.sequence === undefined) return;
    if (control.sequence !== this.received + 1) return;
    this.received = control.sequence;
    this.accepted.push(frame);
    if (control.type !== "request") return;
    const reply = this.answer(frame);
    if (!reply) return;
    const correlation = { correlation_id: `c${control.sequence}` };
    if (reply.error !== undefined) {
      const { error, location } = reply;
      const refused = { action: header.action, error_code: error, reason: "refused", location };
      socket.deliver({ control: { type: "error", ...correlation }, header: refused });
      return;
    }
    const subsession =
      header.action === "START" ? `c${control.sequence}` : control.subsession_id;
    this.push(
      { type: "response", message_state: "final", subsession_id: subsession, ...correlation },
      { action: header.action },
      reply.payload,
    );
  }

  private onConnect(socket: FakeSocket, { control, header }: Frame): void {
    if (this.token !== undefined && header.token !== this.token) {
      const refused = { action: "CONNECT", error_code: 401, reason: "token is wrong" };
      socket.deliver({ control: { type: "error", correlation_id: "c1" }, header: refused });
      return;
    }
    const { cslr = 0, cslw = 0, csuw = 0 } = header;
    if (control.session_id !== undefined && control.session_id === this.sessionId) {
      if (this.received >= cslw && this.received <= csuw) {
        socket.deliver({
          control: { type: "response", message_state: "final", session_id: this.sessionId },
          header: { action: "CONNECT", sslr: this.received },
        });
        for (const kept of this.retained) if (kept.sequence > cslr) socket.deliver(kept.frame);
        return;
      }
    }
    this.sessions += 1;
    this.sessionId = `session-${this.sessions}`;
    this.sent = 0;
    this.retained = [];
    this.received = control.sequence ?? 0;
    const answer = { type: "response", message_state: "final" };
    const payload = { peer: `p-own-${this.sessions}`, application: "test", iceServers: [] };
    if (control.sequence !== undefined) {
      this.push({ ...answer, correlation_id: "c1" }, { action: "CONNECT" }, payload);
      return;
    }
    const outside = { ...answer, session_id: this.sessionId };
    socket.deliver({ control: outside, header: { action: "CONNECT" }, payload });
  }
}
