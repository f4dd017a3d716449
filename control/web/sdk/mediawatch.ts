import * as limits from "./limits.js";
import type { Timers } from "./timers.js";

/** What the watch asks for. */
export interface MediaWatchActions {
  /** Whether the WebSocket is still there, which tells of a restart. */
  check(): void;
  /** To the server and back. */
  roundTripMs(): number;
  restartIce(): void;
  startAfresh(): void;
  interrupted(): void;
  restored(): void;
}

/**
 * Decides what to do about a transport that is in trouble: wait a little, then restart ICE, and once
 * more, then join afresh; at once where the browser gave ICE up for good. Nothing of it while signalling is down, which comes first: that the network changed
 * ends both.
 */
export class MediaWatch {
  private state: RTCPeerConnectionState = "new";
  private trouble = false;
  private restarts = 0;
  private silent = false;
  private linkDown = false;
  private cancel: () => void = () => {};

  constructor(
    private readonly timers: Timers,
    private readonly actions: MediaWatchActions,
  ) {}

  onState(state: RTCPeerConnectionState): void {
    this.state = state;
    if (state === "connected") {
      this.reset();
      this.actions.restored();
    } else if (state === "disconnected" && !this.trouble) {
      this.trouble = true;
      this.actions.check();
      // Most interruptions heal by themselves: a radio that changes cells, a sleeping router.
      this.wait(limits.MEDIA_INTERRUPTED_MS, () => this.restart());
    } else if (state === "failed") {
      this.trouble = true;
      this.actions.check();
      this.restart();
    }
  }

  /** What came all the time comes no more. */
  onSilence(): void {
    this.silent = true;
  }

  /** Something comes. */
  onLife(): void {
    if (!this.silent) return;
    this.silent = false;
    // Where the browser noticed nothing, it has no news either.
    if (this.state === "connected") this.onState("connected");
  }

  onLink(isUp: boolean): void {
    if (this.linkDown === !isUp) return;
    this.linkDown = !isUp;
    this.cancel();
    this.restarts = 0;
    if (isUp && (this.trouble || this.silent)) this.restart();
  }

  get isWell(): boolean {
    return !this.trouble && !this.silent;
  }

  /** All is well, or all is new. */
  reset(): void {
    this.cancel();
    this.trouble = this.silent = false;
    this.restarts = 0;
  }

  private restart(): void {
    if (this.linkDown) return;
    const leastMs = limits.ICE_RESTARTS_MS[this.restarts];
    if (leastMs === undefined) return this.afresh();
    this.restarts += 1;
    this.actions.interrupted();
    this.actions.restartIce();
    const again = (ms: number) =>
      this.waitTrips(ms, limits.ICE_RESTART_ROUND_TRIPS, () => this.restart());
    if (this.state !== "failed") return again(leastMs);
    this.waitTrips(limits.ICE_REVIVAL_MS, limits.ICE_REVIVAL_ROUND_TRIPS, () => {
      if (this.state === "failed") this.afresh();
      else again(leastMs - limits.ICE_REVIVAL_MS);
    });
  }

  private afresh(): void {
    this.reset();
    this.state = "new";
    this.actions.startAfresh();
  }

  /** Waits for so long, and on a slow line for so many round trips. */
  private waitTrips(leastMs: number, trips: number, task: () => void): void {
    this.wait(leastMs, () => {
      // The answer to the offer tells better how slow it is than what was known before.
      const slowMs = Math.min(trips * this.actions.roundTripMs(), limits.ICE_RESTART_MS_MAX);
      if (slowMs > leastMs) this.wait(slowMs - leastMs, task);
      else task();
    });
  }

  private wait(ms: number, task: () => void): void {
    this.cancel();
    if (!this.linkDown) this.cancel = this.timers.after(ms, task);
  }
}
