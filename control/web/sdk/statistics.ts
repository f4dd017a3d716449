import { type ConnectionType, connectionTypeOf } from "./connectiontype.js";
import { type Grade, gradeOf, worst } from "./grade.js";
import type { MediaSession } from "./media.js";
import type { NodeFigures } from "./nodefigures.js";
import type { Publication } from "./peers.js";
import type { LocalPublication } from "./publication.js";
import { type Entries, type Entry, entriesOf, ms, number, selectedPair, sum } from "./report.js";

/** How a call fares. Rates and ratios are those since the previous look. */
export interface Statistics {
  connection: RTCPeerConnectionState;
  connectionType: ConnectionType;
  /** The worst of all streams; undefined while nothing is known. */
  grade: Grade | undefined;
  /** Offers sent since the scope was joined. */
  offers: number;
  /** To the relay and back, also while media goes directly. */
  roundTripTimeMs: number | undefined;
  sendBitrateBps: number;
  receiveBitrateBps: number;
  /** What the browser believes that the uplink carries. */
  availableSendBitrateBps: number | undefined;
  publications: PublicationStatistics[];
  subscriptions: SubscriptionStatistics[];
}

/** What is measured of every stream, sent or received; undefined is not known. */
export interface StreamStatistics {
  bitrateBps: number;
  /** Packets lost since the stream began, as its receiver counts them. */
  packetsLost: number;
  /** Share of packets lost, 0 to 1. */
  lossRatio: number | undefined;
  jitterMs: number | undefined;
  /** To the relay, or, of what goes directly, to the other peer, and back. */
  roundTripTimeMs: number | undefined;
  /**
   * What waits on the line. Of a publication: one way, as the relay measures it, while
   * `watchStatistics` or `watchQuality` is on. Of a subscription: by how much the round trip
   * exceeds the shortest one seen on this connection, so both ways together.
   */
  queueDelayMs: number | undefined;
  /** Of a picture. */
  framesPerSecond: number | undefined;
  frameWidth: number | undefined;
  frameHeight: number | undefined;
  /** Undefined while nothing is known of it, or nothing is sent because nobody wants it. */
  grade: Grade | undefined;
}

/** A stream that this client sends; loss and jitter as the relay sees them. */
export interface PublicationStatistics extends StreamStatistics {
  publication: LocalPublication;
  /** RTP streams sent: one, or one per simulcast layer. */
  streams: number;
  packetsSent: number;
  /** Why the picture is smaller than the source: `cpu`, `bandwidth`, `none`. */
  limitedBy: string | undefined;
}

/** A stream that this client receives. */
export interface SubscriptionStatistics extends StreamStatistics {
  publication: Publication;
  packetsReceived: number;
  /** What the relay takes away for want of bandwidth; known as `queueDelayMs` of a publication is. */
  heldBack: "nothing" | "lowered" | "paused" | undefined;
  framesDecoded: number | undefined;
  framesDropped: number | undefined;
  freezeCount: number | undefined;
  freezeDurationMs: number | undefined;
  /** Grows while there is sound (W3C webrtc-stats `totalAudioEnergy`). */
  totalAudioEnergy: number | undefined;
}

/** Turns reports into `Statistics`; remembers the previous report for rates. */
export class StatisticsReader {
  private previous: Entries = new Map();
  private connection: RTCPeerConnection | undefined;
  private roundTripLeastMs = Number.POSITIVE_INFINITY;

  async read(
    session: MediaSession,
    offersBefore: number,
    node: NodeFigures,
    now: number,
  ): Promise<Statistics> {
    const { connection } = session;
    const relayed = await entriesOf(connection);
    const inbound = of(relayed, "inbound-rtp");
    const outbound = of(relayed, "outbound-rtp");
    const pair = selectedPair(relayed);
    const roundTripTimeMs = roundTripOf(relayed);
    const entries = new Map(relayed);
    // What goes past the relay has reports of its own.
    const add = async (direct: RTCRtpSender | RTCRtpReceiver): Promise<Entries> => {
      // A connection that was closed meanwhile has nothing to say.
      const found = await entriesOf(direct, "direct ").catch((): Entries => new Map());
      for (const [id, entry] of found) entries.set(id, entry);
      return found;
    };
    if (this.connection !== connection) this.roundTripLeastMs = Number.POSITIVE_INFINITY;
    this.connection = connection;
    this.roundTripLeastMs = Math.min(this.roundTripLeastMs, roundTripTimeMs ?? Infinity);
    const publications = [];
    for (const { publication, transceiver } of session.uplinks) {
      if (!publication) continue;
      const { directly } = publication;
      const own = directly
        ? of(await add(directly), "outbound-rtp")
        : outbound.filter((entry) => entry.mid === transceiver.mid);
      publications.push(this.publication(publication, own, entries, node, now));
    }
    const subscriptions = [];
    for (const { bound, transceiver } of session.slots) {
      if (!bound) continue;
      const { mid, receiver } = transceiver;
      const direct = bound.directly && (await add(bound.directly));
      const own = direct
        ? of(direct, "inbound-rtp")[0]
        : inbound.find((entry) => entry.mid === mid || entry.trackIdentifier === receiver.track.id);
      const connectionMs = direct ? roundTripOf(direct) : roundTripTimeMs;
      subscriptions.push(this.subscription(bound, own, connectionMs, node, now));
    }
    const grades = [...publications, ...subscriptions].map(({ grade }) => grade);
    const isUp = connection.connectionState === "connected";
    const way = session.isDirect ? "p2p" : connectionTypeOf(relayed);
    const all = [...entries.values()];
    const sent = all.filter(({ type }) => type === "outbound-rtp");
    const received = all.filter(({ type }) => type === "inbound-rtp");
    const statistics: Statistics = {
      connection: connection.connectionState,
      connectionType: isUp ? way : "none",
      grade: isUp ? worst([...grades, gradeOf({ roundTripTimeMs })]) : "bad",
      offers: offersBefore + session.offers,
      roundTripTimeMs,
      sendBitrateBps: sum(sent.map((entry) => this.bitrate(entry, "bytesSent"))),
      receiveBitrateBps: sum(received.map((entry) => this.bitrate(entry, "bytesReceived"))),
      availableSendBitrateBps: number(pair, "availableOutgoingBitrate"),
      publications,
      subscriptions,
    };
    this.previous = entries;
    return statistics;
  }

