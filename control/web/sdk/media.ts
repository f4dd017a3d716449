import { Adaptation } from "./adaptation.js";
import { Coalescer } from "./coalescer.js";
import { type ConnectionType, ConnectionTypeWatch } from "./connectiontype.js";
import { Direct } from "./direct/direct.js";
import { StraitError, asStraitError } from "./errors.js";
import * as limits from "./limits.js";
import { CHANNEL_LABEL, CHANNEL_PROTOCOL } from "./messenger.js";
import type { Publication } from "./peers.js";
import type {
  FailedEntry,
  Kind,
  PreferenceEntry,
  PublishEntry,
  ScopeAnswer,
  ScopeRequest,
  SubscribeEntry,
} from "./protocol.js";
import type { LocalPublication } from "./publication.js";
import { Ladder, type VideoQuality } from "./quality.js";
import { type Allowance, EncodingChanger, adjust, firstEncodings } from "./sending.js";
import { planSlots } from "./slots.js";
import type { Timers } from "./timers.js";

/** What the media session asks of the scope that owns it. */
export interface MediaHost {
  /** Publications that this client wants to receive now. */
  wanted(): Iterable<Publication>;
  /** START (the first time) or UPDATE; rejects with the server's error. */
  exchange(request: ScopeRequest): Promise<ScopeAnswer>;
  /** The answer of the first exchange is applied. */
  started(): void;
  /** A publication is received on `publication.track` from now on. */
  bound(publication: Publication): void;
  /** A publication was refused. */
  refused(publication: Publication | LocalPublication, error: StraitError): void;
  /** A negotiation failed without anything that could be refused by name. */
  failed(error: StraitError): void;
  /** The transport's state changed. */
  connectionState(state: RTCPeerConnectionState): void;
  /** Media takes another way. */
  connectionType(type: ConnectionType): void;
  /** What to tell the other of two, who makes a pair of this number. */
  signal(number: number, text: string): void;
  /** What goes directly is speech, is none, or does not go directly any more. */
  speaking(publication: Publication | LocalPublication, speaking: boolean | undefined): void;
}

/** A recvonly m-line, shown to the plan as a slot. */
export interface Slot {
  kind: Kind;
  bound: Publication | undefined;
  transceiver: RTCRtpTransceiver;
  /** The relay was told to send nothing by it, as the same comes directly. */
  held: boolean;
  /** The relay was told something of it, which lasts whatever it shows. */
  isTold: boolean;
}

/** An m-line that sends. */
export interface Uplink {
  transceiver: RTCRtpTransceiver;
  publication: LocalPublication | undefined;
  /** May carry another publication once the server has seen it idle. */
  reusable: boolean;
  idle: boolean;
  /** Of a picture that follows what the uplink carries. */
  ladder: Ladder | undefined;
  changer: EncodingChanger;
}

/**
 * The one peer connection of a scope. It always offers; changes that come together share one
 * offer; slots are bound anew without an offer.
 */
export class MediaSession {
  readonly connection: RTCPeerConnection;
  /** For messages; a server that takes none refuses its m-line. */
  readonly channel: RTCDataChannel | undefined;
  readonly slots: Slot[] = [];
  readonly uplinks: Uplink[] = [];
  /** Offers sent by this session. */
  offers = 0;

  private readonly coalescer: Coalescer;
  private readonly adaptation: Adaptation;
  private readonly ways: ConnectionTypeWatch;
  /** Past the relay, where the scope has two. */
  readonly direct: Direct;
  private uplinkMaxBps = 0;
  private started = false;
  private closed = false;
  private offerNeeded = true;
  private iceRestart = false;

