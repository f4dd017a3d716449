/** What the SDK reads of an `RTCStatsReport`: the DOM library knows only a part of the fields. */

/** The fields that browsers agree on. */
export interface Entry {
  id: string;
  type: string;
  timestamp: number;
  mid?: string;
  kind?: string;
  trackIdentifier?: string;
  remoteId?: string;
  [field: string]: unknown;
}

/** A report by the ids of its entries. */
export type Entries = ReadonlyMap<string, Entry>;

export async function entriesOf(connection: RTCPeerConnection): Promise<Entries> {
  const entries = new Map<string, Entry>();
  const report = await connection.getStats();
  report.forEach((entry: Entry) => entries.set(entry.id, entry));
  return entries;
}

/** The pair of candidates that media takes; undefined while there is none. */
export function selectedPair(entries: Entries): Entry | undefined {
  const all = [...entries.values()];
  for (const { type, selectedCandidatePairId } of all) {
    if (type === "transport" && typeof selectedCandidatePairId === "string") {
      return entries.get(selectedCandidatePairId);
    }
  }
  // Firefox before it had a transport entry marks the pair itself.
  const pairs = all.filter(({ type }) => type === "candidate-pair");
  return (
    pairs.find(({ selected }) => selected === true) ??
    pairs.find(({ nominated, state }) => nominated === true && state !== "failed")
  );
}

export function number(entry: Entry | undefined, field: string): number | undefined {
  const value = entry?.[field];
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** Milliseconds, to a tenth. */
export function ms(seconds: number | null | undefined): number | undefined {
  return typeof seconds === "number" ? Math.round(seconds * 10_000) / 10 : undefined;
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
