import { type ConnectionType, connectionTypeOf } from "./connectiontype.js";
import { StraitError } from "./errors.js";
import { type Grade, gradeOf } from "./grade.js";
import type { JsonRtc } from "./jsonrtc.js";
import * as limits from "./limits.js";
import type { ConnectAnswer, ScopeAnswer, ScopeRequest } from "./protocol.js";
import { type Entries, entriesOf, ms, number, selectedPair, sum } from "./report.js";
import type { Timers } from "./timers.js";

/** How one direction fared. */
export interface DirectionFigures {
  bitrateBps: number;
  packets: number;
  /** Share of packets lost, 0 to 1; undefined when none went this way. */
  lossRatio: number | undefined;
  jitterMs: number | undefined;
}

/** How good the line to the node is for a call. */
export interface Connectivity {
  /** By the worst of the figures below; `bad` when no media gets through. */
  grade: Grade;
  /** Which ways media gets through. */
  transports: Transports;
  /** The way that was measured: UDP where it works. */
  connectionType: ConnectionType;
  /** From the offer until the media path was up. */
  connectMs: number | undefined;
  /** To the node and back, of media. */
  roundTripTimeMs: number | undefined;
  /** A request over the WebSocket and its answer. */
  signallingMs: number;
  /** The worse of the two directions. */
  lossRatio: number | undefined;
  jitterMs: number | undefined;
  /** To the node, and what came back from it. */
  up: DirectionFigures;
  down: DirectionFigures;
}

/** Which ways media gets through. */
export interface Transports {
  udp: boolean;
  tcp: boolean;
  /** TURN over TLS; undefined where it was not tried, as another way works or the node has none. */
  tls: boolean | undefined;
}

/** A picture that is made up for the test. */
export interface Synthetic {
  track: MediaStreamTrack;
  stop(): void;
}

/** @internal what a test needs besides its link */
export interface ConnectivitySettings {
  scope: string;
  measureMs: number;
  timers: Timers;
  synthesize(): Synthetic;
}

/**
 * Sends a made-up picture to the node and back over a connected link, and sees how it fares; the
 * other transport is then only tried, and TURN over TLS where neither works. Nobody else learns of it.
 */
export async function measureConnectivity(
  link: JsonRtc,
  answer: ConnectAnswer,
  settings: ConnectivitySettings,
): Promise<Connectivity> {
  const synthetic = settings.synthesize();
  try {
    const attempt = async (transport: Transport, measures: boolean): Promise<Attempt> => {
      const loop = new Loop(link, answer, settings, synthetic, transport);
      try {
        const isUp = await loop.open();
        const figures = isUp && measures ? await loop.measure() : undefined;
        return { isUp, figures, connectMs: loop.connectMs, signallingMs: loop.signallingMs };
      } finally {
        await loop.close();
      }
    };
    const udp = await attempt("udp", true);
    const tcp = await attempt("tcp", !udp.isUp);
    const isBlocked = !udp.isUp && !tcp.isUp && (answer.iceServers ?? []).some(isTls);
    const tls = isBlocked ? await attempt("tls", true) : undefined;
    const transports = { udp: udp.isUp, tcp: tcp.isUp, tls: tls?.isUp };
    return summed(udp.isUp ? udp : (tls ?? tcp), transports, udp.signallingMs);
  } finally {
    synthetic.stop();
  }
}

interface Attempt {
  isUp: boolean;
  figures: Figures | undefined;
  connectMs: number | undefined;
  signallingMs: number;
}

type Transport = keyof Transports;

interface Figures {
  connectionType: ConnectionType;
  roundTripTimeMs: number | undefined;
  up: DirectionFigures;
  down: DirectionFigures;
}

/** One media path over one transport, from this browser to the node and back. */
class Loop {
  connectMs: number | undefined;
  signallingMs = 0;
  private connection: RTCPeerConnection | undefined;
  private subsession: string | undefined;

  constructor(
    private readonly link: JsonRtc,
    private readonly answer: ConnectAnswer,
    private readonly settings: ConnectivitySettings,
    private readonly synthetic: Synthetic,
    private readonly transport: Transport,
  ) {}

