import { type Timers, realTimers } from "./timers.js";

/**
 * Runs a task at most once at a time; all calls within a window share the next run. Negotiation
 * needs both: one offer in flight, and one offer for several changes.
 */
export class Coalescer {
  private next: Promise<void> | undefined;
  private resolveNext: (run: Promise<void>) => void = () => {};
  private running = false;
  private delayMs = 0;
  private cancelTimer: () => void = () => {};
  private closed = false;

  constructor(
    private readonly run: () => Promise<void>,
    private readonly windowMs: number,
    private readonly timers: Timers = realTimers,
  ) {}

  /**
   * Resolves or rejects with the run that begins after this call: when the window is over, or
   * sooner for whoever is in a hurry, but not while another run is under way.
   */
  schedule(delayMs = this.windowMs): Promise<void> {
    if (this.closed) return Promise.resolve();
    if (!this.next) {
      this.next = new Promise<void>((resolve) => {
        this.resolveNext = resolve;
      });
      // A change that nobody waits for must not become an unhandled rejection.
      this.next.catch(() => {});
      this.delayMs = delayMs;
      if (!this.running) this.arm();
    } else if (delayMs < this.delayMs) {
      this.delayMs = delayMs;
      if (!this.running) this.arm();
    }
    return this.next;
  }

  /** No further run begins; waiting callers are released. */
  close(): void {
    this.closed = true;
    this.cancelTimer();
    this.resolveNext(Promise.resolve());
    this.next = undefined;
  }

  private arm(): void {
    this.cancelTimer();
    this.cancelTimer = this.timers.after(this.delayMs, () => this.start());
  }

  private start(): void {
    this.running = true;
    this.next = undefined;
    const run = this.run();
    this.resolveNext(run);
    const after = () => {
      this.running = false;
      if (this.next && !this.closed) this.arm();
    };
    run.then(after, after);
  }
}