  constructor(
    private readonly host: MediaHost,
    configuration: RTCConfiguration,
    private readonly slotsFirst: number,
    timers: Timers,
  ) {
    this.connection = new RTCPeerConnection({ ...configuration, bundlePolicy: "max-bundle" });
    this.connection.addEventListener("connectionstatechange", () => {
      if (!this.closed) host.connectionState(this.connection.connectionState);
    });
    this.channel = this.connection.createDataChannel?.(CHANNEL_LABEL, {
      protocol: CHANNEL_PROTOCOL,
    });
    const uplinkMaxBps = () => this.uplinkMaxBps;
    this.adaptation = new Adaptation(this.connection, this.uplinks, timers, uplinkMaxBps);
    this.ways = new ConnectionTypeWatch(this.connection, timers, (type) =>
      host.connectionType(type),
    );
    this.direct = new Direct({
      timers,
      configuration,
      signal: (number, text) => host.signal(number, text),
      sent: () => this.uplinks.flatMap(({ publication }) => publication ?? []),
      share: (publication) => this.shareOf(publication),
      received: (id) => this.slots.find(({ bound }) => bound?.id === id && isWanted(bound))?.bound,
      speaking: (publication, speaking) => host.speaking(publication, speaking),
      sentDirectly: (publication) => {
        const uplink = this.uplinks.find((each) => each.publication === publication);
        uplink?.changer.apply().catch(() => {});
        // Firefox sends sound whatever its encoding says.
        if (publication.kind === "audio") {
          const track = publication.directly ? null : publication.track;
          uplink?.transceiver.sender.replaceTrack(track).catch(() => {});
        }
        this.ways.setDirect(this.isDirect);
      },
      shown: (publication) => {
        this.ways.setDirect(this.isDirect);
        if (this.closed || !publication.subscribed) return;
        this.hold(publication, publication.directly !== undefined);
        host.bound(publication);
      },
      resume: (publication) => this.hold(publication, false),
    });
    this.coalescer = new Coalescer(() => this.negotiate(), limits.COALESCE_MS, timers);
  }

  /** The first offer, at once. */
  start(): Promise<void> {
    return this.coalescer.schedule(0);
  }

  /** Brings the server in line with what is wanted now; shares a negotiation with others. */
  update(delayMs: number = limits.COALESCE_MS): Promise<void> {
    return this.coalescer.schedule(delayMs);
  }

  /** New ICE credentials with the next offer, which goes out at once. */
  restartIce(): Promise<void> {
    this.iceRestart = this.offerNeeded = true;
    return this.coalescer.schedule(0);
  }

  /** Takes a publication into the next offer. */
  add(publication: LocalPublication): void {
    const { options, kind, track } = publication;
    publication.layers = undefined;
    const { adapts } = publication;
    const plain = !options.simulcast && !options.maxBitrateBps && !options.codecs && !adapts;
    const ladder = adapts ? new Ladder(publication.bounds as VideoQuality) : undefined;
    if (adapts) this.adaptation.start();
    const idle = this.uplinks.find(
      (uplink) =>
        uplink.idle && uplink.reusable && plain && uplink.transceiver.receiver.track.kind === kind,
    );
    this.offerNeeded = true;
    if (idle) {
      idle.idle = false;
      idle.publication = publication;
      idle.transceiver.direction = "sendonly";
      idle.transceiver.sender.replaceTrack(track).catch(() => {});
    } else {
      const transceiver = this.connection.addTransceiver(track, {
        direction: "sendonly",
        streams: [new MediaStream([track])],
        sendEncodings: firstEncodings(publication, { ladder, shareBps: undefined }),
      });
      preferCodecs(transceiver, kind, options.codecs);
      const changer = new EncodingChanger(transceiver.sender, (encodings) => {
        const { publication: sent } = uplink;
        if (sent) adjust(encodings, sent, this.allowance(uplink));
        for (const encoding of encodings) {
          if (sent?.directly) encoding.active = false;
          else if (encoding.rid === undefined && encoding.active === false) encoding.active = true;
        }
      });
      const uplink: Uplink = {
        transceiver, publication, reusable: plain, idle: false, ladder, changer,
      };
      this.uplinks.push(uplink);
    }
    // Each has less when one more takes its share.
    if (this.uplinkMaxBps > 0 || idle) this.applyAll();
  }

  /** Takes a publication out with the next offer; its m-line stays for the next one. */
  remove(publication: LocalPublication): void {
    const uplink = this.uplinks.find((each) => each.publication === publication);
    if (!uplink) return;
    this.retire(uplink);
    this.offerNeeded = true;
    this.direct.update();
    if (this.uplinkMaxBps > 0) this.applyAll();
  }

  /** Sends a publication as its options and bounds say now; `afresh` on an m-line of its own. */
  async reconfigure(publication: LocalPublication, afresh: boolean): Promise<void> {
    const uplink = this.uplinks.find((each) => each.publication === publication);
    if (!uplink) return;
    if (afresh) {
      this.remove(publication);
      this.add(publication);
      return this.update(0);
    }
    if (uplink.ladder) uplink.ladder = new Ladder(publication.bounds as VideoQuality);
    await uplink.changer.apply();
    this.direct.update();
  }

