/** Just enough of WebRTC for the negotiation: SDP is a JSON list of m-lines. */
export interface FakeLine {
  mid: string;
  kind: string;
  direction: string;
}

export class FakeTrack extends EventTarget {
  enabled = true;
  stopped = false;
  readyState = "live";
  static count = 0;
  readonly id = `track-${(FakeTrack.count += 1)}`;

  /** What was asked of its device. */
  constraints: object = {};

  constructor(
    readonly kind: string,
    public settings: { width?: number; height?: number; deviceId?: string } = {},
  ) {
    super();
  }

  stop(): void {
    this.stopped = true;
    this.readyState = "ended";
  }

  getSettings(): object {
    return this.settings;
  }

  getConstraints(): object {
    return this.constraints;
  }

  async applyConstraints(constraints: object): Promise<void> {
    this.constraints = constraints;
  }
}

export class FakeStream {
  constructor(private readonly tracks: FakeTrack[] = []) {}

  getTracks(): FakeTrack[] {
    return this.tracks;
  }
}

export interface FakeEncoding {
  rid?: string;
  active?: boolean;
  maxBitrate?: number;
  maxFramerate?: number;
  scaleResolutionDownBy?: number;
}

export interface FakeSender {
  track: FakeTrack | null;
  encodings: FakeEncoding[];
  replaceTrack(track: FakeTrack | null): Promise<void>;
  getParameters(): { encodings: FakeEncoding[] };
  setParameters(parameters: { encodings: FakeEncoding[] }): Promise<void>;
}

export class FakeTransceiver {
  mid: string | null = null;
  currentDirection: string | null = null;
  stopped = false;
  readonly receiver: { track: FakeTrack; getSynchronizationSources(): [] };
  readonly sender: FakeSender;

  constructor(
    kind: string,
    track: FakeTrack | null,
    public direction: string,
    encodings: FakeEncoding[] = [],
  ) {
    this.receiver = { track: new FakeTrack(kind), getSynchronizationSources: () => [] };
    const sender: FakeSender = {
      track,
      encodings,
      replaceTrack: async (next) => void (sender.track = next),
      getParameters: () => ({ encodings: sender.encodings.map((each) => ({ ...each })) }),
      setParameters: async (parameters) => void (sender.encodings = parameters.encodings),
    };
    this.sender = sender;
  }

  stop(): void {
    this.stopped = true;
  }
}

export class FakeConnection extends EventTarget {
  static all: FakeConnection[] = [];
  /** Called when an answer was applied. */
  static onAnswer: (connection: FakeConnection) => void = () => {};
  /** What the answer named. */
  candidates: string[] = [];
  connectionState = "new";
  signalingState = "stable";
  localDescription: { type: string; sdp: string } | null = null;
  restarts = 0;
  /** What it measures, by id. */
  stats = new Map<string, object>();
  readonly transceivers: FakeTransceiver[] = [];

  constructor(readonly configuration: RTCConfiguration = {}) {
    super();
    FakeConnection.all.push(this);
  }

  static get last(): FakeConnection {
    const last = FakeConnection.all.at(-1);
    if (!last) throw new Error("no connection was made");
    return last;
  }

  addTransceiver(
    trackOrKind: FakeTrack | string,
    { direction, sendEncodings = [] }: { direction: string; sendEncodings?: FakeEncoding[] },
  ): FakeTransceiver {
    const track = typeof trackOrKind === "string" ? null : trackOrKind;
    const kind = typeof trackOrKind === "string" ? trackOrKind : trackOrKind.kind;
    const transceiver = new FakeTransceiver(kind, track, direction, sendEncodings);
    this.transceivers.push(transceiver);
    return transceiver;
  }

  async getStats(): Promise<Map<string, object>> {
    return this.stats;
  }

  async createOffer({ iceRestart }: { iceRestart?: boolean } = {}): Promise<object> {
    if (iceRestart) this.restarts += 1;
    return { type: "offer" };
  }

  async setLocalDescription({ type }: { type: string }): Promise<void> {
    if (type === "rollback") {
      this.signalingState = "stable";
      for (const each of this.transceivers) if (each.currentDirection === null) each.mid = null;
      return;
    }
    this.transceivers.forEach((each, index) => (each.mid ??= String(index)));
    this.signalingState = "have-local-offer";
    const lines = this.transceivers.map(({ mid, direction, receiver }) => ({
      mid,
      kind: receiver.track.kind,
      direction,
    }));
    this.localDescription = { type, sdp: JSON.stringify(lines) };
  }

  async setRemoteDescription({ sdp }: { sdp: string }): Promise<void> {
    this.signalingState = "stable";
    const opposite = new Map([["recvonly", "sendonly"], ["sendonly", "recvonly"]]);
    // Candidates may follow, each on a line of its own.
    const [lines = "[]", ...candidates] = sdp.split("\r\n");
    for (const { mid, direction } of JSON.parse(lines) as FakeLine[]) {
      const own = this.transceivers.find((each) => each.mid === mid);
      if (own) own.currentDirection = opposite.get(direction) ?? "inactive";
    }
    this.candidates = candidates;
    FakeConnection.onAnswer(this);
  }

  setState(state: string): void {
    this.connectionState = state;
    this.dispatchEvent(new Event("connectionstatechange"));
  }

  close(): void {
    this.connectionState = "closed";
  }
}

/** The answer of a relay that takes everything, or all but the mids in `rejected`. */
export function fakeAnswer(offer: string, rejected: string[] = []): string {
  const opposite = new Map([["recvonly", "sendonly"], ["sendonly", "recvonly"]]);
  const lines = (JSON.parse(offer) as FakeLine[]).map((line) => ({
    ...line,
    direction: rejected.includes(line.mid)
      ? "inactive"
      : (opposite.get(line.direction) ?? "inactive"),
  }));
  return JSON.stringify(lines);
}
