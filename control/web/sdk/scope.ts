import { checkCap, receiverOf } from "./arguments.js";
import { sourceOf } from "./capture.js";
import type { ConnectionType } from "./connectiontype.js";
import { StraitError, asStraitError } from "./errors.js";
import { TypedEvents } from "./events.js";
import type { Frame } from "./frames.js";
import { Health } from "./health.js";
import { type PublishInput, tracksOf } from "./inputs.js";
import { JsonRtc } from "./jsonrtc.js";
import * as limits from "./limits.js";
import { Measuring } from "./measuring.js";
import { type MediaHost, MediaSession } from "./media.js";
import type { PeerMessage } from "./messages.js";
import { Messenger } from "./messenger.js";
import { type Publication, type RemotePeer, Roster, type RosterChanges } from "./peers.js";
import type {
  ConnectAnswer,
  PreferenceEntry,
  QualityInfo,
  ScopeAnswer,
  ScopeNotice,
  ScopeRequest,
  ShutdownRequest,
} from "./protocol.js";
import { LocalPublication, type PublicationHost, type PublishOptions } from "./publication.js";
import { type SenderRules, Senders } from "./senders.js";
import { Speakers } from "./speakers.js";
import type { Statistics } from "./statistics.js";
import type { Timers } from "./timers.js";

/** How the scope is connected now. */
export type ScopeState = "joining" | "connected" | "reconnecting" | "closed";

/** The details of a scope's events. */
export interface ScopeEvents {
  /** Another peer is here. Not sent for those already there at `join`: see `scope.peers`. */
  joined: { peer: RemotePeer };
  left: { peer: RemotePeer; reason: string | undefined };
  published: { publication: Publication };
  unpublished: { publication: Publication };
  /** Of one's own: the person stopped sharing it, or its device was taken away. */
  ended: { publication: LocalPublication };
  muted: { publication: Publication };
  unmuted: { publication: Publication };
  /** Somebody, perhaps oneself, began to speak or fell silent, as the server hears it. */
  speaking: { publication: Publication | LocalPublication; speaking: boolean };
  /** Somebody else, perhaps oneself, speaks most now. */
  dominantspeaker: { publication: Publication | LocalPublication };
  /** Another peer sent a message, to this one or to all. */
  message: PeerMessage;
  /** How streams fared, as the relay measured it; only after `watchQuality()`. */
  quality: QualityInfo;
  /** How the call fares; only after `watchStatistics()`. */
  statistics: Statistics;
  /** Media takes another way, or none. */
  connectiontype: { type: ConnectionType; previous: ConnectionType };
  /** A publication arrives: show `track` until `unpublished`. */
  track: { publication: Publication; track: MediaStreamTrack };
  /** The own media path is up for the first time. */
  connected: undefined;
  /** The scope is on another node now, `HOST:PORT`: all is published and received anew there. */
  moved: { node: string };
  /** Signalling or media broke; the SDK repairs it. */
  reconnecting: { cause: "signalling" | "media"; attempt: number };
  /** All is well again; `fresh` when the scope had to be joined anew. */
  reconnected: { fresh: boolean };
  /** The scope is over; `error` is undefined after `leave()`. */
  closed: { error: StraitError | undefined };
  /** Something failed that no call reports. */
  error: { error: StraitError };
}

/** @internal */
export interface ScopeSettings {
  name: string;
  link: JsonRtc;
  timers: Timers;
  autoSubscribe: boolean | ((publication: Publication) => boolean);
  slotsFirst: number;
  /** Media may go directly to the other of two. */
  direct?: boolean;
  /** There are other nodes: this one is watched for its death. */
  hasOthers?: boolean;
}

/** A conference that this client takes part in. Made by `Strait.join`. */
export class Scope extends TypedEvents<ScopeEvents> {
  readonly name: string;

