import { checkAboveZero, checkTrack } from "./arguments.js";
import { constrain, recapture, stopIfCaptured } from "./capture.js";
import type { Device } from "./devices.js";
import { asStraitError, StraitError } from "./errors.js";
import type { Kind, Source } from "./protocol.js";
import { QUALITIES, type QualityName, type VideoQuality } from "./quality.js";

/** How a track is published. */
export interface PublishOptions {
  /** Default: what the track was captured as, otherwise `other`. */
  source?: Source;
  /** Free text that the others see. */
  name?: string;
  /** Start muted. Default false. */
  muted?: boolean;
  /** Send three sizes of a video (rids q, h, f). Default false. */
  simulcast?: boolean;
  /** Upper bound of what is sent, in bits per second. Default: the browser's own. */
  maxBitrateBps?: number;
  /**
   * The best that is sent of a video: what the uplink does not carry is sent smaller and less
   * often, down to 320 pixels at 10 frames/s and 64 kbit/s. Default: what the browser decides.
   */
  quality?: QualityName | VideoQuality;
  /** Codecs in order of preference, such as `["H264", "VP8"]`. Default: the browser's order. */
  codecs?: readonly string[];
  /** What to capture, for `camera`, `microphone` and `screen`. */
  constraints?: MediaTrackConstraints;
}

/** What is to be different about a running video; what is not named stays. */
export interface VideoChange extends Partial<VideoQuality> {
  /** Three sizes, or one. */
  simulcast?: boolean;
}

/** @internal what a publication needs from its scope */
export interface PublicationHost {
  unpublish(publication: LocalPublication): Promise<void>;
  notifyMuted(publication: LocalPublication): void;
  replaceTrack(publication: LocalPublication, track: MediaStreamTrack): Promise<void>;
  /** Sends as its options and bounds say now; `afresh` on an m-line of its own. */
  reconfigure(publication: LocalPublication, afresh: boolean): Promise<void>;
  /** It was neither unpublished nor refused. */
  has(publication: LocalPublication): boolean;
  /** The track ended by itself. */
  ended(publication: LocalPublication): void;
}

/** Something that this client sends. */
export class LocalPublication {
  readonly kind: Kind;
  readonly source: Source;
  readonly name: string | undefined;
  /** Somebody speaks in it, as the server hears it. */
  speaking = false;
  /** @internal */
  options: PublishOptions;
  /** @internal the best that is sent of a video, as far as that was said */
  bounds: Partial<VideoQuality> = {};
  /** @internal what sends it directly, while the other of two shows that: the relay gets none of it */
  directly: RTCRtpSender | undefined;
  /** @internal what the server was last told */
  mutedTold: boolean | undefined;
  /** Rids of the layers that anybody needs; undefined while the server has not said so: all. */
  layers: readonly string[] | undefined;
  /** @internal settles when the server has named, or refused, the publication */
  readonly ready: Promise<void>;

  private readonly host: PublicationHost;
  private currentTrack: MediaStreamTrack;
  private currentId: string | undefined;
  private isMuted: boolean;
  private readonly onEnded = () => this.host.ended(this);
  private settled = false;
  private resolveReady: () => void = () => {};
  private rejectReady: (error: StraitError) => void = () => {};

  /** @internal */
  constructor(
    host: PublicationHost,
    track: MediaStreamTrack,
    source: Source,
    options: PublishOptions,
  ) {
    this.host = host;
    this.currentTrack = track;
    this.kind = track.kind === "audio" ? "audio" : "video";
    this.source = source;
    this.name = options.name;
    this.options = options;
    this.bounds = boundsOf(this.kind, options);
    this.isMuted = options.muted ?? false;
    this.currentTrack = track;
    this.take(track);
    this.ready = new Promise((resolve, reject) => {
      this.resolveReady = resolve;
      this.rejectReady = reject;
    });
    this.ready.catch(() => {});
  }

  /** The server's name for it; it changes when a lost session had to be started afresh. */
  get id(): string | undefined {
    return this.currentId;
  }

  get track(): MediaStreamTrack {
    return this.currentTrack;
  }

  get muted(): boolean {
    return this.isMuted;
  }

  /** @internal its size follows what the uplink carries; with simulcast the layers do */
  get adapts(): boolean {
    const { quality, simulcast } = this.options;
    return this.kind === "video" && quality !== undefined && !simulcast;
  }

  /** Sends silence or black, and tells the others. */
  mute(): void {
    this.setMuted(true);
  }

  /** Undoes `mute`. */
  unmute(): void {
    this.setMuted(false);
  }

