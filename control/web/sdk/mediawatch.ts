import { ICE_RESTART_MS, MEDIA_INTERRUPTED_MS } from "./limits.js";
import type { Timers } from "./timers.js";

/** What the watch asks for. */
export interface MediaWatchActions {
  restartIce(): void;
  startAfresh(): void;
  interrupted(): void;
  restored(): void;
}

/**
 * Decides what to do about a transport that is in trouble: wait a little, then restart ICE, then
 * join afresh.
 */
export class MediaWatch {
  private trouble = false;
  private restarted = false;
  private cancel: () => void = () => {};

  constructor(
    private readonly timers: Timers,
    private readonly actions: MediaWatchActions,
  ) {}

  onState(state: RTCPeerConnectionState): void {
    if (state === "connected") {
      this.reset();
      this.actions.restored();
    } else if (state === "disconnected" && !this.trouble) {
      this.trouble = true;
      // Most interruptions heal by themselves: a radio that changes cells, a sleeping router.
      this.cancel = this.timers.after(MEDIA_INTERRUPTED_MS, () => this.restart());
    } else if (state === "failed") {
      this.trouble = true;
      if (!this.restarted) this.restart();
      else this.afresh();
    }
  }

  /** All is well, or all is new. */
  reset(): void {
    this.cancel();
    this.trouble = this.restarted = false;
  }

  private restart(): void {
    this.cancel();
    this.restarted = true;
    this.actions.interrupted();
    this.actions.restartIce();
    this.cancel = this.timers.after(ICE_RESTART_MS, () => this.afresh());
  }

  private afresh(): void {
    this.reset();
    this.actions.startAfresh();
  }
}