  /** What this client sends altogether at most; 0: no cap. Browsers may not keep to REMB alone. */
  setUplinkMax(bps: number): void {
    if (bps === this.uplinkMaxBps) return;
    this.uplinkMaxBps = bps;
    this.applyAll();
  }

  async replaceTrack(publication: LocalPublication, track: MediaStreamTrack): Promise<void> {
    const uplink = this.uplinks.find((each) => each.publication === publication);
    const { directly, kind } = publication;
    await directly?.replaceTrack(track);
    if (!directly || kind === "video") await uplink?.transceiver.sender.replaceTrack(track);
  }

  /** The publication is gone at its source: its slot is free. */
  release(publication: Publication): void {
    for (const slot of this.slots) if (slot.bound === publication) slot.bound = undefined;
    publication.relayed = publication.directly = undefined;
    publication.subscribed = false;
    this.ways.setDirect(this.isDirect);
  }

  /** Pauses a subscription or bounds its layer, without an offer. */
  async prefer(
    publication: Publication,
    preference: Omit<PreferenceEntry, "mid">,
  ): Promise<void> {
    const slot = this.slots.find((each) => each.bound === publication);
    if (!slot) throw new StraitError("closed", "the publication is not subscribed");
    publication.preference = preference;
    await this.tellPreference(slot);
  }

  /** Whether anything goes past the relay. */
  get isDirect(): boolean {
    return (
      this.uplinks.some(({ publication }) => publication?.directly) ||
      this.slots.some(({ bound }) => bound?.directly)
    );
  }

  /** Has the relay send nothing of what comes directly, or something again. */
  private hold(publication: Publication, held: boolean): void {
    const slot = this.slots.find((each) => each.bound === publication);
    if (!slot || slot.held === held) return;
    slot.held = held;
    // Without an answer the session is lost, and all begins anew.
    this.tellPreference(slot).catch(() => {});
  }

  private async tellPreference(slot: Slot): Promise<void> {
    const { transceiver, bound, held } = slot;
    const { mid } = transceiver;
    if (mid === null) return;
    slot.isTold = true;
    const preference = { mid, ...bound?.preference, ...(held ? { paused: true } : {}) };
    await this.host.exchange({ preferences: [preference] });
  }

  /** Sends these layers of a publication, and stops the others. */
  setLayers(publication: LocalPublication, active: readonly string[]): void {
    publication.layers = active;
    const uplink = this.uplinks.find((each) => each.publication === publication);
    // A browser that cannot, or a sender that was stopped: all layers go on, as without this.
    uplink?.changer.apply().catch(() => {});
  }

  private applyAll(): void {
    for (const { publication, changer } of this.uplinks) {
      // What cannot be changed goes on as it is: the relay's REMB bounds it as well.
      if (publication?.kind === "video") changer.apply().catch(() => {});
    }
    this.direct.update();
  }

  private allowance({ ladder, publication }: Uplink): Allowance {
    return { ladder, shareBps: this.shareOf(publication) };
  }

  private shareOf(publication: LocalPublication | undefined): number | undefined {
    if (this.uplinkMaxBps === 0 || publication?.kind !== "video") return undefined;
    const sent = this.uplinks.flatMap((each) => each.publication?.kind ?? []);
    const sounds = sent.filter((kind) => kind === "audio").length;
    const soundBps = Math.min(sounds * limits.SOUND_BPS, this.uplinkMaxBps / 2);
    const picturesBps = limits.UPLINK_SHARE * (this.uplinkMaxBps - soundBps);
    return Math.round(picturesBps / (sent.length - sounds));
  }

  close(): void {
    this.closed = true;
    this.coalescer.close();
    this.adaptation.close();
    this.direct.close();
    this.connection.close();
    this.ways.close();
    for (const slot of this.slots) if (slot.bound) this.release(slot.bound);
  }

  // -- negotiation ------------------------------------------------------------------------