  /** Whether media gets through. */
  async open(): Promise<boolean> {
    const { timers } = this.settings;
    const isByTls = this.transport === "tls";
    const connection = new RTCPeerConnection({
      // What goes by TURN over TLS shows nothing of the other ways, and they nothing of it.
      iceServers: (this.answer.iceServers ?? []).filter((server) => isTls(server) === isByTls),
      iceTransportPolicy: isByTls ? "relay" : "all",
      bundlePolicy: "max-bundle",
    });
    this.connection = connection;
    const sending = connection.addTransceiver(this.synthetic.track, {
      direction: "sendonly",
      streams: [new MediaStream([this.synthetic.track])],
      sendEncodings: [{ maxBitrate: limits.CONNECTIVITY_BPS }],
    });
    const receiving = connection.addTransceiver("video", { direction: "recvonly" });
    await connection.setLocalDescription(await connection.createOffer());
    const beganMs = timers.now();
    const started = await this.exchange({
      alone: true,
      sdp: connection.localDescription?.sdp ?? "",
      publish: [{ mid: sending.mid ?? "", source: "other", name: "connectivity test" }],
    });
    this.signallingMs = timers.now() - beganMs;
    const sdp = onlyBy(this.transport, started.sdp ?? "");
    if (sdp === undefined) return false;
    await connection.setRemoteDescription({ type: "answer", sdp });
    this.link.message(this.framed("COMPLETE"));
    const own = started.publications?.find(({ mid }) => mid === sending.mid)?.publication;
    if (own !== undefined) {
      await this.exchange({ subscribe: [{ mid: receiving.mid ?? "", publication: own }] });
    }
    const isUp = await this.connected(connection);
    if (isUp) this.connectMs = Math.round(timers.now() - beganMs);
    return isUp;
  }

  async measure(): Promise<Figures | undefined> {
    const { connection } = this;
    if (!connection) return undefined;
    await this.pause(limits.CONNECTIVITY_SETTLE_MS);
    const first = await entriesOf(connection);
    await this.pause(this.settings.measureMs);
    return figuresOf(first, await entriesOf(connection));
  }

  async close(): Promise<void> {
    this.connection?.close();
    if (this.subsession === undefined) return;
    await this.link.request(this.framed("SHUTDOWN")).catch(() => {});
  }

  private async exchange(payload: ScopeRequest): Promise<ScopeAnswer> {
    const isStart = this.subsession === undefined;
    const frame = await this.link.request({
      ...this.framed(isStart ? "START" : "UPDATE"),
      ...(isStart ? { target: this.settings.scope } : {}),
      payload,
    });
    this.subsession ??= frame.control.subsession_id ?? frame.control.correlation_id;
    return frame.payload as ScopeAnswer;
  }

  private framed(action: string) {
    return { action, packageType: "scope", subsession: this.subsession };
  }

  private connected(connection: RTCPeerConnection): Promise<boolean> {
    return new Promise((resolve) => {
      const look = () => {
        const { connectionState } = connection;
        if (connectionState === "connected") end(true);
        if (connectionState === "failed") end(false);
      };
      const end = (isUp: boolean) => {
        cancel();
        connection.removeEventListener("connectionstatechange", look);
        resolve(isUp);
      };
      const cancel = this.settings.timers.after(limits.CONNECTIVITY_CONNECT_MS, () => end(false));
      connection.addEventListener("connectionstatechange", look);
      look();
    });
  }

  private pause(forMs: number): Promise<void> {
    return new Promise((resolve) => this.settings.timers.after(forMs, resolve));
  }
}

function isTls({ urls }: RTCIceServer): boolean {
  return [urls].flat().some((url) => url.startsWith("turns:"));
}

/**
 * An answer whose candidates are of one transport; undefined when there is none. TURN speaks to
 * those of UDP.
 */
function onlyBy(transport: Transport, sdp: string): string | undefined {
  const lines = sdp.split("\r\n");
  const wanted = transport === "tls" ? "udp" : transport;
  const others = new RegExp(`^a=candidate:\\S+ \\d+ (?!${wanted} )`, "i");
  const kept = lines.filter((line) => !others.test(line));
  return kept.some((line) => line.startsWith("a=candidate:")) ? kept.join("\r\n") : undefined;
}

