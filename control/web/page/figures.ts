import type {
  PublicationStatistics,
  Statistics,
  SubscriptionStatistics,
} from "../sdk/index.js";
import type { TileView } from "./tiles.js";

/** The text of the statistics overlay of one tile. */
export function figures(view: TileView, statistics: Statistics): string {
  const lines: string[] = [];
  for (const own of statistics.publications) {
    if (own.publication === view.video || own.publication === view.audio) lines.push(sent(own));
  }
  for (const other of statistics.subscriptions) {
    if (other.publication === view.video || other.publication === view.audio) {
      lines.push(received(other));
    }
  }
  if (view.key === "own" && statistics.roundTripTimeMs !== undefined) {
    const { roundTripTimeMs, offers, connectionType, grade } = statistics;
    lines.push(join(`rtt ${roundTripTimeMs} ms`, `${offers} offers`, connectionType, grade));
  }
  return lines.join("\n") || "–";
}

function sent(own: PublicationStatistics): string {
  return join(
    `${own.publication.kind} ↑ ${rate(own.bitrateBps)}`,
    picture(own),
    loss(own.lossRatio),
    own.limitedBy && own.limitedBy !== "none" ? `limited by ${own.limitedBy}` : undefined,
  );
}

function received(other: SubscriptionStatistics): string {
  return join(
    `${other.publication.kind} ↓ ${rate(other.bitrateBps)}`,
    picture(other),
    loss(other.lossRatio),
    other.jitterMs === undefined ? undefined : `jitter ${other.jitterMs} ms`,
    other.freezeCount ? `${other.freezeCount} freezes` : undefined,
  );
}

function picture(of: {
  frameWidth: number | undefined;
  frameHeight: number | undefined;
  framesPerSecond: number | undefined;
}): string | undefined {
  if (!of.frameWidth || !of.frameHeight) return undefined;
  return `${of.frameWidth}×${of.frameHeight}@${Math.round(of.framesPerSecond ?? 0)}`;
}

function loss(ratio: number | undefined): string | undefined {
  return ratio === undefined ? undefined : `loss ${(ratio * 100).toFixed(1)} %`;
}

export function rate(bitsPerSecond: number): string {
  return bitsPerSecond < 1_000_000
    ? `${Math.round(bitsPerSecond / 1_000)} kbit/s`
    : `${(bitsPerSecond / 1_000_000).toFixed(1)} Mbit/s`;
}

function join(...parts: (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined).join(" · ");
}
