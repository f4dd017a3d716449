import type { StraitError } from "./errors.js";
import type { Kind, PeerInfo, PreferenceEntry, PublicationInfo, Source } from "./protocol.js";

/** Something that another peer sends. */
export class Publication {
  readonly id: string;
  readonly kind: Kind;
  readonly source: Source;
  /** Free text that the publisher gave, if any. */
  readonly name: string | undefined;
  /** For example `VP8`; undefined when the server does not say. */
  readonly codec: string | undefined;
  readonly peer: RemotePeer;
  /** The publisher has muted it. */
  muted: boolean;
  /** Somebody speaks in it, as the server hears it. */
  speaking = false;
  /** Whether it is, or shall be, received. */
  subscribed = false;

  /** @internal what comes from the relay */
  relayed: RTCRtpReceiver | undefined;
  /** @internal what comes directly, while that is shown */
  directly: RTCRtpReceiver | undefined;
  /** @internal what the application wants of it */
  preference: Omit<PreferenceEntry, "mid"> | undefined;
  /** @internal why it could not be subscribed; not tried again until something changes */
  failure: StraitError | undefined;

  /** @internal */
  constructor(peer: RemotePeer, info: PublicationInfo) {
    this.peer = peer;
    this.id = info.publication;
    this.kind = info.kind;
    this.source = info.source;
    this.name = info.name;
    this.codec = info.codec;
    this.muted = info.muted ?? false;
  }

  /**
   * What arrives; undefined until it is subscribed. The track belongs to a slot that may show
   * another publication later: stop using it when the publication ends. Another one takes its place,
   * with the event `track`, when media goes directly, or does so no longer.
   */
  get track(): MediaStreamTrack | undefined {
    return this.receiver?.track;
  }

  /** @internal the receiver behind `track` */
  get receiver(): RTCRtpReceiver | undefined {
    return this.directly ?? this.relayed;
  }

  /** Level of the last audio heard, 0 to 1; undefined for video, or when nothing arrives. */
  get audioLevel(): number | undefined {
    if (this.kind !== "audio") return undefined;
    return this.receiver?.getSynchronizationSources()[0]?.audioLevel;
  }
}

/** Another participant of the scope. */
export class RemotePeer {
  readonly id: string;
  readonly name: string;
  /** By id. */
  readonly publications: ReadonlyMap<string, Publication> = new Map();

  /** @internal */
  constructor(info: PeerInfo) {
    this.id = info.peer;
    this.name = info.name ?? "";
  }

  /** The first publication of this source, if any. */
  find(source: Source): Publication | undefined {
    for (const publication of this.publications.values()) {
      if (publication.source === source) return publication;
    }
    return undefined;
  }
}

/** What a roster change means to the application. */
export interface RosterChanges {
  joined: RemotePeer[];
  left: RemotePeer[];
  published: Publication[];
  unpublished: Publication[];
  muted: Publication[];
  unmuted: Publication[];
}

/** Who is in the scope and what they publish: the client's copy of the server's roster. */
export class Roster {
  readonly peers = new Map<string, RemotePeer>();

  /** All publications of all peers. */
  *publications(): Iterable<Publication> {
    for (const peer of this.peers.values()) yield* peer.publications.values();
  }

  /** The publication with this id, whoever sends it. */
  find(id: string): Publication | undefined {
    for (const peer of this.peers.values()) {
      const publication = peer.publications.get(id);
      if (publication) return publication;
    }
    return undefined;
  }

  /** Replaces the whole roster; what is already known stays the same object. */
  reset(infos: readonly PeerInfo[]): RosterChanges {
    const changes = noChanges();
    const present = new Set(infos.map((info) => info.peer));
    for (const id of [...this.peers.keys()]) {
      if (!present.has(id)) merge(changes, this.leave(id));
    }
    for (const info of infos) merge(changes, this.join(info));
    return changes;
  }

  /** A peer is here with exactly these publications. */
  join(info: PeerInfo): RosterChanges {
    const changes = noChanges();
    let peer = this.peers.get(info.peer);
    if (!peer) {
      peer = new RemotePeer(info);
      this.peers.set(peer.id, peer);
      changes.joined.push(peer);
    }
    const present = new Set((info.publications ?? []).map((each) => each.publication));
    for (const id of [...peer.publications.keys()]) {
      if (!present.has(id)) merge(changes, this.unpublish(peer.id, id));
    }
    for (const each of info.publications ?? []) merge(changes, this.publish(peer.id, each));
    return changes;
  }

  leave(id: string): RosterChanges {
    const changes = noChanges();
    const peer = this.peers.get(id);
    if (!peer) return changes;
    for (const publication of [...peer.publications.keys()]) {
      merge(changes, this.unpublish(id, publication));
    }
    this.peers.delete(id);
    changes.left.push(peer);
    return changes;
  }

  publish(peerId: string, info: PublicationInfo): RosterChanges {
    const changes = noChanges();
    let peer = this.peers.get(peerId);
    if (!peer) {
      // A notice that overtook its `joined`: the name follows with it or not at all.
      peer = new RemotePeer({ peer: peerId });
      this.peers.set(peerId, peer);
      changes.joined.push(peer);
    }
    if (peer.publications.has(info.publication)) {
      return merge(changes, this.setMuted(info.publication, info.muted ?? false));
    }
    const publication = new Publication(peer, info);
    writable(peer).set(publication.id, publication);
    changes.published.push(publication);
    return changes;
  }

  unpublish(peerId: string, id: string): RosterChanges {
    const changes = noChanges();
    const peer = this.peers.get(peerId);
    const publication = peer?.publications.get(id);
    if (!peer || !publication) return changes;
    writable(peer).delete(id);
    changes.unpublished.push(publication);
    return changes;
  }

  setMuted(id: string, muted: boolean): RosterChanges {
    const changes = noChanges();
    const publication = this.find(id);
    if (!publication || publication.muted === muted) return changes;
    publication.muted = muted;
    (muted ? changes.muted : changes.unmuted).push(publication);
    return changes;
  }
}

function noChanges(): RosterChanges {
  return { joined: [], left: [], published: [], unpublished: [], muted: [], unmuted: [] };
}

function merge(into: RosterChanges, from: RosterChanges): RosterChanges {
  into.joined.push(...from.joined);
  into.left.push(...from.left);
  into.published.push(...from.published);
  into.unpublished.push(...from.unpublished);
  into.muted.push(...from.muted);
  into.unmuted.push(...from.unmuted);
  return into;
}

function writable(peer: RemotePeer): Map<string, Publication> {
  return peer.publications as Map<string, Publication>;
}
