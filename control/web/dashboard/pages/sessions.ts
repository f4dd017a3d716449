import { type Paged, type Session } from "../api.js";
import { h } from "../dom.js";
import { filters } from "../form.js";
import { PROBLEMS, empty, link } from "../parts.js";
import { address, asked } from "../route.js";
import { type Context, type View, applicationField, go } from "../view.js";
import { sessionTable } from "./sessionrows.js";

const FILTERS = ["application", "scope", "user", "live", "problem", "from", "to"] as const;

/** All that is stored, the newest first. */
export async function sessions(context: Context): Promise<View> {
  const { api, me, query, signal } = context;
  const chosen = asked(query, FILTERS);
  const cursor = query.get("cursor");
  const [{ items, next }, field] = await Promise.all([
    api.get<Paged<Session>>("/sessions", { ...chosen, cursor, limit: ROWS }, signal),
    applicationField(context),
  ]);
  const fields = [
    ...field,
    { name: "scope", label: "Scope" },
    { name: "user", label: "User" },
    {
      name: "live",
      label: "State",
      options: [
        ["", "All"],
        ["true", "Live"],
        ["false", "Over"],
      ] as const,
    },
    {
      name: "problem",
      label: "Problem",
      options: [["", "All"] as const, ...Object.entries(PROBLEMS)],
    },
    { name: "from", label: "From", isTime: true },
    { name: "to", label: "To", isTime: true },
  ];
  return {
    title: "Sessions",
    content: [
      filters(fields, query, (wanted) => go("sessions", wanted)),
      items.length > 0
        ? sessionTable("Sessions", items, me)
        : empty("No session is like that.", [
            "Change what is asked for, or ",
            link(address("sessions"), "show all"),
            ".",
          ]),
      h(
        "nav",
        { class: "pages", "aria-label": "Pages" },
        cursor !== null && link(address("sessions", chosen), "← The newest"),
        next !== null && link(address("sessions", { ...chosen, cursor: next }), "Older →"),
      ),
    ],
  };
}

const ROWS = 50;
