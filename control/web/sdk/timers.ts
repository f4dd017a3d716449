/** Time and chance as arguments, so that tests decide both. */
export interface Timers {
  /** Milliseconds since any fixed point, never going back. */
  now(): number;
  /** Runs `task` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, task: () => void): () => void;
  /** A number from 0 (inclusive) to 1 (exclusive). */
  random(): number;
}

/** The browser's own clock. */
export const realTimers: Timers = {
  now: () => performance.now(),
  after: (delayMs, task) => {
    const id = setTimeout(task, delayMs);
    return () => clearTimeout(id);
  },
  random: () => Math.random(),
};