  private async negotiate(): Promise<void> {
    if (this.closed) return;
    this.addSlots();
    const offering = this.offerNeeded;
    const restarting = this.iceRestart;
    this.offerNeeded = this.iceRestart = false;
    const plan = planSlots(this.slots, this.wantedNow());
    // Slots were just added for all that fit: what is left over is beyond the limit.
    for (const item of plan.unplaced) {
      this.refuse(item, new StraitError("unsupported", "no more streams can be received", 429));
    }
    if (!offering && plan.bind.length === 0 && plan.free.length === 0) return;
    try {
      const request: ScopeRequest = offering ? await this.offer(restarting) : {};
      request.subscribe = subscribeEntries(plan);
      const preferences = plan.bind.flatMap(({ slot, item }) => preferenceOf(slot, item) ?? []);
      if (preferences.length > 0) request.preferences = preferences;
      const answer = await this.host.exchange(request);
      if (this.closed) return;
      await this.apply(answer, plan);
    } catch (thrown) {
      if (this.closed) return;
      const error = asStraitError(thrown);
      if ((await this.undo(offering, plan, error)) === 0) this.host.failed(error);
      throw error;
    }
  }

  private *wantedNow(): Iterable<Publication> {
    for (const publication of this.host.wanted()) if (!publication.failure) yield publication;
  }

  private addSlots(): void {
    const plan = planSlots(this.slots, this.wantedNow());
    for (const kind of ["audio", "video"] as const) {
      const first = this.started ? 0 : this.slotsFirst - this.slotsOf(kind);
      for (let missing = Math.max(plan.add[kind], first); missing > 0; missing -= 1) {
        const transceiver = this.connection.addTransceiver(kind, { direction: "recvonly" });
        this.slots.push({ kind, bound: undefined, transceiver, held: false, isTold: false });
        this.offerNeeded = true;
      }
    }
  }

  private slotsOf(kind: Kind): number {
    return this.slots.filter((slot) => slot.kind === kind).length;
  }

  private async offer(iceRestart: boolean): Promise<ScopeRequest> {
    const { connection } = this;
    await connection.setLocalDescription(await connection.createOffer({ iceRestart }));
    this.offers += 1;
    const publish: PublishEntry[] = [];
    for (const { publication, transceiver } of this.uplinks) {
      if (!publication || transceiver.mid === null) continue;
      const { source, name, muted } = publication;
      publish.push({ mid: transceiver.mid, source, muted, ...(name === undefined ? {} : { name }) });
      publication.mutedTold = muted;
    }
    // The relay is ICE-lite and has all its candidates in the answer: nothing to wait for.
    return { sdp: connection.localDescription?.sdp ?? "", publish };
  }

  private async apply(answer: ScopeAnswer, plan: Plan): Promise<void> {
    if (answer.sdp !== undefined) {
      await this.connection.setRemoteDescription({ type: "answer", sdp: answer.sdp });
      if (this.closed) return;
      if (!this.started) this.host.started();
      this.started = true;
      this.settleUplinks(answer);
      this.dropRejectedSlots();
    }
    const failed = new Map((answer.failed ?? []).map((entry) => [entry.mid, entry]));
    const wanted = new Set(this.host.wanted());
    for (const slot of plan.free) this.unbind(slot);
    for (const { slot, item } of plan.bind) {
      this.unbind(slot);
      const failure = failed.get(slot.transceiver.mid ?? "");
      if (!this.slots.includes(slot)) {
        this.refuse(item, new StraitError("server", "the server offers no slot for it", 488));
      } else if (failure) {
        if (wanted.has(item)) this.refuse(item, entryError(failure));
      } else if (wanted.has(item)) {
        slot.bound = item;
        item.relayed = slot.transceiver.receiver;
        item.subscribed = true;
        slot.held = false;
        slot.isTold = item.preference !== undefined;
        this.host.bound(item);
      }
    }
  }

  private settleUplinks(answer: ScopeAnswer): void {
    const named = new Map((answer.publications ?? []).map((each) => [each.mid, each.publication]));
    const failed = new Map((answer.failed ?? []).map((entry) => [entry.mid, entry]));
    for (const uplink of this.uplinks) {
      const { publication, transceiver } = uplink;
      const mid = transceiver.mid ?? "";
      if (!publication) {
        // Removed while the offer was on its way: the next offer tells the server.
        uplink.idle = transceiver.currentDirection === "inactive";
        continue;
      }
      const id = named.get(mid);
      const failure = failed.get(mid);
      const rejected = !["sendonly", "sendrecv"].includes(transceiver.currentDirection ?? "");
      if (failure || (rejected && transceiver.currentDirection !== null)) {
        this.retire(uplink);
        this.offerNeeded = true;
        const reason = "the server does not take this stream: it shares no codec with it";
        const error = failure ? entryError(failure) : new StraitError("server", reason, 488);
        this.host.refused(publication, error);
      } else if (id !== undefined) {
        publication.setId(id);
      }
    }
    this.direct.update();
  }

