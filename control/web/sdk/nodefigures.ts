import { NODE_FIGURES_STALE_MS } from "./limits.js";
import type { QualityInfo } from "./protocol.js";
import { ms } from "./report.js";

/** What the node said of a stream that this client sends: of its encodings, the worst. */
export interface NodePublication {
  lossRatio: number | undefined;
  jitterMs: number | undefined;
  queueDelayMs: number | undefined;
}

/** What the node said of a stream that this client gets. */
export interface NodeSubscription {
  roundTripTimeMs: number | undefined;
  heldBack: "nothing" | "lowered" | "paused";
}

/** The newest that the node told by `quality`; what is old is forgotten. */
export class NodeFigures {
  private readonly encodings = new Map<string, { at: number; figures: NodePublication }>();
  private readonly subscriptions = new Map<string, { at: number; figures: NodeSubscription }>();

  note({ publications = [], subscriptions = [] }: QualityInfo, now: number): void {
    for (const each of publications) {
      const { publication, rid, expected, lost, jitterSeconds, queueDelaySeconds } = each;
      const figures = {
        lossRatio: expected > 0 ? Math.max(0, lost) / expected : undefined,
        jitterMs: ms(jitterSeconds),
        queueDelayMs: ms(queueDelaySeconds),
      };
      this.encodings.set(`${publication} ${rid}`, { at: now, figures });
    }
    for (const { publication, roundTripSeconds, heldBack } of subscriptions) {
      // None: this browser has not reported yet.
      const roundTripTimeMs = roundTripSeconds === null ? undefined : ms(roundTripSeconds);
      this.subscriptions.set(publication, { at: now, figures: { roundTripTimeMs, heldBack } });
    }
    for (const map of [this.encodings, this.subscriptions]) {
      for (const [key, { at }] of map) if (now - at > NODE_FIGURES_STALE_MS) map.delete(key);
    }
  }

  ofPublication(id: string | undefined, now: number): NodePublication {
    const its = [...this.encodings]
      .filter(([key, { at }]) => key.split(" ")[0] === id && now - at <= NODE_FIGURES_STALE_MS)
      .map(([, { figures }]) => figures);
    return {
      lossRatio: most(its.map((each) => each.lossRatio)),
      jitterMs: most(its.map((each) => each.jitterMs)),
      queueDelayMs: most(its.map((each) => each.queueDelayMs)),
    };
  }

  ofSubscription(id: string, now: number): NodeSubscription | undefined {
    const told = this.subscriptions.get(id);
    return told && now - told.at <= NODE_FIGURES_STALE_MS ? told.figures : undefined;
  }
}

function most(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length > 0 ? Math.max(...known) : undefined;
}
