import { type Publication, RemotePeer } from "./peers.js";
import type { AllowEntry } from "./protocol.js";

/** What rules tell apart: sound, pictures, and a screen with its sound. */
export type MediaType = "audio" | "video" | "screen";

/** Who may send: everybody, or these peers alone, by object or id. */
export type AllowedSenders = "all" | readonly (RemotePeer | string)[];

/** For each media type that is to change, who may send it. */
export type SenderRules = Partial<Record<MediaType, AllowedSenders>>;

/** From whom this client takes what. At first everybody is allowed. */
export class Senders {
  private readonly rules = new Map<MediaType, ReadonlySet<string>>();

  /** These rules with changes; what is not named stays. */
  changed(changes: SenderRules): Senders {
    const next = new Senders();
    for (const [type, peers] of this.rules) next.rules.set(type, peers);
    for (const type of ["audio", "video", "screen"] as const) {
      const allowed = changes[type];
      if (allowed === "all") next.rules.delete(type);
      else if (allowed) next.rules.set(type, new Set(allowed.map(idOf)));
    }
    return next;
  }

  allows(publication: Publication): boolean {
    return this.rules.get(mediaType(publication))?.has(publication.peer.id) ?? true;
  }

  /** As the server is told: all rules, or those that are not as at first. */
  entry(all: boolean): AllowEntry | undefined {
    const entry: AllowEntry = {};
    for (const type of ["audio", "video", "screen"] as const) {
      const peers = this.rules.get(type);
      if (peers) entry[type] = [...peers];
      else if (all) entry[type] = "all";
    }
    return Object.keys(entry).length > 0 ? entry : undefined;
  }
}

function idOf(peer: RemotePeer | string): string {
  return peer instanceof RemotePeer ? peer.id : peer;
}

function mediaType({ source, kind }: Publication): MediaType {
  return source === "screen" || source === "screen-audio" ? "screen" : kind;
}
