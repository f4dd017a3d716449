import type { Statistics } from "../sdk/index.js";
import { rate } from "./figures.js";
import { path } from "./lines.js";
import type { TileView } from "./tiles.js";

/** How a tile's streams fared over one second; what is not known is a gap. */
export interface Point {
  bitrate: number | undefined;
  /** Share of packets, 0 to 1. */
  loss: number | undefined;
  /** To the relay and back, in milliseconds. */
  delay: number | undefined;
  /** Of what is sent: one-way queuing delay on the way to the relay, in milliseconds. */
  queue: number | undefined;
  /** Height of the picture in pixels: which layer arrives, or is sent at most. */
  picture: number | undefined;
}

/** Seconds that a graph shows. */
export const SECONDS = 60;
/** Units of a graph's picture. */
const WIDTH = SECONDS - 1;
const HEIGHT = 16;

/** What is drawn, in order; `least` is the end of the scale when all is less. */
const FIGURES: {
  name: keyof Point;
  title: string;
  least: number;
  text: (value: number) => string;
}[] = [
  { name: "bitrate", title: "Bitrate", least: 50_000, text: rate },
  { name: "loss", title: "Loss", least: 0.02, text: (value) => `${(value * 100).toFixed(1)} %` },
  { name: "delay", title: "Round trip", least: 20, text: (value) => `${Math.round(value)} ms` },
  { name: "queue", title: "Queue", least: 20, text: (value) => `${Math.round(value)} ms` },
  { name: "picture", title: "Picture", least: 180, text: (value) => `${value} px` },
];

/** What was measured of a tile's streams since the second before. */
export function point(view: TileView, statistics: Statistics): Point {
  const isIts = ({ publication }: { publication: unknown }): boolean =>
    publication === view.video || publication === view.audio;
  const streams = view.own
    ? statistics.publications.filter(isIts)
    : statistics.subscriptions.filter(isIts);
  // Of picture and sound, the one that fares worse.
  const queues = streams.map((each) => each.queueDelayMs).filter((each) => each !== undefined);
  const losses = streams.map((each) => each.lossRatio).filter((each) => each !== undefined);
  const heights = streams.map((each) => each.frameHeight).filter((each) => each !== undefined);
  return {
    bitrate: streams.length > 0 ? total(streams.map((each) => each.bitrateBps)) : undefined,
    loss: losses.length > 0 ? Math.max(...losses) : undefined,
    delay: statistics.roundTripTimeMs,
    queue: view.own && queues.length > 0 ? Math.max(...queues) : undefined,
    picture: heights.length > 0 ? Math.max(...heights) : undefined,
  };
}

/** The last minute of each tile. */
export class Histories {
  private readonly points = new Map<string, Point[]>();

  /** Adds a second; who is not among `seconds` is forgotten. */
  add(seconds: ReadonlyMap<string, Point>): void {
    for (const key of this.points.keys()) if (!seconds.has(key)) this.points.delete(key);
    for (const [key, second] of seconds) {
      const before = this.points.get(key) ?? [];
      this.points.set(key, [...before, second].slice(-SECONDS));
    }
  }

  of(key: string): readonly Point[] {
    return this.points.get(key) ?? [];
  }

  clear(): void {
    this.points.clear();
  }
}

/** Draws a tile's history into its box; without one the box goes. */
export function draw(box: HTMLElement, history: readonly Point[] | undefined): void {
  box.hidden = history === undefined;
  if (history === undefined) return;
  // What others sent queued on their way, of which this page does not know.
  const isOwn = box.closest(".own") !== null;
  const shown = FIGURES.filter(({ name }) => isOwn || name !== "queue");
  if (box.childElementCount === 0) box.append(...shown.map(row));
  shown.forEach(({ name, title, least, text }, index) => {
    const values = history.map((each) => each[name]);
    const known = values.filter((each) => each !== undefined);
    const most = Math.max(least, ...known);
    const latest = values.at(-1);
    const now = latest === undefined ? "–" : text(latest);
    const element = box.children[index];
    const svg = element?.querySelector("svg");
    if (!element || !svg) return;
    const label = element.querySelector(".graph-value");
    if (label && label.textContent !== now) label.textContent = now;
    const scale = known.length > 0 ? `, at most ${text(Math.max(...known))}` : "";
    svg.setAttribute("aria-label", `${title} over the last minute: now ${now}${scale}`);
    svg.dataset["most"] = String(most);
    svg.querySelector("path")?.setAttribute("d", line(values, most));
  });
}

/** A line from the left to now at the right, with gaps where nothing is known. */
export function line(values: readonly (number | undefined)[], most: number): string {
  const first = WIDTH - (values.length - 1);
  return path(
    values.map((value, index) =>
      value === undefined
        ? undefined
        : [first + index, HEIGHT - (HEIGHT * Math.min(value, most)) / most],
    ),
  );
}

const SVG = "http://www.w3.org/2000/svg";

function row({ name, title }: { name: string; title: string }): HTMLElement {
  const element = document.createElement("div");
  element.className = "graph";
  element.dataset["figure"] = name;
  const label = document.createElement("span");
  label.className = "graph-title";
  label.textContent = title;
  const value = document.createElement("span");
  value.className = "graph-value";
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.append(document.createElementNS(SVG, "path"));
  element.append(label, value, svg);
  return element;
}

function total(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
