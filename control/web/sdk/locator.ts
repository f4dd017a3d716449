import { StraitError, asStraitError } from "./errors.js";
import * as limits from "./limits.js";
import type { Timers } from "./timers.js";

/** Where the server of a scope is. */
export interface Located {
  /** Of the WebSocket. */
  url: string;
  /** `HOST:PORT`, as CnCs name it; undefined of an address that was given. */
  endpoint: string | undefined;
}

/** What CnCs are asked. */
export interface Wanted {
  /** Addresses of CnCs. */
  resolvers: readonly string[];
  application: string;
  scope: string;
  /** Where the client is, if it knows. */
  region: string | undefined;
}

/** The part of `fetch` that is used. */
export type Fetch = (
  url: string,
  options: {
    headers: Record<string, string>;
    signal: AbortSignal;
    cache: "no-store";
    redirect: "error";
  },
) => Promise<{ status: number; text(): Promise<string> }>;

/**
 * Asks the CnCs which node has a scope: a random one first, the next where it does not answer in
 * time; later the one that answered.
 */
export class Locator {
  private next: number;
  /** Rounds that had no answer, in a row. */
  private rounds = 0;

  constructor(
    private readonly wanted: Wanted,
    private readonly timers: Timers,
    private readonly fetch: Fetch = (url, options) => globalThis.fetch(url, options),
  ) {
    if (wanted.resolvers.length === 0 || wanted.resolvers.length > limits.RESOLVERS_MAX) {
      throw new StraitError("unsupported", `1 to ${limits.RESOLVERS_MAX} resolvers are needed`);
    }
    this.next = Math.floor(timers.random() * wanted.resolvers.length);
  }

  /** The node now; `failed`: the endpoint of the one that did. `signal` ends the round at once. */
  async locate(failed: string | undefined, signal?: AbortSignal): Promise<Located> {
    const { resolvers } = this.wanted;
    let error = new StraitError("unreachable", "there are no resolvers");
    for (const _ of resolvers) {
      const resolver = resolvers[this.next % resolvers.length] ?? "";
      try {
        const found = await this.ask(resolver, failed, signal);
        this.rounds = 0;
        return found;
      } catch (thrown) {
        error = asStraitError(thrown);
        if (signal?.aborted) throw error;
        this.next += 1;
      }
    }
    this.rounds += 1;
    throw error;
  }

  private async ask(
    resolver: string,
    failed: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Located> {
    const abort = new AbortController();
    const withinMs = limits.RESOLVE_TIMEOUT_MS * 2 ** this.rounds;
    let cancel = () => {};
    const ended = new Promise<never>((_, reject) => {
      const end = (error: StraitError) => {
        abort.abort();
        reject(error);
      };
      const left = () => end(new StraitError("closed", "the connection was closed"));
      const late = () => end(unanswered(resolver));
      const cancelLate = this.timers.after(Math.min(withinMs, limits.RESOLVE_TIMEOUT_MS_MAX), late);
      signal?.addEventListener("abort", left);
      cancel = () => {
        cancelLate();
        signal?.removeEventListener("abort", left);
      };
      if (signal?.aborted) left();
    });
    try {
      return await Promise.race([ended, this.get(resolver, failed, abort.signal)]);
    } finally {
      cancel();
    }
  }

  private async get(
    resolver: string,
    failed: string | undefined,
    signal: AbortSignal,
  ): Promise<Located> {
    const { application, scope, region } = this.wanted;
    const url = new URL("resolve", resolver.endsWith("/") ? resolver : `${resolver}/`);
    url.searchParams.set("applicationId", application);
    url.searchParams.set("scopeId", scope);
    if (region) url.searchParams.set("region", region);
    if (failed) {
      url.searchParams.set("reconnect", "true");
      url.searchParams.set("streamerEndpoint", failed);
    }
    const headers = { Accept: "application/json" };
    let status: number;
    let text: string;
    try {
      // A CnC answers itself: where another address comes from is to be seen in the answer.
      const options = { headers, signal, cache: "no-store", redirect: "error" } as const;
      const answer = await this.fetch(url.href, options);
      status = answer.status;
      text = (await answer.text()).slice(0, limits.RESOLVE_CHARACTERS_MAX);
    } catch {
      throw unanswered(resolver);
    }
    if (status !== 200) throw new StraitError("server", `the CnC ${resolver}: ${text}`, status);
    return located(text, url.protocol);
  }
}

function unanswered(resolver: string): StraitError {
  return new StraitError("unreachable", `no answer from the CnC ${resolver}: is it running?`);
}

/** Reads JSON with `endpoint` and `https`, or `HOST:PORT`, which then is taken as the CnC itself. */
function located(text: string, protocol: string): Located {
  let endpoint: unknown = text.trim();
  let origin: unknown;
  try {
    ({ endpoint, https: origin } = JSON.parse(text) as { endpoint?: unknown; https?: unknown });
  } catch {
    // Plain text.
  }
  const node = typeof origin === "string" ? origin : `${protocol}//${String(endpoint)}`;
  const found = typeof endpoint === "string" ? atOrigin(node, protocol) : undefined;
  if (found) return { url: found.url, endpoint: String(endpoint) };
  throw new StraitError("server", "the CnC names no node: is this the address of one?");
}

/**
 * The node with this origin, `https://HOST:PORT`; undefined where it is none. Who is encrypted
 * (`from`, an address) leads to nobody who is not: the token would go in the clear.
 */
export function atOrigin(origin: string, from: string): Located | undefined {
  if (!/^https?:/.test(origin) || !URL.canParse(origin)) return undefined;
  const url = new URL("/ws", origin);
  if (/^(https|wss):/.test(from) && url.protocol !== "https:") {
    const reason = `${origin} is not encrypted, and who names it is: it has to name an https address`;
    throw new StraitError("server", reason);
  }
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  return { url: url.href.replace(/^http/, "ws"), endpoint: `${url.hostname}:${port}` };
}

/** The application that a token is of, which is `dev` for development tokens; nothing is verified. */
export function applicationOf(token: string | undefined): string {
  try {
    const claims = (token ?? "").split(".")[1]?.replaceAll("-", "+").replaceAll("_", "/");
    const { iss } = JSON.parse(atob(claims ?? "")) as { iss?: unknown };
    if (typeof iss === "string") return iss;
  } catch {
    // No JSON Web Token.
  }
  return "dev";
}
