import type { LocalPublication, Publication, Scope } from "../sdk/index.js";
import { type Point, draw } from "./graphs.js";

/** What one tile shows. */
export interface TileView {
  key: string;
  name: string;
  own: boolean;
  screen: boolean;
  /** The picture; undefined shows a face instead. */
  track: MediaStreamTrack | undefined;
  muted: boolean;
  speaking: boolean;
  /** Speaks most, or did last. */
  dominant: boolean;
  audio: Publication | LocalPublication | undefined;
  video: Publication | LocalPublication | undefined;
}

/** The tiles of a scope as it is now: screens first, then people, oneself last. */
export function tileViews(scope: Scope, ownName: string): TileView[] {
  const screens: TileView[] = [];
  const people: TileView[] = [];
  const view = viewer(scope);
  for (const peer of scope.peers.values()) {
    const name = peer.name || "Guest";
    const all = [...peer.publications.values()];
    const videos = all.filter((each) => each.kind === "video");
    const face = videos.find((each) => each.source !== "screen");
    const audio = all.find((each) => each.kind === "audio" && each.source !== "screen-audio");
    people.push(view(`peer ${peer.id}`, name, false, false, face, audio));
    for (const video of videos) {
      if (video === face) continue;
      const screen = video.source === "screen";
      const title = screen ? `${name} shares a screen` : name;
      screens.push(view(`publication ${video.id}`, title, false, screen, video, undefined));
    }
  }
  const own = scope.publications;
  const camera = own.find((each) => each.source === "camera");
  const microphone = own.find((each) => each.source === "microphone");
  const screen = own.find((each) => each.kind === "video" && each.source === "screen");
  if (screen) screens.push(view("own screen", "You share a screen", true, true, screen, undefined));
  people.push(view("own", ownName ? `${ownName} (you)` : "You", true, false, camera, microphone));
  return [...screens, ...people];
}

function viewer({ dominantSpeaker }: Scope) {
  return (
    key: string,
    name: string,
    own: boolean,
    screen: boolean,
    video: Publication | LocalPublication | undefined,
    audio: Publication | LocalPublication | undefined,
  ): TileView => {
    const track = video && !video.muted ? video.track : undefined;
    const muted = !screen && (audio === undefined || audio.muted);
    const speaking = !muted && audio?.speaking === true;
    const dominant = audio !== undefined && audio === dominantSpeaker;
    return { key, name, own, screen, track, muted, speaking, dominant, audio, video };
  };
}

/** The grid: keeps one element per view, so that a playing picture is never torn down. */
export class Tiles {
  private readonly elements = new Map<string, HTMLElement>();

  constructor(
    private readonly list: HTMLElement,
    private readonly template: HTMLTemplateElement,
  ) {
    new ResizeObserver(() => this.fit()).observe(list);
  }

  show(views: readonly TileView[]): void {
    const keys = new Set(views.map((each) => each.key));
    for (const [key, element] of this.elements) {
      if (keys.has(key)) continue;
      element.remove();
      this.elements.delete(key);
    }
    views.forEach((each, index) => {
      let element = this.elements.get(each.key);
      if (!element) {
        element = this.make();
        this.elements.set(each.key, element);
      }
      if (this.list.children[index] !== element) {
        this.list.insertBefore(element, this.list.children[index] ?? null);
      }
      fill(element, each);
    });
    this.fit();
  }

  /** Text in a corner of a tile; undefined takes it away. */
  setFigures(key: string, text: string | undefined): void {
    const box = this.elements.get(key)?.querySelector<HTMLElement>(".figures");
    if (!box) return;
    box.hidden = text === undefined;
    box.textContent = text ?? "";
  }

  /** Graphs in the other corner of a tile; undefined takes them away. */
  setGraphs(key: string, history: readonly Point[] | undefined): void {
    const box = this.elements.get(key)?.querySelector<HTMLElement>(".graphs");
    if (box) draw(box, history);
  }

  clear(): void {
    this.show([]);
  }

  private make(): HTMLElement {
    const copy = this.template.content.cloneNode(true) as DocumentFragment;
    return copy.firstElementChild as HTMLElement;
  }

  /** Makes the tiles as large as fits; a screen gets most of the room. May scroll when crowded. */
  private fit(): void {
    const all = [...this.elements.values()];
    const screens = all.filter((element) => element.dataset["source"] === "screen").length;
    const style = getComputedStyle(this.list);
    const inset = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    const gap = parseFloat(style.columnGap) || 0;
    const width = this.list.clientWidth - inset;
    const height = this.list.clientHeight;
    if (all.length === 0 || width <= 0) return;
    this.list.dataset["screens"] = String(screens);
    const upper = screens > 0 ? height * SCREEN_SHARE : 0;
    const screen = largest(screens, width, upper, gap);
    const upperUsed = screens > 0 ? (screen * 9) / 16 + gap : 0;
    const tile = largest(all.length - screens, width, height - upperUsed, gap);
    const least = Math.min(width, TILE_WIDTH_MIN);
    this.list.style.setProperty("--screen-width", `${Math.max(screen, least)}px`);
    this.list.style.setProperty("--tile-width", `${Math.max(tile, least)}px`);
  }
}

/** Share of the height that goes to shared screens. */
const SCREEN_SHARE = 0.7;
/** Pixels. */
const TILE_WIDTH_MIN = 150;

/** The width at which `count` tiles of 16:9 fit into the room, whatever the number of columns. */
function largest(count: number, width: number, height: number, gap: number): number {
  let best = 0;
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const wide = (width - gap * (columns - 1)) / columns;
    const high = ((height - gap * (rows - 1)) / rows) * (16 / 9);
    best = Math.max(best, Math.floor(Math.min(wide, high)));
  }
  return best;
}

function fill(element: HTMLElement, view: TileView): void {
  const { name, own, screen, track, muted, speaking, dominant, key } = view;
  element.dataset["key"] = key;
  element.dataset["source"] = screen ? "screen" : "camera";
  element.classList.toggle("own", own);
  element.classList.toggle("muted", muted);
  element.classList.toggle("speaking", speaking);
  element.classList.toggle("dominant", dominant);
  element.classList.toggle("picture", track !== undefined);
  const video = element.querySelector("video");
  const shown = (video?.srcObject as MediaStream | null)?.getVideoTracks()[0];
  if (video && shown !== track) {
    video.srcObject = track ? new MediaStream([track]) : null;
    if (track) video.play().catch(() => {});
  }
  const who = element.querySelector(".who");
  if (who && who.textContent !== name) who.textContent = name;
  video?.setAttribute("aria-label", name);
  const face = element.querySelector(".face");
  if (face) face.textContent = (name.trim()[0] ?? "?").toUpperCase();
}
