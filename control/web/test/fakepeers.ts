import { FakeTrack } from "./fakeconnection.js";

/** Connections between two browsers, as far as the SDK uses them. `up` false: nothing arrives any more. */
export class FakeNet {
  up = true;
  /** Connections that are not closed. */
  readonly peers: FakePeer[] = [];
  /** The browser gives no more. */
  full = false;
  /** Connections that were made, and those of them to send by. */
  get made(): number {
    return this.count;
  }
  attempts = 0;
  /** What each that was made was told. */
  readonly configurations: (RTCConfiguration | undefined)[] = [];
  private count = 0;

  /** Makes `new RTCPeerConnection` one of these. */
  install(): void {
    const made = (configuration?: RTCConfiguration) => {
      if (this.full) throw new Error("so many there are");
      const peer = new FakePeer(this, (this.count += 1));
      this.peers.push(peer);
      this.configurations.push(configuration);
      return peer;
    };
    Object.assign(globalThis, {
      RTCPeerConnection: function RTCPeerConnection(configuration?: RTCConfiguration) {
        return made(configuration);
      },
    });
  }
}

export class FakeReceiver {
  readonly track: FakeTrack;
  /** Pictures or packets that came. */
  came = 0;
  /** Sound that came, and how loud it is from now on. */
  energy = 0;
  level = 0;
  /** What is measured is told no earlier. */
  held: Promise<void> | undefined;

  constructor(readonly kind: string) {
    this.track = new FakeTrack(kind);
  }

  async getStats(): Promise<Map<string, object>> {
    await this.held;
    const { came, energy } = this;
    const counts = { framesDecoded: came, packetsReceived: came };
    const sound = { totalAudioEnergy: energy, totalSamplesDuration: came * 0.05 };
    const entry = { id: "in", type: "inbound-rtp", ...counts, ...sound };
    return new Map([["in", entry]]);
  }
}

class Line {
  mid: string | null = null;
  stopped = false;
  encodings: { active?: boolean }[] = [{}];
  readonly receiver: FakeReceiver;
  readonly sender = {
    track: undefined as FakeTrack | null | undefined,
    getParameters: () => ({ encodings: this.encodings.map((each) => ({ ...each })) }),
    setParameters: async (changed: { encodings: object[] }) => void (this.encodings = changed.encodings),
    replaceTrack: async (track: FakeTrack | null) => void (this.sender.track = track),
  };

  constructor(
    readonly kind: string,
    track?: FakeTrack,
  ) {
    this.receiver = new FakeReceiver(kind);
    this.sender.track = track;
  }

  stop(): void {
    this.stopped = true;
  }
}

export class FakeChannel extends EventTarget {
  readyState = "connecting";
  bufferedAmount = 0;
  other: FakeChannel | undefined;
  /** What was sent by it. */
  sent = 0;

  constructor(
    private readonly net: FakeNet,
    readonly label: string,
  ) {
    super();
  }

  close(): void {
    this.readyState = "closed";
  }

  send(data: string): void {
    const { other } = this;
    this.sent += 1;
    if (this.net.up) other?.dispatchEvent(Object.assign(new Event("message"), { data }));
  }
}

/** A candidate as browsers write it, each number another address. */
export function candidateLine(number: number): string {
  return `candidate:1 1 udp 2122260223 192.0.2.1 ${number} typ host generation 0`;
}

export class FakePeer extends EventTarget {
  signalingState = "stable";
  localDescription: { type: string; sdp: string } | null = null;
  readonly lines: Line[] = [];
  channel: FakeChannel | undefined;
  candidates = 0;
  closed = false;
  private other: FakePeer | undefined;

  constructor(
    private readonly net: FakeNet,
    private readonly id: number,
  ) {
    super();
  }

  createDataChannel(label: string): FakeChannel {
    this.net.attempts += 1;
    return (this.channel = new FakeChannel(this.net, label));
  }

  addTransceiver(track: FakeTrack): Line {
    const line = new Line(track.kind, track);
    this.lines.push(line);
    return line;
  }

  getTransceivers(): Line[] {
    return this.lines;
  }

  async addIceCandidate(): Promise<void> {
    this.candidates += 1;
  }

  /** Offers that were taken, and addresses that these named. */
  offers = 0;
  readonly named = new Set<string>();

  async setLocalDescription(): Promise<void> {
    const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    this.signalingState = type === "offer" ? "have-local-offer" : "stable";
    this.lines.forEach((line, index) => (line.mid ??= String(index)));
    const kinds = this.lines.map(({ kind }) => kind);
    this.localDescription = { type, sdp: JSON.stringify({ id: this.id, kinds }) };
    const candidate = { toJSON: () => ({ candidate: candidateLine(this.id), sdpMid: "0" }) };
    this.dispatchEvent(Object.assign(new Event("icecandidate"), { candidate }));
  }

  async setRemoteDescription({ type, sdp }: { type: string; sdp: string }): Promise<void> {
    // Candidates may follow, each on a line of its own.
    const [head = "", ...candidates] = sdp.split("\r\n");
    const { id, kinds } = JSON.parse(head) as { id: number; kinds: string[] };
    for (const each of candidates) this.named.add(each);
    this.other = this.net.peers.find((each) => each.id === id);
    if (type === "offer") {
      this.offers += 1;
      this.signalingState = "have-remote-offer";
      for (const [index, kind] of kinds.entries()) {
        const line = (this.lines[index] ??= new Line(kind));
        line.mid = String(index);
      }
      return;
    }
    this.signalingState = "stable";
    const { channel, other } = this;
    if (!channel || channel.other || !other || !this.net.up) return;
    const far = new FakeChannel(this.net, channel.label);
    [channel.other, far.other] = [far, channel];
    channel.readyState = far.readyState = "open";
    other.channel = far;
    other.dispatchEvent(Object.assign(new Event("datachannel"), { channel: far }));
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.net.peers.splice(this.net.peers.indexOf(this), 1);
    const other = this.channel?.other;
    // A closed end is heard of only where something gets through.
    if (other && this.net.up) other.dispatchEvent(new Event("close"));
  }
}
