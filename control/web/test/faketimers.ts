import type { Timers } from "../sdk/timers.js";

/** A clock that a test turns. */
export class FakeTimers implements Timers {
  private nowMs = 0;
  private queue: { at: number; task: () => void }[] = [];
  chance = 0.5;

  now(): number {
    return this.nowMs;
  }

  random(): number {
    return this.chance;
  }

  after(delayMs: number, task: () => void): () => void {
    const entry = { at: this.nowMs + delayMs, task };
    this.queue.push(entry);
    return () => {
      this.queue = this.queue.filter((each) => each !== entry);
    };
  }

  /** Lets time pass; promises that wait for nothing else settle in between. */
  async pass(ms: number): Promise<void> {
    const end = this.nowMs + ms;
    await settle();
    for (;;) {
      const next = this.queue.filter((each) => each.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.queue = this.queue.filter((each) => each !== next);
      this.nowMs = Math.max(this.nowMs, next.at);
      next.task();
      await settle();
    }
    this.nowMs = end;
    await settle();
  }
}

/** Runs all promise reactions that are due. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) {
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}
