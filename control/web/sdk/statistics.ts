import type { MediaSession } from "./media.js";
import type { Publication } from "./peers.js";
import type { LocalPublication } from "./publication.js";

/** What the browser measures, condensed. Rates and ratios are those since the previous call. */
export interface Statistics {
  connection: RTCPeerConnectionState;
  /** Offers sent since the scope was joined. */
  offers: number;
  /** To the relay and back. */
  roundTripTimeMs: number | undefined;
  sendBitrateBps: number;
  receiveBitrateBps: number;
  /** What the browser believes that the uplink carries. */
  availableSendBitrateBps: number | undefined;
  publications: PublicationStatistics[];
  subscriptions: SubscriptionStatistics[];
}

export interface PublicationStatistics {
  publication: LocalPublication;
  /** RTP streams sent: one, or one per simulcast layer. */
  streams: number;
  bitrateBps: number;
  packetsSent: number;
  /** Share of packets that the relay missed, 0 to 1. */
  lossRatio: number | undefined;
  jitterMs: number | undefined;
  roundTripTimeMs: number | undefined;
  framesPerSecond: number | undefined;
  frameWidth: number | undefined;
  frameHeight: number | undefined;
  /** Why the picture is smaller than the source: `cpu`, `bandwidth`, `none`. */
  limitedBy: string | undefined;
}

export interface SubscriptionStatistics {
  publication: Publication;
  bitrateBps: number;
  packetsReceived: number;
  packetsLost: number;
  /** Share of packets lost, 0 to 1. */
  lossRatio: number | undefined;
  jitterMs: number | undefined;
  framesPerSecond: number | undefined;
  framesDecoded: number | undefined;
  framesDropped: number | undefined;
  frameWidth: number | undefined;
  frameHeight: number | undefined;
  freezeCount: number | undefined;
  freezeDurationMs: number | undefined;
  /** Grows while there is sound (W3C webrtc-stats `totalAudioEnergy`). */
  totalAudioEnergy: number | undefined;
}

/** The fields that browsers agree on; the DOM library knows only a part of them. */
interface Entry {
  id: string;
  type: string;
  timestamp: number;
  mid?: string;
  trackIdentifier?: string;
  remoteId?: string;
  active?: boolean;
  [field: string]: unknown;
}

/** Turns reports into `Statistics`; remembers the previous report for rates. */
export class StatisticsReader {
  private previous = new Map<string, Entry>();

  async read(session: MediaSession, offersBefore: number): Promise<Statistics> {
    const entries = new Map<string, Entry>();
    const report = await session.connection.getStats();
    report.forEach((entry: Entry) => entries.set(entry.id, entry));
    const all = [...entries.values()];
    const inbound = all.filter((entry) => entry.type === "inbound-rtp");
    const outbound = all.filter((entry) => entry.type === "outbound-rtp");
    const pair = all.find((entry) => isSelectedPair(entry, entries));
    const statistics: Statistics = {
      connection: session.connection.connectionState,
      offers: offersBefore + session.offers,
      roundTripTimeMs: ms(number(pair, "currentRoundTripTime")),
      sendBitrateBps: sum(outbound.map((entry) => this.bitrate(entry, "bytesSent"))),
      receiveBitrateBps: sum(inbound.map((entry) => this.bitrate(entry, "bytesReceived"))),
      availableSendBitrateBps: number(pair, "availableOutgoingBitrate"),
      publications: [],
      subscriptions: [],
    };
    for (const { publication, transceiver } of session.uplinks) {
      if (!publication) continue;
      const own = outbound.filter((entry) => entry.mid === transceiver.mid);
      statistics.publications.push(this.publication(publication, own, entries));
    }
    for (const { bound, transceiver } of session.slots) {
      if (!bound) continue;
      const { mid, receiver } = transceiver;
      const own = inbound.find(
        (entry) => entry.mid === mid || entry.trackIdentifier === receiver.track.id,
      );
      statistics.subscriptions.push(this.subscription(bound, own));
    }
    this.previous = entries;
    return statistics;
  }

  private publication(
    publication: LocalPublication,
    own: Entry[],
    entries: Map<string, Entry>,
  ): PublicationStatistics {
    const largest = [...own].sort(
      (left, right) => (number(right, "frameHeight") ?? 0) - (number(left, "frameHeight") ?? 0),
    )[0];
    const remote = entries.get(largest?.remoteId ?? "");
    const limitedBy = largest?.["qualityLimitationReason"];
    return {
      publication,
      streams: own.length,
      bitrateBps: sum(own.map((entry) => this.bitrate(entry, "bytesSent"))),
      packetsSent: sum(own.map((entry) => number(entry, "packetsSent") ?? 0)),
      lossRatio: number(remote, "fractionLost"),
      jitterMs: ms(number(remote, "jitter")),
      roundTripTimeMs: ms(number(remote, "roundTripTime")),
      framesPerSecond: number(largest, "framesPerSecond"),
      frameWidth: number(largest, "frameWidth"),
      frameHeight: number(largest, "frameHeight"),
      limitedBy: typeof limitedBy === "string" ? limitedBy : undefined,
    };
  }

  private subscription(publication: Publication, own: Entry | undefined): SubscriptionStatistics {
    const received = this.delta(own, "packetsReceived");
    const lost = Math.max(0, this.delta(own, "packetsLost"));
    return {
      publication,
      bitrateBps: own ? this.bitrate(own, "bytesReceived") : 0,
      packetsReceived: number(own, "packetsReceived") ?? 0,
      packetsLost: number(own, "packetsLost") ?? 0,
      lossRatio: received + lost > 0 ? lost / (received + lost) : undefined,
      jitterMs: ms(number(own, "jitter")),
      framesPerSecond: number(own, "framesPerSecond"),
      framesDecoded: number(own, "framesDecoded"),
      framesDropped: number(own, "framesDropped"),
      frameWidth: number(own, "frameWidth"),
      frameHeight: number(own, "frameHeight"),
      freezeCount: number(own, "freezeCount"),
      freezeDurationMs: ms(number(own, "totalFreezesDuration")),
      totalAudioEnergy: number(own, "totalAudioEnergy"),
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

function isSelectedPair(entry: Entry, entries: Map<string, Entry>): boolean {
  if (entry.type !== "candidate-pair") return false;
  for (const other of entries.values()) {
    if (other.type !== "transport") continue;
    if (other["selectedCandidatePairId"] !== undefined) {
      return other["selectedCandidatePairId"] === entry.id;
    }
  }
  // Firefox before it had a transport entry marks the pair itself.
  return entry["selected"] === true || entry["nominated"] === true;
}

function number(entry: Entry | undefined, field: string): number | undefined {
  const value = entry?.[field];
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

function ms(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.round(seconds * 10_000) / 10;
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
