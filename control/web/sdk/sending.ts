import type { LocalPublication } from "./publication.js";
import type { Ladder } from "./quality.js";

/** What is sent of a publication now, besides what it is bound by itself. */
export interface Allowance {
  /** Where the uplink is followed: the step that it is on. */
  ladder: Ladder | undefined;
  /** Its share of the uplink's cap in bits per second; undefined without a cap. */
  shareBps: number | undefined;
}

/** Of a video in layers: how many times smaller than the largest, and its share of the bitrate. */
const LAYERS = {
  q: { smaller: 4, share: 0.1 },
  h: { smaller: 2, share: 1 / 3 },
  f: { smaller: 1, share: 1 },
} as const;
/** What the largest layer takes when nothing else was said. */
const LAYERED_BPS = 1_500_000;
/** A larger layer that gets less than this share of what it should have is not worth its bits. */
const LAYER_SHARE_MIN = 1 / 3;

/** The encodings that a publication's transceiver begins with. */
export function firstEncodings(
  publication: LocalPublication,
  allowance: Allowance,
): RTCRtpEncodingParameters[] {
  const { kind, options } = publication;
  let encodings: RTCRtpEncodingParameters[] = [{}];
  if (kind === "video" && options.simulcast) {
    // Chromium makes one stream with spatial layers of several encodings of these, unless each says that it has none.
    const layersInside = /^(VP9|AV1)$/i.test(options.codecs?.[0] ?? "");
    const inside = layersInside ? { scalabilityMode: "L1T3" } : {};
    encodings = Object.keys(LAYERS).map((rid) => ({ rid, ...inside }));
  }
  adjust(encodings, publication, allowance);
  return encodings;
}

/** Changes encodings, the smallest first, to what is to be sent of the publication now. */
export function adjust(
  encodings: RTCRtpEncodingParameters[],
  publication: LocalPublication,
  { ladder, shareBps }: Allowance,
): void {
  const { bounds, layers, kind, options } = publication;
  const { bitrateBps = options.simulcast ? LAYERED_BPS : undefined, frameRate } =
    ladder?.current ?? bounds;
  let leftBps = shareBps;
  for (const encoding of encodings) {
    const { rid } = encoding;
    const { smaller, share } = LAYERS[(rid ?? "f") as keyof typeof LAYERS] ?? LAYERS.f;
    const wantedBps = bitrateBps === undefined ? undefined : Math.round(bitrateBps * share);
    if (rid !== undefined) encoding.active = layers?.includes(rid) ?? true;
    // The smallest that anybody needs is sent whatever it looks like.
    const isFirst = leftBps === shareBps;
    const tooLittle = leftBps !== undefined && leftBps < LAYER_SHARE_MIN * (wantedBps ?? 0);
    if (tooLittle && !isFirst) encoding.active = false;
    const isSent = encoding.active !== false;
    set(encoding, "maxBitrate", isSent ? least(wantedBps, leftBps) : wantedBps);
    if (leftBps !== undefined && isSent) leftBps -= encoding.maxBitrate ?? leftBps;
    if (kind === "audio") continue;
    set(encoding, "maxFramerate", frameRate);
    const scale = smaller * tooLarge(publication.track, ladder?.current ?? bounds);
    // What was once said must be taken back in so many words.
    const isSaid = scale > 1 || ladder !== undefined || options.simulcast;
    if (isSaid || encoding.scaleResolutionDownBy !== undefined) {
      encoding.scaleResolutionDownBy = scale;
    }
  }
}

/** How many times larger the track is than it is to be sent. */
function tooLarge(
  track: MediaStreamTrack,
  { width, height }: { width?: number | undefined; height?: number | undefined },
): number {
  const settings = track.getSettings?.() ?? {};
  const ratio = (is: number | undefined, most: number | undefined) => (is && most ? is / most : 1);
  return Math.max(1, ratio(settings.width, width), ratio(settings.height, height));
}

function set(
  encoding: RTCRtpEncodingParameters,
  name: "maxBitrate" | "maxFramerate",
  value: number | undefined,
): void {
  if (value === undefined) delete encoding[name];
  else encoding[name] = value;
}

function least(left: number | undefined, right: number | undefined): number | undefined {
  return left === undefined || right === undefined ? (left ?? right) : Math.min(left, right);
}

/** Changes the encodings of one sender: it takes one change at a time, and the last word counts. */
export class EncodingChanger {
  private due = false;
  private running: Promise<void> | undefined;

  constructor(
    private readonly sender: RTCRtpSender,
    private readonly change: (encodings: RTCRtpEncodingParameters[]) => void,
  ) {}

  /** Resolves when the sender does as is wanted now; rejects when the browser cannot. */
  apply(): Promise<void> {
    this.due = true;
    this.running ??= this.run();
    return this.running;
  }

  private async run(): Promise<void> {
    // So that `running` is set before anything fails.
    await undefined;
    try {
      while (this.due) {
        this.due = false;
        const parameters = this.sender.getParameters();
        this.change(parameters.encodings);
        await this.sender.setParameters(parameters);
      }
    } finally {
      this.running = undefined;
    }
  }
}
