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
  options: { headers: Record<string, string>; signal: AbortSignal; cache: "no-store" },
) => Promise<{ status: number; text(): Promise<string> }>;

/**
 * Asks the CnCs which node has a scope: a random one first, the next where it does not answer in
 * time; later the one that answered.
 */
export class Locator {
  private next: number;

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

  /** The node now; `failed`: the endpoint of the one that did. */
  async locate(failed: string | undefined): Promise<Located> {
    const { resolvers } = this.wanted;
    let error = new StraitError("unreachable", "there are no resolvers");
    for (const _ of resolvers) {
      const resolver = resolvers[this.next % resolvers.length] ?? "";
      try {
        return await this.ask(resolver, failed);
      } catch (thrown) {
        error = asStraitError(thrown);
        this.next += 1;
      }
    }
    throw error;
  }

  private async ask(resolver: string, failed: string | undefined): Promise<Located> {
    const abort = new AbortController();
    let cancel = () => {};
    const late = new Promise<never>((_, reject) => {
      cancel = this.timers.after(limits.RESOLVE_TIMEOUT_MS, () => {
        abort.abort();
        reject(new StraitError("unreachable", `no answer from the CnC ${resolver}: is it running?`));
      });
    });
    try {
      return await Promise.race([late, this.get(resolver, failed, abort.signal)]);
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
      const answer = await this.fetch(url.href, { headers, signal, cache: "no-store" });
      status = answer.status;
      text = (await answer.text()).slice(0, limits.RESOLVE_CHARACTERS_MAX);
    } catch {
      throw new StraitError("unreachable", `no answer from the CnC ${resolver}: is it running?`);
    }
    if (status !== 200) throw new StraitError("server", `the CnC ${resolver}: ${text}`, status);
    return located(text, url.protocol);
  }
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
  const found = typeof endpoint === "string" ? atOrigin(node) : undefined;
  if (found) return { url: found.url, endpoint: String(endpoint) };
  throw new StraitError("server", "the CnC names no node: is this the address of one?");
}

/** The node with this origin, `https://HOST:PORT`; undefined where it is none. */
export function atOrigin(origin: string): Located | undefined {
  if (!/^https?:/.test(origin) || !URL.canParse(origin)) return undefined;
  const url = new URL("/ws", origin);
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
