import type { Publication } from "./peers.js";
import type { SpeakersInfo } from "./protocol.js";
import type { LocalPublication } from "./publication.js";

type Speaker = Publication | LocalPublication;

/** What keeping book of speech asks of the scope that owns it. */
export interface SpeakersHost {
  find(id: string): Speaker | undefined;
  all(): Iterable<Speaker>;
  speaking(publication: Speaker, speaking: boolean): void;
  dominates(publication: Speaker): void;
}

/**
 * Who speaks: as the server tells, and where it hears nothing of it, as the two hear each other who
 * send to one another directly.
 */
export class Speakers {
  /** Who speaks most now, or did last. */
  dominant: string | undefined;
  /** The same as the server knows it. */
  private toldDominant: string | undefined;
  /** Those whose speech the server does not hear. */
  private readonly direct = new Set<Speaker>();

  constructor(private readonly host: SpeakersHost) {}

  /** The server tells that somebody began to speak, or fell silent. */
  told(id: string, speaking: boolean): void {
    const publication = this.host.find(id);
    if (publication && !this.direct.has(publication)) this.set(publication, speaking);
  }

  /** The server tells who speaks most. */
  toldMost(id: string): void {
    this.toldDominant = id;
    if (this.direct.size === 0) this.setDominant(id);
  }

  /** The server sums up. */
  toldAll({ speaking = [], dominant }: SpeakersInfo): void {
    const now = new Set(speaking);
    for (const { id } of this.host.all()) if (id !== undefined) this.told(id, now.has(id));
    if (dominant) return this.toldMost(dominant);
    this.toldDominant = undefined;
    if (this.direct.size === 0) this.dominant = undefined;
  }

  /** What goes directly is speech, is none, or does not go directly any more: the server tells again. */
  heard(publication: Speaker, speaking: boolean | undefined): void {
    if (speaking === undefined) {
      if (!this.direct.delete(publication)) return;
      this.set(publication, false);
      if (this.direct.size === 0 && this.toldDominant) this.setDominant(this.toldDominant);
      return;
    }
    this.direct.add(publication);
    this.set(publication, speaking);
    const other = this.dominant === undefined ? undefined : this.host.find(this.dominant);
    if (speaking && publication.id !== undefined && !other?.speaking) {
      this.setDominant(publication.id);
    }
  }

  private set(publication: Speaker, speaking: boolean): void {
    if (publication.speaking === speaking) return;
    publication.speaking = speaking;
    // What ended meanwhile ends without a word.
    const { id } = publication;
    if (id !== undefined && this.host.find(id) === publication) {
      this.host.speaking(publication, speaking);
    }
  }

  private setDominant(id: string): void {
    if (this.dominant === id) return;
    this.dominant = id;
    const publication = this.host.find(id);
    if (publication) this.host.dominates(publication);
  }
}