  private readonly settings: ScopeSettings;
  private readonly link: JsonRtc;
  private readonly roster = new Roster();
  private readonly locals = new Set<LocalPublication>();
  private readonly unwanted = new Set<string>();
  private senders = new Senders();
  private uplinkMaxBps = 0;
  private readonly measuring: Measuring;
  private readonly health: Health;
  private readonly messenger: Messenger;
  private connectAnswer: ConnectAnswer = {};
  private media: MediaSession | undefined;
  private subsession: string | undefined;
  private ownPeer = "";
  private readonly speakers = new Speakers({
    find: (id) => this.find(id),
    all: () => [...this.roster.publications(), ...this.locals],
    speaking: (publication, speaking) => this.emit("speaking", { publication, speaking }),
    dominates: (publication) => this.emit("dominantspeaker", { publication }),
  });
  private currentState: ScopeState = "joining";
  private linkDown = false;
  private currentWay: ConnectionType = "none";
  private wantsQuality = false;
  private connectedOnce = false;
  private freshStart = false;
  private rejoining = false;
  /** The server ended the stay and asked to come back, which has not begun yet. */
  private sentAway = false;
  private offersBefore = 0;
  private joinAttempt = 0;
  private cancelRejoin: () => void = () => {};
  /** The last START, to its end. */
  private entering: Promise<void> | undefined;
  private endedBy: StraitError | undefined;
  private readonly onPageHide = () => this.leaveNow();

  /** @internal */
  constructor(settings: ScopeSettings) {
    super();
    this.settings = settings;
    this.name = settings.name;
    this.link = settings.link;
    const { timers, hasOthers = false } = settings;
    const connection = () => this.media?.connection;
    this.health = new Health(timers, settings.link, connection, hasOthers, {
      restartIce: () => void this.media?.restartIce().catch(() => {}),
      startAfresh: () => void this.rejoin("media"),
      interrupted: () => this.interrupted("media", 1),
      restored: () => this.restored(),
    });
    this.messenger = new Messenger(
      {
        ready: () => this.subsession !== undefined,
        request: (payload) => this.notify(payload),
        heard: (message) => this.emit("message", message),
      },
      settings.timers,
    );
    this.measuring = new Measuring(
      settings.timers,
      () => this.media && { session: this.media, offersBefore: this.offersBefore },
      (statistics) => this.emit("statistics", statistics),
    );
    this.link.on("frame", (frame) => this.onFrame(frame));
    this.link.on("error", (error) => this.emit("error", { error }));
    this.link.on("reconnecting", ({ attempt }) => {
      this.linkDown = true;
      this.health.onLink(false);
      this.interrupted("signalling", attempt);
    });
    this.link.on("resumed", () => {
      this.linkDown = false;
      if (this.sentAway) void this.rejoin("signalling");
      this.health.onLink(true);
      this.restored();
    });
    this.link.on("moved", (detail) => this.emit("moved", detail));
    this.link.on("renewed", (answer) => {
      this.linkDown = false;
      this.health.reset();
      this.health.onLink(true);
      this.connectAnswer = answer;
      this.subsession = undefined;
      void this.rejoin("signalling");
    });
    this.link.on("closed", ({ error }) => this.finish(error));
  }

  /** This client's own id in the scope. */
  get peer(): string {
    return this.ownPeer;
  }

  get state(): ScopeState {
    return this.currentState;
  }

  /** Which way media takes now. */
  get connectionType(): ConnectionType {
    return this.currentWay;
  }

  /** The others in the scope, by id. */
  get peers(): ReadonlyMap<string, RemotePeer> {
    return this.roster.peers;
  }

  /** Who speaks most, or did last; undefined before anybody spoke, and when that one left. */
  get dominantSpeaker(): Publication | LocalPublication | undefined {
    const { dominant } = this.speakers;
    return dominant === undefined ? undefined : this.find(dominant);
  }

  /** What this client publishes. */
  get publications(): readonly LocalPublication[] {
    return [...this.locals];
  }

  /**
   * Publishes a device, a track or a stream. Resolves when the server has taken it: with one
   * publication for a camera, a microphone or a track, with a list for a screen (which may have
   * sound), a stream or a list.
   */
  publish(
    input: "camera" | "microphone" | MediaStreamTrack,
    options?: PublishOptions,
  ): Promise<LocalPublication>;
  publish(input: PublishInput, options?: PublishOptions): Promise<LocalPublication[]>;
  async publish(
    input: PublishInput,
    options: PublishOptions = {},
  ): Promise<LocalPublication | LocalPublication[]> {
    const prepared = await this.prepare(input, options);
    this.checkOpen();
    for (const publication of prepared) this.media?.add(publication);
    this.media?.update().catch(() => {});
    try {
      await Promise.all(prepared.map((publication) => publication.ready));
    } catch (thrown) {
      for (const publication of prepared) void this.unpublish(publication).catch(() => {});
      throw thrown;
    }
    const single = typeof input === "string" ? input !== "screen" : "kind" in input;
    const first = prepared[0];
    return single && first ? first : prepared;
  }

