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

/** With a prefix, the ids begin with it, so that reports of several connections go together. */
export async function entriesOf(
  source: { getStats(): Promise<RTCStatsReport> },
  prefix = "",
): Promise<Entries> {
  const entries = new Map<string, Entry>();
  const report = await source.getStats();
  report.forEach((entry: Entry) => {
    if (prefix === "") return void entries.set(entry.id, entry);
    const renamed: Entry = { ...entry, id: prefix + entry.id };
    for (const name of REFERENCES) {
      if (typeof entry[name] === "string") renamed[name] = prefix + entry[name];
    }
    entries.set(renamed.id, renamed);
  });
  return entries;
}

/** What names other entries. */
const REFERENCES = ["remoteId", "selectedCandidatePairId"];

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