function figuresOf(first: Entries, last: Entries): Figures {
  const of = (type: string) => [...last.values()].filter((entry) => entry.type === type);
  const grown = (id: string, field: string) =>
    (number(last.get(id), field) ?? 0) - (number(first.get(id), field) ?? 0);
  const total = (type: string, field: string) => sum(of(type).map(({ id }) => grown(id, field)));
  const direction = (counted: string, bytes: string, packets: string, told: string) => {
    const elapsedMs = Math.max(
      0,
      ...of(counted).map(({ id, timestamp: at }) => at - (first.get(id)?.timestamp ?? at)),
    );
    const count = total(counted, packets);
    const lost = Math.max(0, total(told, "packetsLost"));
    // What was sent holds what was lost; what was received does not.
    const all = counted === "outbound-rtp" ? count : count + lost;
    const isTold = of(told).length > 0 && all > 0;
    return {
      bitrateBps: elapsedMs > 0 ? Math.round((8_000 * total(counted, bytes)) / elapsedMs) : 0,
      packets: count,
      lossRatio: isTold ? Math.min(1, lost / all) : undefined,
      jitterMs: largest(of(told).map((entry) => ms(number(entry, "jitter")))),
    };
  };
  const remotes = of("remote-inbound-rtp").map((entry) => number(entry, "roundTripTime"));
  const pair = selectedPair(last);
  return {
    connectionType: connectionTypeOf(last),
    roundTripTimeMs: ms(number(pair, "currentRoundTripTime") ?? largest(remotes)),
    up: direction("outbound-rtp", "bytesSent", "packetsSent", "remote-inbound-rtp"),
    down: direction("inbound-rtp", "bytesReceived", "packetsReceived", "inbound-rtp"),
  };
}

const NOTHING: DirectionFigures = {
  bitrateBps: 0, packets: 0, lossRatio: undefined, jitterMs: undefined,
};

function summed(
  { figures, connectMs }: Attempt,
  transports: Transports,
  signallingMs: number,
): Connectivity {
  const { up = NOTHING, down = NOTHING, roundTripTimeMs } = figures ?? {};
  const lossRatio = largest([up.lossRatio, down.lossRatio]);
  const jitterMs = largest([up.jitterMs, down.jitterMs]);
  // A path that carries nothing back is as good as none.
  const works = up.packets > 0 && down.packets > 0;
  const grade = works ? gradeOf({ lossRatio, jitterMs, roundTripTimeMs }) : undefined;
  return {
    grade: grade ?? "bad",
    transports,
    connectionType: figures?.connectionType ?? "none",
    connectMs,
    roundTripTimeMs,
    signallingMs: Math.round(signallingMs),
    lossRatio,
    jitterMs,
    up,
    down,
  };
}

function largest(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length > 0 ? Math.max(...known) : undefined;
}

/** A small picture that never stands still, so that an encoder has something to send. */
export function syntheticPicture(): Synthetic {
  const canvas = document.createElement("canvas");
  canvas.width = 480;
  canvas.height = 270;
  const context = canvas.getContext("2d");
  if (!context || typeof canvas.captureStream !== "function") {
    throw new StraitError("unsupported", "this browser cannot make up a picture to send");
  }
  const draw = () => {
    for (let count = 0; count < 40; count += 1) {
      const hue = Math.floor(Math.random() * 360);
      context.fillStyle = `hsl(${hue} 80% 50%)`;
      const [x, y] = [Math.random() * canvas.width, Math.random() * canvas.height];
      context.fillRect(x, y, 8 + Math.random() * 40, 8 + Math.random() * 40);
    }
  };
  draw();
  const [track] = canvas.captureStream().getVideoTracks();
  if (!track) throw new StraitError("unsupported", "this browser cannot make up a picture to send");
  const timer = setInterval(draw, 1_000 / 20);
  return {
    track,
    stop: () => {
      clearInterval(timer);
      track.stop();
    },
  };
}
