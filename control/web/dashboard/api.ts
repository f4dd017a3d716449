/** What docs/reference/api.md describes, as far as the dashboard reads it. */
export type Problem =
  "loss_in" | "loss_out" | "freezes" | "lowered" | "paused" | "round_trip" | "queue";

export interface Me {
  role: "operator" | "application";
  application: string | null;
}

export interface Session {
  session: string;
  application: string;
  scope: string;
  node: string;
  createdAt: number;
  endedAt: number | null;
  live: boolean;
  stays: number;
  present: number;
  participantSeconds: number;
  bytesIn: number;
  bytesOut: number;
  score: number | null;
  problems: Problem[];
}

export interface Stay {
  stay: string;
  peer: string;
  name: string;
  user: string;
  client: string;
  node: string;
  joinedAt: number;
  until: number;
  left: boolean;
  reason: string | null;
  participantSeconds: number;
  bytesIn: number;
  bytesOut: number;
  score: number | null;
  problems: Problem[];
}

export interface SessionDetail extends Session {
  peers: Stay[];
  truncated: boolean;
}

/** One minute of a stream. */
export interface Point {
  at: number;
  seconds: number;
  bytes: number;
  score: number;
  lossFraction: number | null;
  roundTripSeconds: number | null;
  queueDelaySeconds: number | null;
  /** Of several minutes the worst; not there where a point is one minute. */
  worst?: Worst;
}

export interface Worst {
  lossFraction: number | null;
  roundTripSeconds: number | null;
  queueDelaySeconds: number | null;
}

export interface Stream {
  stay: string;
  peer: string;
  name: string;
  direction: "in" | "out";
  stream: string;
  points: Point[];
}

export interface Timeline {
  stepSeconds: number;
  streams: Stream[];
  truncated: boolean;
}

export type By = "hour" | "day" | "month";

export interface UsageRow {
  at: number;
  application: string | null;
  participantSeconds: number;
  participantMinutes: number;
  stays: number;
  sessions: number;
  bytesIn: number;
  bytesOut: number;
}

export interface Usage {
  by: string;
  from: number;
  to: number;
  rows: UsageRow[];
  total: UsageRow;
}

export interface Quality {
  from: number;
  to: number;
  rows: {
    at: number;
    measured: number;
    score: number;
    lossFraction: number | null;
    roundTripSeconds: number | null;
    frozenSeconds: number;
  }[];
}

export interface Problems {
  from: number;
  to: number;
  measured: number;
  problems: {
    problem: Problem;
    meaning: string;
    remedy: string;
    minutes: number;
    share: number;
    sessions: string[];
  }[];
}

export interface Availability {
  from: number;
  to: number;
  promised: number;
  minutes: number;
  minutesDown: number;
  availability: number | null;
  budgetSeconds: number;
  spentSeconds: number;
  nodes: { node: string; minutes: number; minutesDown: number }[];
  days: { at: number; minutes: number; minutesDown: number }[];
  incidents: { from: number; to: number; reason: string }[];
}

export interface Key {
  key: string;
  kind: "secret" | "es256";
  enabled: boolean;
  createdAt: number;
}

export interface NewKey extends Key {
  secret: string | null;
}

export interface Application {
  application: string;
  concatenated: boolean;
  changesKeys: boolean;
  keys: Key[];
}

export interface Price {
  application: string | null;
  from: string;
  currency: string;
  decimals: number;
  perThousandMinutes: string;
  issuer: string;
}

/** Amounts are decimals in text: they are shown, never reckoned with. */
export interface InvoiceSummary {
  state: "draft" | "issued";
  number: number | null;
  issuedAt: number | null;
  application: string;
  month: string;
  issuer: string;
  currency: string;
  decimals: number;
  minutes: number;
  total: string;
}

export interface InvoiceLine {
  kind: "usage" | "correction";
  month: string;
  minutes: number;
  perThousandMinutes: string;
  amount: string;
}

export interface Invoice extends InvoiceSummary {
  lines: InvoiceLine[];
}

/** A month that an invoice is lacking of, with the minutes that are on none. */
export interface Due {
  application: string;
  month: string;
  minutes: number;
  over: boolean;
}