  /** Stops sending it; a track that the SDK captured is stopped. */
  async unpublish(publication: LocalPublication): Promise<void> {
    if (!this.locals.delete(publication)) return;
    publication.release();
    this.media?.remove(publication);
    await this.media?.update();
  }

  /** Receives a publication; resolves with its track. */
  async subscribe(publication: Publication): Promise<MediaStreamTrack> {
    this.unwanted.delete(publication.id);
    publication.failure = undefined;
    await this.media?.update();
    if (publication.track) return publication.track;
    if (publication.failure) throw publication.failure;
    if (this.subsession === undefined) throw this.awayError();
    const reason = this.senders.allows(publication)
      ? "the publication is gone"
      : "its peer is not among those that `allowSenders` names";
    throw new StraitError("closed", reason);
  }

  /** Stops receiving a publication. */
  async unsubscribe(publication: Publication): Promise<void> {
    if (this.roster.find(publication.id)) this.unwanted.add(publication.id);
    await this.media?.update();
  }

  /**
   * Pauses a subscription, bounds the layers that are sent, says how large it is shown and how much
   * it matters. Replaces what was said of it before.
   */
  async prefer(
    publication: Publication,
    preference: Omit<PreferenceEntry, "mid">,
  ): Promise<void> {
    await this.media?.prefer(publication, preference);
  }

  /**
   * Says from whom this client takes sound, pictures and screens: `"all"` (at first), or a list of
   * peers; what is not named stays. What is not allowed stops, and nobody else's takes its place
   * before it is. Holds for who comes later and over reconnects; a peer that had to join afresh
   * has another id.
   */
  async allowSenders(rules: SenderRules): Promise<void> {
    const before = this.senders;
    const senders = (this.senders = before.changed(rules));
    try {
      // Without a subsession it goes with the START that is on its way, or right behind it.
      const allow = senders.entry(true);
      if (this.subsession !== undefined && allow) await this.exchange({ allow });
    } catch (thrown) {
      if (this.senders === senders) this.senders = before;
      throw asStraitError(thrown);
    }
    for (const publication of this.roster.publications()) {
      if (!senders.allows(publication)) this.media?.release(publication);
    }
    await this.media?.update();
  }

  /** Asks the relay to cap what this client sends altogether, in bits per second; 0: no cap. */
  async limitUplink(bps: number): Promise<void> {
    checkCap(bps);
    const before = this.uplinkMaxBps;
    this.uplinkMaxBps = bps;
    try {
      if (this.subsession !== undefined) await this.exchange({ uplinkMaxBps: bps });
    } catch (thrown) {
      this.uplinkMaxBps = before;
      throw asStraitError(thrown);
    }
  }

  /**
   * Sends text or bytes, at most 64 KiB, to one peer or to all others, native clients included.
   * Resolves when the server has taken it; the order of messages is kept, also over reconnects.
   */
  async sendMessage(data: string | Uint8Array, to?: RemotePeer | string): Promise<void> {
    const receiver = receiverOf(data, to);
    if (this.subsession === undefined) throw this.awayError();
    await this.messenger.send(data, receiver);
  }

  /** Whether messages go over a data channel now; otherwise they go over the WebSocket. */
  get hasDataChannel(): boolean {
    return this.messenger.isDirect;
  }

  private notify(payload: object): Promise<Frame> {
    const { subsession } = this;
    return this.link.request({ action: "NOTIFY", packageType: "scope", subsession, payload });
  }

  private tell(payload: object): void {
    const { subsession } = this;
    this.link.message({ action: "NOTIFY", packageType: "scope", subsession, payload });
  }