  /** Sends another track of the same kind instead, without a negotiation. */
  async replaceTrack(track: MediaStreamTrack): Promise<void> {
    checkTrack(track);
    if (track.kind !== this.kind) {
      throw new StraitError("unsupported", `a ${track.kind} track cannot replace ${this.kind}`);
    }
    try {
      await this.host.replaceTrack(this, track);
    } catch (thrown) {
      throw asStraitError(thrown);
    }
    if (!this.host.has(this)) throw endedError();
    stopIfCaptured(this.currentTrack);
    this.take(track);
    // Another track may have another size.
    await this.host.reconfigure(this, false).catch(() => {});
  }

  /** Captures with this camera or microphone from now on, without a negotiation. */
  async useDevice(device: Device | string): Promise<void> {
    const { source } = this;
    if (source !== "camera" && source !== "microphone") {
      throw new StraitError("unsupported", `a publication of source ${source} has no device`);
    }
    const id = typeof device === "string" ? device : device.id;
    const constraints = { ...this.options.constraints, ...idealOf(this.bounds) };
    const { track, error } = await recapture(source, this.currentTrack, constraints, id);
    try {
      if (track) await this.replaceTrack(track);
    } catch (thrown) {
      // Nobody else knows of it, and its device would stay on.
      track?.stop();
      throw thrown;
    }
    // The one before was stopped for it and did not come back.
    if (this.currentTrack.readyState === "ended") this.host.ended(this);
    if (error) throw error;
  }

  /**
   * Changes the size, the frame rate or the bitrate of a running video: without a negotiation, and
   * without an interruption. Only another `simulcast` is published anew, under another id. An
   * application's own track is scaled down; one that the SDK captured is captured so.
   */
  async reconfigureVideo(change: VideoChange): Promise<void> {
    if (this.kind !== "video") {
      throw new StraitError("unsupported", "only a video can be reconfigured");
    }
    const { simulcast = this.options.simulcast ?? false, ...named } = change;
    for (const [name, value] of Object.entries(named)) checkAboveZero(name, value);
    const afresh = simulcast !== (this.options.simulcast ?? false);
    this.options = { ...this.options, simulcast };
    this.bounds = { ...this.bounds, ...named };
    try {
      await constrain(this.currentTrack, idealOf(named));
      await this.host.reconfigure(this, afresh);
    } catch (thrown) {
      throw asStraitError(thrown);
    }
  }

  /** Stops sending it. A track that the SDK captured is stopped too. */
  unpublish(): Promise<void> {
    return this.host.unpublish(this);
  }

  /** @internal */
  setId(id: string | undefined): void {
    if (this.currentId !== id) this.speaking = false;
    this.currentId = id;
    if (id === undefined) return;
    this.settled = true;
    this.resolveReady();
    if (this.mutedTold !== this.isMuted) this.host.notifyMuted(this);
  }

  /** @internal it is over: what was captured for it is stopped */
  release(): void {
    this.currentTrack.removeEventListener("ended", this.onEnded);
    stopIfCaptured(this.currentTrack);
    this.fail(endedError());
  }

  /** @internal false when nobody waits for `ready` any more */
  fail(error: StraitError): boolean {
    const { settled } = this;
    this.settled = true;
    this.rejectReady(error);
    return !settled;
  }

  private take(track: MediaStreamTrack): void {
    this.currentTrack.removeEventListener("ended", this.onEnded);
    this.currentTrack = track;
    track.enabled = !this.isMuted;
    // The person ended it in the browser's own user interface, or the device went away.
    track.addEventListener("ended", this.onEnded);
  }

  private setMuted(muted: boolean): void {
    this.currentTrack.enabled = !muted;
    if (this.isMuted === muted) return;
    this.isMuted = muted;
    this.host.notifyMuted(this);
  }
}

function endedError(): StraitError {
  return new StraitError("closed", "the publication was ended");
}

function boundsOf(kind: Kind, { quality, maxBitrateBps }: PublishOptions): Partial<VideoQuality> {
  const named = typeof quality === "string" ? QUALITIES[quality] : quality;
  const best = kind === "video" ? named : undefined;
  const rates = [best?.bitrateBps, maxBitrateBps].filter((each) => each !== undefined);
  return { ...best, ...(rates.length > 0 ? { bitrateBps: Math.min(...rates) } : {}) };
}

function idealOf({ width, height, frameRate }: Partial<VideoQuality>): MediaTrackConstraints {
  return Object.fromEntries(
    Object.entries({ width, height, frameRate })
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, { ideal: value }]),
  );
}
