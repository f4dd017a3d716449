import { type List, type Session } from "../api.js";
import { h } from "../dom.js";
import { filters } from "../form.js";
import { count } from "../format.js";
import { empty, link, tiles } from "../parts.js";
import { address } from "../route.js";
import { type Context, type View, applicationField, go } from "../view.js";
import { sessionTable } from "./sessionrows.js";

/** What lasts now, on all nodes. */
export async function live(context: Context): Promise<View> {
  const { api, me, query, signal } = context;
  const application = query.get("application");
  const [{ items }, fields] = await Promise.all([
    api.get<List<Session>>("/scopes", { application }, signal),
    applicationField(context),
  ]);
  const pages = Math.max(1, Math.ceil(items.length / ROWS));
  const page = Math.min(pages, Math.max(1, Number(query.get("page")) || 1));
  const shown = items.slice((page - 1) * ROWS, page * ROWS);
  const to = (number: number): string => address("live", { application, page: number });
  return {
    title: "Live scopes",
    everyMs: 5_000,
    content: [
      fields.length > 0 && filters(fields, query, (chosen) => go("live", chosen)),
      tiles(
        ["Scopes", count(items.length)],
        ["Peers", count(items.reduce((sum, { present }) => sum + present, 0))],
        ["With problems", count(items.filter(({ problems }) => problems.length > 0).length)],
        ["Nodes", count(new Set(items.map(({ node }) => node)).size)],
      ),
      items.length === 0
        ? empty("Nobody is there now.", [
            "Scopes show here as soon as a peer joins one. What is over is under ",
            link(address("sessions"), "Sessions"),
            ".",
          ])
        : sessionTable("Live scopes", shown, me),
      items.length >= SCOPES_MAX &&
        h(
          "p",
          { class: "quiet" },
          `Only the newest ${count(SCOPES_MAX)} are here; `,
          link(address("sessions", { live: true }), "Sessions"),
          " has all.",
        ),
      pages > 1 &&
        h(
          "nav",
          { class: "pages", "aria-label": "Pages" },
          page > 1 && link(to(page - 1), "← Newer"),
          h("span", {}, `Page ${page} of ${pages}`),
          page < pages && link(to(page + 1), "Older →"),
        ),
    ],
  };
}

const ROWS = 50;
/** The API's answer has no more. */
const SCOPES_MAX = 1_000;
