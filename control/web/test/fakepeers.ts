import { FakeTrack } from "./fakeconnection.js";

/** Connections between two browsers, as far as the SDK uses them. `up` false: nothing arrives any more. */
export class FakeNet {
  up = true;
  /** Connections that are not closed. */
  readonly peers: FakePeer[] = [];
  /** Connections that were made to send by. */
  attempts = 0;
  private count = 0;

  /** Makes `new RTCPeerConnection` one of these. */
  install(): void {
    const made = () => {
      const peer = new FakePeer(this, (this.count += 1));
      this.peers.push(peer);
      return peer;
    };
    Object.assign(globalThis, {
      RTCPeerConnection: function RTCPeerConnection() {
        return made();
      },
    });
  }
}

export class FakeReceiver {
  readonly track: FakeTrack;
  /** Pictures or packets that came. */
  came = 0;

  constructor(readonly kind: string) {
    this.track = new FakeTrack(kind);
  }

  async getStats(): Promise<Map<string, object>> {
    const { came } = this;
    const entry = { id: "in", type: "inbound-rtp", framesDecoded: came, packetsReceived: came };
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

class Channel extends EventTarget {
  readyState = "connecting";
  other: Channel | undefined;

  constructor(private readonly net: FakeNet) {
    super();
  }

  send(data: string): void {
    const { other } = this;
    if (this.net.up) other?.dispatchEvent(Object.assign(new Event("message"), { data }));
  }
}

export class FakePeer extends EventTarget {
  signalingState = "stable";
  localDescription: { type: string; sdp: string } | null = null;
  readonly lines: Line[] = [];
  channel: Channel | undefined;
  candidates = 0;
  closed = false;
  private other: FakePeer | undefined;

  constructor(
    private readonly net: FakeNet,
    private readonly id: number,
  ) {
    super();
  }

  createDataChannel(): Channel {
    this.net.attempts += 1;
    return (this.channel = new Channel(this.net));
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

  async setLocalDescription(): Promise<void> {
    const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    this.signalingState = type === "offer" ? "have-local-offer" : "stable";
    this.lines.forEach((line, index) => (line.mid ??= String(index)));
    const kinds = this.lines.map(({ kind }) => kind);
    this.localDescription = { type, sdp: JSON.stringify({ id: this.id, kinds }) };
    const candidate = { toJSON: () => ({ candidate: "candidate:1", sdpMid: "0" }) };
    this.dispatchEvent(Object.assign(new Event("icecandidate"), { candidate }));
  }

  async setRemoteDescription({ type, sdp }: { type: string; sdp: string }): Promise<void> {
    const { id, kinds } = JSON.parse(sdp) as { id: number; kinds: string[] };
    this.other = this.net.peers.find((each) => each.id === id);
    if (type === "offer") {
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
    const far = new Channel(this.net);
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
