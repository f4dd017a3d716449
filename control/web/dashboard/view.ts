import { type Api, type Application, type Me, type Query } from "./api.js";
import { type Child } from "./dom.js";
import { address } from "./route.js";

/** What a page is made from. */
export interface Context {
  api: Api;
  me: Me;
  /** Of a page about one thing. */
  id: string | undefined;
  query: URLSearchParams;
  /** Ends when another page is asked for. */
  signal: AbortSignal;
  /** Does something, says why where it fails, and brings the page up to date. */
  act: (task: () => Promise<void>) => Promise<void>;
}

export interface View {
  title: string;
  content: readonly Child[];
  /** Asks again by itself. */
  everyMs?: number;
}

export type Page = (context: Context) => Promise<View>;

export function go(page: string, query: Query): void {
  location.hash = address(page, query);
}

/** What an operator can choose of: `""` is all. */
export async function choices({ api, signal }: Context): Promise<[string, string][]> {
  const items = await api.all<Application>("/applications", signal);
  return [
    ["", "All"],
    ...items.map(({ application }): [string, string] => [application, application]),
  ];
}

/** The field for it: operators alone have it. */
export async function applicationField(context: Context) {
  if (context.me.role !== "operator") return [];
  return [{ name: "application", label: "Application", options: await choices(context) }];
}
