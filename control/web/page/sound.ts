import type { Scope } from "../sdk/index.js";

/** Plays what is heard: one element per audio publication. */
export class Sound {
  private readonly elements = new Map<string, HTMLAudioElement>();

  /** `onBlocked` is called when the browser wants a click before it plays. */
  constructor(private readonly onBlocked: () => void) {}

  show(scope: Scope): void {
    const present = new Set<string>();
    for (const peer of scope.peers.values()) {
      for (const { id, kind, track } of peer.publications.values()) {
        if (kind !== "audio" || !track) continue;
        present.add(id);
        let element = this.elements.get(id);
        if (!element) {
          element = new Audio();
          this.elements.set(id, element);
        }
        const stream = element.srcObject as MediaStream | null;
        const heard = stream?.getAudioTracks()[0];
        if (heard === track) continue;
        if (stream && heard) {
          // In the stream that is heard: another one would begin with silence.
          stream.addTrack(track);
          stream.removeTrack(heard);
        } else {
          element.srcObject = new MediaStream([track]);
        }
        this.play(element);
      }
    }
    for (const [id, element] of this.elements) {
      if (present.has(id)) continue;
      element.srcObject = null;
      this.elements.delete(id);
    }
  }

  /** After a click: the browser allows it now. */
  resume(): void {
    for (const element of this.elements.values()) this.play(element);
  }

  clear(): void {
    for (const element of this.elements.values()) element.srcObject = null;
    this.elements.clear();
  }

  private play(element: HTMLAudioElement): void {
    element.play().catch((error: unknown) => {
      if (error instanceof DOMException && error.name === "NotAllowedError") this.onBlocked();
    });
  }
}
