import { Api, type Me, Refused } from "./api.js";
import { h, renew } from "./dom.js";
import { localTime } from "./format.js";
import { keep, recall } from "./memory.js";
import { failure } from "./parts.js";
import { applications } from "./pages/applications.js";
import { availability } from "./pages/availability.js";
import { diagnostics } from "./pages/diagnostics.js";
import { invoices } from "./pages/invoices.js";
import { live } from "./pages/live.js";
import { nodes } from "./pages/nodes.js";
import { problems } from "./pages/problems.js";
import { session } from "./pages/session.js";
import { sessions } from "./pages/sessions.js";
import { usage } from "./pages/usage.js";
import { parse } from "./route.js";
import type { Page, View } from "./view.js";

const PAGES = new Map<string, { page: Page; name?: string; isForOperators?: boolean }>([
  ["live", { page: live, name: "Live" }],
  ["sessions", { page: sessions, name: "Sessions" }],
  ["session", { page: session }],
  ["usage", { page: usage, name: "Usage" }],
  ["invoices", { page: invoices, name: "Invoices" }],
  ["problems", { page: problems, name: "Problems" }],
  ["availability", { page: availability, name: "Availability" }],
  ["applications", { page: applications, name: "Applications" }],
  ["nodes", { page: nodes, name: "Nodes", isForOperators: true }],
  ["diagnostics", { page: diagnostics, name: "Diagnostics" }],
]);

/** What the page is about now; `undefined` before somebody signed in. */
let signedIn: { api: Api; me: Me } | undefined;
/** Ends what the page before still waits for. */
let current = new AbortController();
let timer: ReturnType<typeof setTimeout> | undefined;

const element = <Kind extends HTMLElement>(id: string): Kind => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as Kind;
};
const [main, content, title, notice] = ["main", "content", "title", "notice"].map(element) as [
  HTMLElement,
  HTMLElement,
  HTMLElement,
  HTMLElement,
];
const menu = element<HTMLButtonElement>("menu");

/** Shows the page that the address asks for. */
async function show(): Promise<void> {
  if (!signedIn) return;
  current.abort();
  current = new AbortController();
  closeMenu();
  notice.replaceChildren();
  main.ariaBusy = "true";
  main.dataset["page"] = location.hash;
  mark(parse(location.hash).page);
  await load(current.signal, (view) => {
    title.textContent = view.title;
    document.title = `${view.title} · Strait`;
    content.replaceChildren(h("div", {}, view.content));
    main.ariaBusy = "false";
    scrollTo(0, 0);
    title.focus({ preventScroll: true });
  });
}

/** Brings the page up to date, without a change of what the reader does. */
async function refresh(): Promise<void> {
  const shown = content.firstElementChild;
  await load(
    current.signal,
    (view) => {
      const fresh = h("div", {}, view.content);
      if (shown?.isConnected) renew(shown, fresh);
      else content.replaceChildren(fresh);
      notice.querySelector(".stale")?.remove();
    },
    true,
  );
}

async function load(
  signal: AbortSignal,
  draw: (view: View) => void,
  isAgain = false,
): Promise<void> {
  clearTimeout(timer);
  const { page: name, id, query } = parse(location.hash);
  const page = PAGES.get(name)?.page ?? missing;
  let everyMs: number | undefined = REFRESH_AFTER_FAILURE_MS;
  try {
    if (!signedIn) return;
    const view = await page({ ...signedIn, id, query, signal, act });
    if (signal.aborted) return;
    draw(view);
    everyMs = view.everyMs;
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Refused && error.status === 401) return signOut(error);
    if (isAgain) stale(error);
    else {
      everyMs = undefined;
      title.textContent = "This does not work";
      content.replaceChildren(failure(error, () => void show()));
      main.ariaBusy = "false";
    }
  }
  if (everyMs !== undefined) timer = setTimeout(whenVisible, everyMs);
}

/** A page that nobody looks at asks nothing. */
function whenVisible(): void {
  if (!document.hidden) void refresh();
  else document.addEventListener("visibilitychange", whenVisible, { once: true });
}

function stale(error: unknown): void {
  notice.querySelector(".stale")?.remove();
  const box = failure(error);
  box.classList.add("stale");
  box.prepend(h("p", {}, `What follows is older than ${localTime(Date.now(), true)}.`));
  notice.append(box);
}

async function act(task: () => Promise<void>): Promise<void> {
  const { signal } = current;
  notice.replaceChildren();
  try {
    await task();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return signOut(error);
    if (!signal.aborted) notice.replaceChildren(failure(error));
    return;
  }
  if (!signal.aborted) await refresh();
}

const missing: Page = async () => ({
  title: "No such page",
  content: [h("p", {}, "Nothing is at this address. Choose a page above.")],
});

/** Whose page it is in the navigation. */
function mark(page: string): void {
  const of = page === "session" ? "sessions" : page;
  for (const link of document.querySelectorAll<HTMLElement>("#pages a")) {
    if (link.dataset["page"] === of) link.ariaCurrent = "page";
    else link.removeAttribute("aria-current");
  }
}

function closeMenu(): void {
  menu.ariaExpanded = "false";
}

/** Asks the server for whom the token speaks. */
async function signIn(token: string): Promise<void> {
  const problem = element("signin-problem");
  const button = element<HTMLButtonElement>("signin-button");
  problem.replaceChildren();
  button.disabled = true;
  const api = new Api(token);
  try {
    const me = await api.get<Me>("/me");
    keep(token);
    signedIn = { api, me };
    begin(me);
  } catch (error) {
    if (error instanceof Refused && error.status === 401) keep(undefined);
    element("signin").hidden = false;
    problem.replaceChildren(failure(error));
  } finally {
    button.disabled = false;
  }
}

function begin(me: Me): void {
  element<HTMLFormElement>("signin-form").reset();
  element("who").textContent = me.role === "operator" ? "Operator" : (me.application ?? "");
  const shown = [...PAGES].filter(
    ([, { name, isForOperators }]) =>
      name !== undefined && (!isForOperators || me.role === "operator"),
  );
  element("pages").replaceChildren(
    h(
      "ul",
      {},
      shown.map(([page, { name }]) =>
        h("li", {}, h("a", { href: `#/${page}`, "data-page": page }, name)),
      ),
    ),
  );
  element("signin").hidden = true;
  element("shell").hidden = false;
  void show();
}

/** Forgets the token, and what it showed. */
function signOut(why?: Refused): void {
  current.abort();
  clearTimeout(timer);
  keep(undefined);
  signedIn = undefined;
  content.replaceChildren();
  document.querySelectorAll("dialog").forEach((dialog) => dialog.remove());
  document.title = "Strait dashboard";
  element("shell").hidden = true;
  element("signin").hidden = false;
  element("signin-problem").replaceChildren(...(why ? [failure(why)] : []));
  element("token").focus();
}

/** A page that could not be renewed is asked for again after this. */
const REFRESH_AFTER_FAILURE_MS = 5_000;

element("signin-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void signIn(element<HTMLInputElement>("token").value.trim());
});
element("signout").addEventListener("click", () => signOut());
element("skip").addEventListener("click", (event) => {
  // The part of the address after # says which page it is.
  event.preventDefault();
  title.focus();
});
menu.addEventListener("click", () => {
  menu.ariaExpanded = menu.ariaExpanded === "true" ? "false" : "true";
});
addEventListener("hashchange", () => void show());

const kept = recall();
if (kept !== undefined) void signIn(kept);
else element("signin").hidden = false;