  private publication(
    publication: LocalPublication,
    own: Entry[],
    entries: Entries,
    node: NodeFigures,
    now: number,
  ): PublicationStatistics {
    const largest = [...own].sort(
      (left, right) => (number(right, "frameHeight") ?? 0) - (number(left, "frameHeight") ?? 0),
    )[0];
    const remotes = own.map((entry) => entries.get(entry.remoteId ?? ""));
    const remote = entries.get(largest?.remoteId ?? "");
    const limitedBy = largest?.["qualityLimitationReason"];
    const told = node.ofPublication(publication.id, now);
    const bitrateBps = sum(own.map((entry) => this.bitrate(entry, "bytesSent")));
    const figures = {
      lossRatio: number(remote, "fractionLost") ?? told.lossRatio,
      jitterMs: ms(number(remote, "jitter")) ?? told.jitterMs,
      roundTripTimeMs: ms(number(remote, "roundTripTime")),
      queueDelayMs: told.queueDelayMs,
      framesPerSecond: number(largest, "framesPerSecond"),
    };
    return {
      publication,
      ...figures,
      streams: own.length,
      bitrateBps,
      packetsSent: sum(own.map((entry) => number(entry, "packetsSent") ?? 0)),
      packetsLost: Math.max(0, sum(remotes.map((each) => number(each, "packetsLost") ?? 0))),
      frameWidth: number(largest, "frameWidth"),
      frameHeight: number(largest, "frameHeight"),
      limitedBy: typeof limitedBy === "string" ? limitedBy : undefined,
      grade: bitrateBps > 0 ? gradeOf(gradable(publication, figures)) : undefined,
    };
  }

  private subscription(
    publication: Publication,
    own: Entry | undefined,
    connectionMs: number | undefined,
    node: NodeFigures,
    now: number,
  ): SubscriptionStatistics {
    const received = this.delta(own, "packetsReceived");
    const lost = Math.max(0, this.delta(own, "packetsLost"));
    const told = node.ofSubscription(publication.id, now);
    const bitrateBps = own ? this.bitrate(own, "bytesReceived") : 0;
    const figures = {
      lossRatio: received + lost > 0 ? lost / (received + lost) : undefined,
      jitterMs: ms(number(own, "jitter")),
      roundTripTimeMs: connectionMs ?? told?.roundTripTimeMs,
      // What is known of the shortest one is the relay's.
      queueDelayMs: publication.directly
        ? undefined
        : connectionMs && round(connectionMs - this.roundTripLeastMs),
      framesPerSecond: number(own, "framesPerSecond"),
    };
    const grades = [bitrateBps > 0 ? gradeOf(gradable(publication, figures)) : undefined];
    if (told?.heldBack === "paused") grades.push("bad");
    if (told?.heldBack === "lowered") grades.push("average");
    return {
      publication,
      ...figures,
      bitrateBps,
      packetsReceived: number(own, "packetsReceived") ?? 0,
      packetsLost: Math.max(0, number(own, "packetsLost") ?? 0),
      heldBack: told?.heldBack,
      framesDecoded: number(own, "framesDecoded"),
      framesDropped: number(own, "framesDropped"),
      frameWidth: number(own, "frameWidth"),
      frameHeight: number(own, "frameHeight"),
      freezeCount: number(own, "freezeCount"),
      freezeDurationMs: ms(number(own, "totalFreezesDuration")),
      totalAudioEnergy: number(own, "totalAudioEnergy"),
      grade: worst(grades),
    };
  }

  private delta(entry: Entry | undefined, field: string): number {
    if (!entry) return 0;
    return (number(entry, field) ?? 0) - (number(this.previous.get(entry.id), field) ?? 0);
  }

  private bitrate(entry: Entry, field: string): number {
    const before = this.previous.get(entry.id);
    const elapsedMs = entry.timestamp - (before?.timestamp ?? entry.timestamp);
    if (elapsedMs <= 0) return 0;
    return Math.max(0, Math.round((this.delta(entry, field) * 8_000) / elapsedMs));
  }
}

function of(entries: Entries, type: string): Entry[] {
  return [...entries.values()].filter((entry) => entry.type === type);
}

/** In milliseconds. Not every browser tells it of the pair. */
function roundTripOf(entries: Entries): number | undefined {
  const pair = number(selectedPair(entries), "currentRoundTripTime");
  return ms(pair ?? number(of(entries, "remote-inbound-rtp")[0], "roundTripTime"));
}

/** Only of a camera that is on can one say how often its picture should change. */
function gradable<Figures extends { framesPerSecond: number | undefined }>(
  { source, kind, muted }: Publication | LocalPublication,
  figures: Figures,
): Figures {
  if (kind === "video" && source === "camera" && !muted) return figures;
  return { ...figures, framesPerSecond: undefined };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