  private dropRejectedSlots(): void {
    for (const slot of [...this.slots]) {
      const direction = slot.transceiver.currentDirection;
      if (direction === null || direction === "recvonly") continue;
      // Inactive: the server keeps the m-line but sends nothing on it, so it is no slot.
      this.slots.splice(this.slots.indexOf(slot), 1);
      if (slot.bound) this.release(slot.bound);
    }
  }

  private unbind(slot: Slot): void {
    if (slot.bound) this.release(slot.bound);
    slot.bound = undefined;
  }

  private refuse(publication: Publication, error: StraitError): void {
    publication.failure = error;
    publication.subscribed = false;
    this.host.refused(publication, error);
  }

  private retire(uplink: Uplink): void {
    uplink.publication = uplink.ladder = undefined;
    uplink.idle = uplink.transceiver.currentDirection === null && uplink.transceiver.mid === null;
    try {
      uplink.transceiver.direction = "inactive";
    } catch {
      // A stopped transceiver has no direction to set.
    }
    uplink.transceiver.sender.replaceTrack(null).catch(() => {});
  }

  /** After a failed exchange: as if the changes had not been asked for. Returns what it refused. */
  private async undo(offering: boolean, plan: Plan, error: StraitError): Promise<number> {
    if (offering && this.connection.signalingState === "have-local-offer") {
      await this.connection.setLocalDescription({ type: "rollback" }).catch(() => {});
    }
    // A lost session is started afresh by the scope with all that is wanted: nothing is refused.
    if (error.kind === "closed") return 0;
    // The server may still take it, or has: the next offer, behind it, says what holds.
    const late = offering && this.started && error.kind === "timeout";
    if (late) {
      this.offerNeeded = true;
      this.update().catch(() => {});
    }
    let refused = plan.bind.length;
    for (const { item } of plan.bind) this.refuse(item, error);
    if (!offering) return refused;
    for (const uplink of this.uplinks) {
      const { publication, transceiver } = uplink;
      if (!publication || transceiver.currentDirection === "sendonly") continue;
      this.retire(uplink);
      this.host.refused(publication, error);
      refused += 1;
    }
    // M-lines that the server may know are offered again.
    if (late) return refused;
    for (const slot of [...this.slots]) {
      if (slot.transceiver.currentDirection !== null) continue;
      this.slots.splice(this.slots.indexOf(slot), 1);
      slot.transceiver.stop();
    }
    return refused;
  }
}

type Plan = ReturnType<typeof planSlots<Publication, Slot>>;

function subscribeEntries(plan: Plan): SubscribeEntry[] {
  const entries: SubscribeEntry[] = [];
  for (const { slot, item } of plan.bind) {
    if (slot.transceiver.mid !== null) {
      entries.push({ mid: slot.transceiver.mid, publication: item.id });
    }
  }
  for (const slot of plan.free) {
    if (slot.transceiver.mid !== null) {
      entries.push({ mid: slot.transceiver.mid, publication: null });
    }
  }
  return entries;
}

/** What the relay is to know when a slot shows another publication. */
function preferenceOf({ transceiver, isTold }: Slot, item: Publication): PreferenceEntry | undefined {
  const { mid } = transceiver;
  if (mid === null || (!isTold && item.preference === undefined)) return undefined;
  return { mid, ...item.preference };
}

function isWanted({ preference }: Publication): boolean {
  return preference?.paused !== true;
}

function entryError(entry: FailedEntry): StraitError {
  const reason = entry.reason ?? "the server gave no reason";
  return new StraitError("server", reason, entry.error_code ?? 500);
}

function preferCodecs(
  transceiver: RTCRtpTransceiver,
  kind: Kind,
  names: readonly string[] | undefined,
): void {
  if (!names || typeof transceiver.setCodecPreferences !== "function") return;
  const all = RTCRtpSender.getCapabilities(kind)?.codecs ?? [];
  const rank = (codec: { mimeType: string }) => {
    const name = codec.mimeType.split("/")[1]?.toUpperCase();
    const index = names.findIndex((each) => each.toUpperCase() === name);
    return index < 0 ? names.length : index;
  };
  transceiver.setCodecPreferences([...all].sort((left, right) => rank(left) - rank(right)));
}