  /** Calls `listener` with each message; the returned function stops it. */
  onMessage(listener: (message: PeerMessage) => void): () => void {
    return this.on("message", listener);
  }

  /** How the call fares, per publication and subscription; rates since the previous call. */
  async statistics(): Promise<Statistics> {
    const statistics = this.measuring.read();
    if (!statistics) throw this.awayError();
    return statistics;
  }

  /** Tells `statistics` every `intervalMs`, with what the relay measures, or stops it. */
  watchStatistics(on = true, intervalMs = limits.STATISTICS_INTERVAL_MS): void {
    const before = this.hearsQuality;
    if (on && this.currentState !== "closed") this.measuring.watch(intervalMs);
    else this.measuring.stop();
    if (before !== this.hearsQuality) this.askQuality();
  }

  /** Asks the relay to tell about every 2 s how this peer's streams fare (`quality`), or to stop. */
  watchQuality(on = true): void {
    const before = this.hearsQuality;
    this.wantsQuality = on;
    if (before !== this.hearsQuality) this.askQuality();
  }

  private get hearsQuality(): boolean {
    return this.wantsQuality || this.measuring.isWatching;
  }

  private askQuality(): void {
    if (this.subsession !== undefined) this.tell({ event: "quality", on: this.hearsQuality });
  }

  /** What the relay measures for this peer: `PeerStatistics` of the relay's RPC, camelCase. */
  async relayStatistics(): Promise<unknown> {
    if (this.subsession === undefined) throw this.awayError();
    const answer = await this.notify({ event: "statistics" });
    return (answer.payload as { statistics?: unknown }).statistics;
  }

