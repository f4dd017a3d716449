import type { JsonRtc } from "./jsonrtc.js";
import { MediaWatch, type MediaWatchActions } from "./mediawatch.js";
import { Pulse } from "./pulse.js";
import type { Timers } from "./timers.js";

/**
 * Watches signalling and media together, since each tells of the other: a path that falls silent or
 * is replaced may have taken the WebSocket with it, and a network that is gone takes both.
 */
export class Health {
  private readonly watch: MediaWatch;
  private readonly pulse: Pulse;
  /** Of Chromium alone; it is told of estimates as well, so it only raises the question. */
  private readonly network = (globalThis.navigator as { connection?: EventTarget } | undefined)
    ?.connection;
  private readonly onOnline = () => this.link.retryNow(this.pulse.roundTripMs);
  private readonly onNetwork = () => this.link.check(this.pulse.roundTripMs);

  /** `hasOthers`: another node may take over, so that this one is asked even where nobody sends. */
  constructor(
    timers: Timers,
    private readonly link: JsonRtc,
    connection: () => RTCPeerConnection | undefined,
    hasOthers: boolean,
    actions: Omit<MediaWatchActions, "check" | "roundTripMs">,
  ) {
    const watch = new MediaWatch(timers, {
      ...actions,
      check: this.onNetwork,
      // An offer goes by the one, what follows it by the other.
      roundTripMs: () => Math.max(link.roundTripMs, this.pulse.roundTripMs),
    });
    this.watch = watch;
    this.pulse = new Pulse(timers, connection, {
      onSilence: ({ brokeOff, roundTripMs }) => {
        if (brokeOff) watch.onSilence();
        if (brokeOff || hasOthers) link.doubt(brokeOff, roundTripMs);
      },
      onLife: () => {
        link.believe();
        watch.onLife();
      },
      onMoved: (roundTripMs) => link.check(roundTripMs),
    });
  }

  start(): void {
    this.pulse.start();
    globalThis.addEventListener?.("online", this.onOnline);
    this.network?.addEventListener?.("change", this.onNetwork);
  }

  stop(): void {
    this.pulse.stop();
    this.watch.reset();
    globalThis.removeEventListener?.("online", this.onOnline);
    this.network?.removeEventListener?.("change", this.onNetwork);
  }

  /** Media is not in trouble, as far as is known. */
  get isMediaWell(): boolean {
    return this.watch.isWell;
  }

  onState(state: RTCPeerConnectionState): void {
    this.watch.onState(state);
  }

  onLink(isUp: boolean): void {
    this.watch.onLink(isUp);
  }

  /** All is new. */
  reset(): void {
    this.watch.reset();
  }
}
