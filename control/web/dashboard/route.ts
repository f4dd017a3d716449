import { type Query, search } from "./api.js";

/** Which page is asked for, as the part of the address after `#` says it. */
export interface Route {
  /** `live`, `sessions`, … */
  page: string;
  /** Of a page about one thing. */
  id: string | undefined;
  query: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#?\/?/, "").split(/\?(.*)/s);
  const [page = "", ...rest] = path.split("/");
  return {
    page: page || "live",
    id: rest.length > 0 ? decoded(rest.join("/")) : undefined,
    query: new URLSearchParams(query),
  };
}

/** The address of a page. */
export function address(page: string, query: Query = {}, id?: string): string {
  return `#/${page}${id === undefined ? "" : `/${encodeURIComponent(id)}`}${search(query)}`;
}

/** Those parameters of a page that its requests take as they are. */
export function asked(query: URLSearchParams, names: readonly string[]): Query {
  return Object.fromEntries(names.map((name) => [name, query.get(name)]));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // Not one of our addresses: what it says is no identifier either, and the server says so.
    return text;
  }
}