export interface Node {
  node: string;
  state: "ready" | "full" | "draining" | "away";
  region: string | null;
  address: string | null;
  scopes: number | null;
  peers: number | null;
  headroom: number | null;
  version: string | null;
  /** Nothing of a node that is away or of a version before. */
  host: Host | null;
  self: boolean;
}

/** What a node's host does; each is `null` where its kernel does not show it. */
export interface Host {
  cpu: number | null;
  memoryBytes: number | null;
  memoryFreeBytes: number | null;
  diskBytes: number | null;
  diskFreeBytes: number | null;
  receivedBitsPerSecond: number | null;
  sentBitsPerSecond: number | null;
  droppedPerSecond: number | null;
}

export interface Entry {
  id: string;
  kind: "reports" | "devices" | "logs";
  application: string;
  scope: string | null;
  session: string | null;
  peer: string | null;
  user: string;
  address: string;
  at: number;
  bytes: number;
}

export interface EntryDetail extends Entry {
  body: unknown;
}

export interface List<Item> {
  items: Item[];
}

export interface Paged<Item> extends List<Item> {
  next: string | null;
}

/** What the server refused, or that it could not be asked; `status` is 0 then. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    readonly remedy: string,
  ) {
    super(reason);
  }
}

type Method = "POST" | "PUT" | "PATCH" | "DELETE";

export type Query = Record<string, string | number | boolean | null | undefined>;

/** Where the API is, seen from the dashboard's page: also behind a proxy that adds a prefix. */
const BASE = "../api/v1";

/** Most items of a page. */
const PAGE_ITEMS = 200;

/** The API with one token. */
export class Api {
  constructor(
    private readonly token: string,
    private readonly ask: typeof fetch = (...request) => fetch(...request),
  ) {}

  /** `path` begins with a slash; what is variable in it is encoded. */
  async get<Answer>(path: string, query: Query = {}, signal?: AbortSignal): Promise<Answer> {
    return (await this.call("GET", path + search(query), undefined, signal)) as Answer;
  }

  /** All pages of a list. */
  async all<Item>(path: string, signal?: AbortSignal): Promise<Item[]> {
    const items: Item[] = [];
    let cursor: string | null | undefined;
    do {
      const page: Paged<Item> = await this.get(path, { limit: PAGE_ITEMS, cursor }, signal);
      items.push(...page.items);
      cursor = page.next;
    } while (cursor);
    return items;
  }

  /** What is no JSON. */
  async text(path: string, query: Query): Promise<string> {
    return (await this.answer("GET", path + search(query))).text();
  }

  async send<Answer>(method: Method, path: string, body?: object, query: Query = {}) {
    return (await this.call(method, path + search(query), body)) as Answer;
  }

  private async call(method: string, path: string, body?: object, signal?: AbortSignal) {
    const answer = await this.answer(method, path, body, signal);
    if (answer.status === 204) return undefined;
    const said: unknown = await answer.json().catch(() => undefined);
    if (said !== undefined) return said;
    throw refused(answer.status, said);
  }

  /** One that is no refusal. */
  private async answer(method: string, path: string, body?: object, signal?: AbortSignal) {
    let answer: Response;
    try {
      answer = await this.ask(BASE + path, {
        method,
        headers: {
          authorization: `Bearer ${this.token}`,
          ...(body ? { "content-type": "application/json" } : {}),
        },
        ...(body ? { body: JSON.stringify(body) } : {}),
        ...(signal ? { signal } : {}),
        cache: "no-store",
        redirect: "error",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refused(
        0,
        "The server does not answer.",
        "See that strait-control runs and that this machine reaches it, then try again.",
      );
    }
    if (answer.ok) return answer;
    throw refused(answer.status, await answer.json().catch(() => undefined));
  }
}

/** A query of what is set. */
export function search(query: Query): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") given.set(name, String(value));
  }
  const text = given.toString();
  return text && `?${text}`;
}

function refused(status: number, said: unknown): Refused {
  const { reason, remedy } = (said ?? {}) as { reason?: unknown; remedy?: unknown };
  if (typeof reason === "string" && typeof remedy === "string") {
    return new Refused(status, reason, remedy);
  }
  return new Refused(
    status,
    `The server answered ${status}, which is no answer of the API.`,
    "See that this strait-control has the role api (cluster.roles), and what its log says.",
  );
}