  /** Leaves the scope and stops what the SDK captured. */
  async leave(): Promise<void> {
    if (this.currentState === "closed") return;
    this.cancelRejoin();
    let cancel = () => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.settings.timers.after(limits.LEAVE_WAIT_MS, resolve);
    });
    await Promise.race([this.sayLast(), late]);
    cancel();
    this.finish(undefined);
  }

  private async sayLast(): Promise<void> {
    // What is on its way would open a stay that nobody ends.
    await this.entering?.catch(() => {});
    await this.sayGoodbye();
  }

  // -- joining ----------------------------------------------------------------------------

  /** @internal the first START */
  async start(answer: ConnectAnswer, input: PublishInput | undefined, options: PublishOptions) {
    this.connectAnswer = answer;
    try {
      if (input !== undefined) await this.prepare(input, options);
      // The server may have ended it while the person was asked.
      this.checkOpen();
      await this.enter();
      this.checkOpen();
      this.health.start();
      globalThis.addEventListener?.("pagehide", this.onPageHide);
    } catch (thrown) {
      this.finish(undefined);
      throw asStraitError(thrown);
    }
  }

  private async openMedia(): Promise<void> {
    this.closeMedia();
    const media = new MediaSession(
      this.mediaHost(),
      { iceServers: this.connectAnswer.iceServers ?? [] },
      this.settings.slotsFirst,
      this.settings.timers,
    );
    this.media = media;
    this.messenger.attach(media.channel);
    for (const publication of this.roster.publications()) publication.failure = undefined;
    for (const publication of this.locals) {
      publication.setId(undefined);
      media.add(publication);
    }
    await media.start();
  }

  /** Opens media where the scope is: a server may say that this is another one. */
  private enter(): Promise<void> {
    this.entering = this.link.wherever(() => this.openMedia(), (answer) => {
      this.connectAnswer = answer;
      if (this.currentState !== "joining") this.emit("moved", { node: this.link.node });
    });
    return this.entering;
  }

  /** Throws why the scope is over, if it is, and stops what was captured since. */
  private checkOpen(): void {
    if (this.currentState !== "closed") return;
    this.releaseLocals();
    throw this.endedBy ?? closedError();
  }

  private awayError(): StraitError {
    if (this.currentState === "closed") return closedError();
    const reason = "the scope is being joined afresh: try again when it is `reconnected`";
    return new StraitError("closed", reason);
  }

  private releaseLocals(): void {
    for (const publication of this.locals) publication.release();
    this.locals.clear();
  }

  private closeMedia(): void {
    this.offersBefore += this.media?.offers ?? 0;
    this.messenger.detach();
    this.media?.close();
    this.media = undefined;
  }

  /** Joins anew in the same session or a new one; keeps trying while the server is away. */
  private async rejoin(cause: "signalling" | "media"): Promise<void> {
    if (this.currentState === "closed") return;
    if (this.rejoining && cause === "media") return;
    this.rejoining = true;
    this.sentAway = false;
    this.cancelRejoin();
    this.health.reset();
    this.freshStart = true;
    this.interrupted(cause, ++this.joinAttempt);
    // A START in the same session replaces the old stay: the others see nobody leave.
    this.subsession = undefined;
    try {
      await this.enter();
      this.joinAttempt = 0;
      this.rejoining = false;
    } catch (thrown) {
      this.rejoining = false;
      const error = asStraitError(thrown);
      // A lost session is renewed by the link, which brings us back here.
      if (error.kind === "closed") return;
      if (error.code === 401 || error.code === 403) return this.finish(error);
      const waitMs = Math.min(
        limits.RECONNECT_WAIT_MS * (1 + this.settings.timers.random()) * 2 ** this.joinAttempt,
        limits.RECONNECT_WAIT_MS_MAX,
      );
      this.cancelRejoin = this.settings.timers.after(waitMs, () => void this.rejoin(cause));
    }
  }

  private mediaHost(): MediaHost {
    return {
      wanted: () => this.wanted(),
      exchange: (request) => this.exchange(request),
      started: () => {
        const { subsession } = this;
        this.link.message({ action: "COMPLETE", packageType: "scope", subsession });
      },
      bound: (publication) => {
        const track = publication.track;
        if (track) this.emit("track", { publication, track });
      },
      refused: (publication, error) => {
        if (publication instanceof LocalPublication) {
          // The call that published it tells; otherwise it ended in a fresh join.
          if (publication.fail(error)) return;
          void this.unpublish(publication).catch(() => {});
        }
        this.emit("error", { error });
      },
      failed: (error) => {
        if (error.kind !== "closed") this.emit("error", { error });
      },
      connectionState: (state) => this.onConnectionState(state),
      connectionType: (type) => {
        const previous = this.currentWay;
        this.currentWay = type;
        this.emit("connectiontype", { type, previous });
      },
      speaking: (publication, speaking) => this.speakers.heard(publication, speaking),
      signal: (number, text) => {
        // What waits for another WebSocket is worth nothing when it is there.
        if (this.subsession === undefined || this.linkDown) return;
        this.tell({ event: "signal", number, text });
      },
    };
  }

  private async exchange(payload: ScopeRequest): Promise<ScopeAnswer> {
    if (this.subsession !== undefined) {
      const { subsession } = this;
      const update = { action: "UPDATE", packageType: "scope", subsession, payload };
      const answer = (await this.link.request(update)).payload as ScopeAnswer;
      this.media?.setUplinkMax(answer.uplinkMaxBps ?? this.uplinkMaxBps);
      return answer;
    }
    // Only an offer begins a stay.
    if (payload.sdp === undefined) throw closedError();
    const { media, senders, uplinkMaxBps } = this;
    const allow = senders.entry(false);
    const frame = await this.link.request({
      action: "START",
      packageType: "scope",
      target: this.name,
      // A session that is new knows nothing of them.
      payload: {
        ...payload,
        ...(allow ? { allow } : {}),
        ...(uplinkMaxBps > 0 ? { uplinkMaxBps } : {}),
        ...(this.settings.direct ? { direct: true } : {}),
      },
    });
    const answer = frame.payload as ScopeAnswer;
    const subsession = frame.control.subsession_id ?? frame.control.correlation_id;
    if (media !== this.media || this.currentState === "closed") {
      // Overtaken by another join: what this one opened must not stay behind as a ghost.
      void this.sayGoodbye(subsession);
      throw closedError();
    }
    this.subsession = subsession;
    this.messenger.started(answer.messages);
    media?.setUplinkMax(answer.uplinkMaxBps ?? uplinkMaxBps);
    // What was said while START was on its way.
    if (senders !== this.senders) void this.allowSenders({}).catch(() => {});
    if (uplinkMaxBps !== this.uplinkMaxBps) {
      void this.limitUplink(this.uplinkMaxBps).catch(() => {});
    }
    this.ownPeer = answer.peer ?? this.connectAnswer.peer ?? "";
    const others = (answer.peers ?? []).filter((info) => info.peer !== this.ownPeer);
    this.announce(this.roster.reset(others), undefined, this.currentState !== "joining");
    if (answer.speakers) this.speakers.toldAll(answer.speakers);
    if (this.hearsQuality) this.askQuality();
    // Those already there are wanted at once: no need to wait for more changes.
    this.media?.update(0).catch(() => {});
    return answer;
  }

  private *wanted(): Iterable<Publication> {
    for (const publication of this.roster.publications()) {
      const wanted = !this.unwanted.has(publication.id) && this.senders.allows(publication);
      if (wanted) yield publication;
    }
  }

  // -- what the server tells --------------------------------------------------------------

  private onFrame({ control, header, payload }: Frame): void {
    if (control.subsession_id !== undefined && control.subsession_id !== this.subsession) return;
    if (header.action === "SHUTDOWN") {
      const { reason = header.reason, again } = payload as ShutdownRequest;
      if (again === true) this.comeBack();
      else this.finish(new StraitError("closed", reason ?? "the server ended the call"));
    } else if (header.action === "NOTIFY") {
      this.onNotice(payload as ScopeNotice);
    }
  }

  /** The stay is over but the call is not: the server restarts, drains, or lost track of us. */
  private comeBack(): void {
    this.sentAway = this.freshStart = true;
    this.subsession = undefined;
    this.health.reset();
    // What is published from here on goes into the fresh join, not into a START of its own.
    this.closeMedia();
    this.interrupted("signalling", 1);
    // At random, so that not all clients come back at once. When the link breaks meanwhile, as
    // with a restart, its own wait counts and the join follows it.
    const waitMs = limits.RECONNECT_WAIT_MS * (1 + this.settings.timers.random());
    this.cancelRejoin();
    this.cancelRejoin = this.settings.timers.after(waitMs, () => {
      if (!this.linkDown) void this.rejoin("signalling");
    });
  }

  private onNotice(notice: ScopeNotice): void {
    const { event, peer, publication } = notice;
    const peerId = typeof peer === "string" ? peer : (peer?.peer ?? "");
    if (event === "media-lost") return void this.rejoin("media");
    if (event === "direct" || event === "direct-ended" || event === "signal") {
      return this.media?.direct.onNotice(notice);
    }
    if (event === "layers") {
      const own = this.publications.find((each) => each.id === publication);
      if (own) this.media?.setLayers(own, notice.active ?? []);
      return;
    }
    if (event === "message") {
      this.messenger.told(notice);
      return;
    }
    if (event === "quality") {
      this.measuring.node.note(notice, this.settings.timers.now());
      if (this.wantsQuality) this.emit("quality", notice);
      return;
    }
    const id = typeof publication === "string" ? publication : (publication?.publication ?? "");
    // Unlike the others, what is said of speech may be about oneself.
    if (event === "speaking" || event === "silent") {
      return this.speakers.told(id, event === "speaking");
    }
    if (event === "dominant") return this.speakers.toldMost(id);
    if (event === "speakers") return this.speakers.toldAll(notice);
    if (event === "connected" || peerId === this.ownPeer) return;
    const { roster } = this;
    let changes: RosterChanges | undefined;
    switch (event) {
      case "joined":
        if (typeof peer === "object") changes = roster.join(peer);
        break;
      case "left":
        changes = roster.leave(peerId);
        break;
      case "published":
        if (typeof publication === "object") changes = roster.publish(peerId, publication);
        break;
      case "unpublished":
        changes = roster.unpublish(peerId, id);
        break;
      case "muted":
      case "unmuted":
        changes = roster.setMuted(id, event === "muted");
        break;
    }
    if (changes) this.announce(changes, notice.reason, true);
  }

  private find(id: string): Publication | LocalPublication | undefined {
    return this.roster.find(id) ?? this.publications.find((each) => each.id === id);
  }

  private announce(changes: RosterChanges, reason: string | undefined, emit: boolean): void {
    const { autoSubscribe } = this.settings;
    for (const publication of changes.published) {
      const wanted =
        typeof autoSubscribe === "function" ? autoSubscribe(publication) : autoSubscribe;
      if (!wanted) this.unwanted.add(publication.id);
    }
    for (const publication of changes.unpublished) {
      this.unwanted.delete(publication.id);
      this.media?.release(publication);
    }
    // Free slots are used with the next change: nothing to tell the server for a departure.
    if (changes.published.length > 0) this.media?.update().catch(() => {});
    if (!emit) return;
    for (const peer of changes.joined) this.emit("joined", { peer });
    for (const publication of changes.published) this.emit("published", { publication });
    for (const publication of changes.unpublished) this.emit("unpublished", { publication });
    for (const publication of changes.muted) this.emit("muted", { publication });
    for (const publication of changes.unmuted) this.emit("unmuted", { publication });
    for (const peer of changes.left) this.emit("left", { peer, reason });
  }

  // -- the state of the connection --------------------------------------------------------

  private onConnectionState(state: RTCPeerConnectionState): void {
    if (state === "connected" && !this.connectedOnce) {
      this.connectedOnce = true;
      this.currentState = "connected";
      this.emit("connected", undefined);
    }
    this.health.onState(state);
  }

  private interrupted(cause: "signalling" | "media", attempt: number): void {
    if (this.currentState === "closed") return;
    this.currentState = "reconnecting";
    this.emit("reconnecting", { cause, attempt });
  }

  private restored(): void {
    const { isMediaWell } = this.health;
    const up = isMediaWell && this.media?.connection.connectionState === "connected";
    if (this.currentState !== "reconnecting" || this.linkDown || !up) return;
    const fresh = this.freshStart;
    this.freshStart = false;
    this.currentState = "connected";
    this.emit("reconnected", { fresh });
  }

  // -- publications and the end -----------------------------------------------------------

  private async prepare(
    input: PublishInput,
    options: PublishOptions,
  ): Promise<LocalPublication[]> {
    const tracks = await tracksOf(input, options);
    const host: PublicationHost = {
      unpublish: (publication) => this.unpublish(publication),
      notifyMuted: (publication) => this.notifyMuted(publication),
      replaceTrack: async (publication, track) => this.media?.replaceTrack(publication, track),
      reconfigure: async (publication, afresh) => {
        await this.media?.reconfigure(publication, afresh);
        if (this.locals.has(publication)) return;
        throw new StraitError("closed", "the publication ended: the server did not take it again");
      },
      has: (publication) => this.locals.has(publication),
      ended: (publication) => {
        if (!this.locals.has(publication)) return;
        void this.unpublish(publication).catch(() => {});
        this.emit("ended", { publication });
      },
    };
    return tracks.map((track) => {
      const source = options.source ?? sourceOf(track);
      const publication = new LocalPublication(host, track, source, options);
      this.locals.add(publication);
      return publication;
    });
  }

  private notifyMuted(publication: LocalPublication): void {
    // Without an id the next offer carries the state, or `setId` asks again.
    if (publication.id === undefined) return;
    publication.mutedTold = publication.muted;
    const event = publication.muted ? "mute" : "unmute";
    this.tell({ event, publication: publication.id });
  }

  private async sayGoodbye(subsession = this.subsession): Promise<void> {
    if (subsession === undefined) return;
    const goodbye = { action: "SHUTDOWN", packageType: "scope", subsession };
    await this.link.request(goodbye).catch(() => {});
  }

  /** For a page that goes away: says goodbye without waiting. */
  private leaveNow(): void {
    void this.sayGoodbye();
    this.finish(undefined);
  }

  private finish(error: StraitError | undefined): void {
    if (this.currentState === "closed") return;
    this.currentState = "closed";
    this.endedBy = error;
    globalThis.removeEventListener?.("pagehide", this.onPageHide);
    this.cancelRejoin();
    this.health.stop();
    this.measuring.stop();
    this.media?.close();
    this.messenger.close(error ?? closedError());
    this.link.close();
    for (const publication of this.locals) publication.fail(error ?? closedError());
    this.releaseLocals();
    this.emit("closed", { error });
  }
}

function closedError(): StraitError {
  return new StraitError("closed", "the scope was left");
}
