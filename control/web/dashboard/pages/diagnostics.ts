import { type Entry, type EntryDetail, type Paged } from "../api.js";
import { h } from "../dom.js";
import { filters } from "../form.js";
import { bytes } from "../format.js";
import { empty, link, time } from "../parts.js";
import { address, asked } from "../route.js";
import { table } from "../table.js";
import { type Context, type View, applicationField, go } from "../view.js";

const FILTERS = ["application", "kind", "scope", "session", "from", "to"] as const;
const KINDS = { reports: "Reports", devices: "Device lists", logs: "Logs" };

/** What clients posted: the list, or one of them. */
export async function diagnostics(context: Context): Promise<View> {
  return context.id === undefined ? list(context) : one(context, context.id);
}

async function list(context: Context): Promise<View> {
  const { api, query, signal } = context;
  const chosen = asked(query, FILTERS);
  const cursor = query.get("cursor");
  const [{ items, next }, field] = await Promise.all([
    api.get<Paged<Entry>>("/diagnostics", { ...chosen, cursor, limit: ROWS }, signal),
    applicationField(context),
  ]);
  const fields = [
    ...field,
    { name: "kind", label: "Kind", options: [["", "All"] as const, ...Object.entries(KINDS)] },
    { name: "scope", label: "Scope" },
    { name: "session", label: "Session" },
    { name: "from", label: "From", isTime: true },
    { name: "to", label: "To", isTime: true },
  ];
  return {
    title: "Diagnostics",
    content: [
      filters(fields, query, (wanted) => go("diagnostics", wanted)),
      items.length === 0
        ? empty(
            "Clients posted nothing like that.",
            "Change what is asked for. Clients post to /api/v1/diagnostics/reports, devices and logs.",
          )
        : table<Entry>({
            title: "Diagnostics",
            rows: items,
            key: ({ id }) => id,
            columns: [
              {
                name: "When",
                cell: ({ id, at }) => link(address("diagnostics", {}, id), time(at, true)),
              },
              { name: "Kind", cell: ({ kind }) => KINDS[kind] ?? kind },
              ...(field.length > 0
                ? [{ name: "Application", cell: ({ application }: Entry) => application }]
                : []),
              { name: "Scope", cell: ({ scope }) => scope ?? "–" },
              { name: "Peer", cell: ({ peer }) => peer ?? "–" },
              { name: "User", cell: ({ user }) => user || "–" },
              { name: "Size", cell: (entry) => bytes(entry.bytes), isNumber: true },
            ],
          }),
      h(
        "nav",
        { class: "pages", "aria-label": "Pages" },
        cursor !== null && link(address("diagnostics", chosen), "← The newest"),
        next !== null && link(address("diagnostics", { ...chosen, cursor: next }), "Older →"),
      ),
    ],
  };
}

async function one({ api, signal }: Context, id: string): Promise<View> {
  const entry = await api.get<EntryDetail>(`/diagnostics/${encodeURIComponent(id)}`, {}, signal);
  const facts: [string, Parameters<typeof h>[2]][] = [
    ["When", time(entry.at, true)],
    ["Application", entry.application],
    ["Scope", entry.scope ?? "–"],
    [
      "Session",
      entry.session === null ? "–" : link(address("session", {}, entry.session), entry.session),
    ],
    ["Peer", entry.peer ?? "–"],
    ["User", entry.user || "–"],
    ["Address", entry.address],
    ["Size", bytes(entry.bytes)],
  ];
  return {
    title: KINDS[entry.kind] ?? entry.kind,
    content: [
      h("p", {}, link(address("diagnostics"), "← Diagnostics")),
      h(
        "dl",
        { class: "facts" },
        facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
      ),
      h(
        "pre",
        { tabindex: 0, "aria-label": "What was posted" },
        JSON.stringify(entry.body, undefined, 2),
      ),
    ],
  };
}

const ROWS = 50;
