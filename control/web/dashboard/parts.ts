import { type Problem, Refused } from "./api.js";
import { type Child, h } from "./dom.js";
import { localTime, utcTime } from "./format.js";

/** What the API calls a problem, in words. */
export const PROBLEMS: Record<Problem, string> = {
  loss_in: "Loss in",
  loss_out: "Loss out",
  freezes: "Freezes",
  lowered: "Lowered",
  paused: "Paused",
  round_trip: "Round trip",
  queue: "Queue",
};

/** A time in the viewer's zone, with UTC on hover. */
export function time(at: number | null, seconds = false): Child {
  if (at === null) return "–";
  return h(
    "time",
    { datetime: new Date(at).toISOString(), title: utcTime(at) },
    localTime(at, seconds),
  );
}

/** 0 to 100, with a word for those who do not see its colour. */
export function score(value: number | null): Child {
  if (value === null) return h("span", { class: "quiet", title: "nothing was measured" }, "–");
  const [kind, word] =
    value >= 80 ? ["good", "good"] : value >= 50 ? ["fair", "fair"] : ["bad", "bad"];
  return h("span", { class: `score ${kind}` }, `${Math.round(value)} ${word}`);
}

export function problems(some: readonly Problem[]): Child {
  if (some.length === 0) return h("span", { class: "quiet" }, "none");
  return h(
    "span",
    { class: "tags" },
    some.map((each) => h("span", { class: "tag" }, PROBLEMS[each] ?? each)),
  );
}

export function link(to: string, ...children: Child[]): HTMLElement {
  return h("a", { href: to }, ...children);
}

/** A few figures beside each other. */
export function tiles(...figures: [name: string, value: Child, title?: string][]): HTMLElement {
  return h(
    "dl",
    { class: "tiles" },
    figures.map(([name, value, title]) =>
      h("div", { title }, h("dt", {}, name), h("dd", {}, value)),
    ),
  );
}

/** Nothing to show, and what to do about it. */
export function empty(what: string, remedy: Child): HTMLElement {
  return h("div", { class: "empty" }, h("p", {}, h("strong", {}, what)), h("p", {}, remedy));
}

/** What went wrong, and what to do. */
export function failure(error: unknown, again?: () => void): HTMLElement {
  const refused = error instanceof Refused;
  const reason = refused ? error.reason : `The dashboard failed: ${String(error)}`;
  const remedy = refused ? error.remedy : "Load the page anew; if it fails again, report it.";
  return h(
    "div",
    { class: "failure", role: "alert" },
    h("p", {}, h("strong", {}, reason)),
    h("p", {}, remedy),
    again && h("button", { type: "button", onclick: again }, "Try again"),
  );
}

/** From 0 to 1. */
export function meter(share: number, name: string, isBad = false): HTMLElement {
  const value = Math.min(1, Math.max(0, share));
  return h("progress", { class: isBad ? "bad" : undefined, max: 1, value, "aria-label": name });
}
