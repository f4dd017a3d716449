import { type By, type Usage, type UsageRow } from "../api.js";
import { chart, type Series } from "../chart.js";
import { h } from "../dom.js";
import { filters } from "../form.js";
import { bytes, count, minutes, tick, utcDay, utcMonth, utcTime } from "../format.js";
import { empty, link, tiles } from "../parts.js";
import { address, asked } from "../route.js";
import { after, periods } from "../scale.js";
import { table } from "../table.js";
import { type Context, type View, applicationField, go } from "../view.js";

/** Participant minutes by month, day or hour, and of whom they are. */
export async function usage(context: Context): Promise<View> {
  const { api, me, query, signal } = context;
  const by = BY.find(([each]) => each === query.get("by"))?.[0] ?? "day";
  const chosen = asked(query, ["application", "from", "to"]);
  const isOfEach = me.role === "operator" && !query.get("application");
  const [told, field] = await Promise.all([
    api.get<Usage>("/usage", { ...chosen, by, ...(isOfEach ? { each: true } : {}) }, signal),
    applicationField(context),
  ]);
  const fields = [
    ...field,
    { name: "by", label: "By", options: BY },
    { name: "from", label: "From", isTime: true },
    { name: "to", label: "To", isTime: true },
  ];
  const times = periods(by, told.from, told.to);
  const sums = together(told.rows);
  const { total } = told;
  return {
    title: "Usage",
    content: [
      filters(
        fields,
        by === query.get("by") ? query : new URLSearchParams({ ...Object.fromEntries(query), by }),
        (wanted) => go("usage", wanted),
      ),
      tiles(
        ["Minutes", count(total.participantMinutes), "participant minutes"],
        ["Sessions", count(total.sessions)],
        ["Peers came", count(total.stays)],
        ["In", bytes(total.bytesIn), "media from peers"],
        ["Out", bytes(total.bytesOut), "media to peers"],
      ),
      chart({
        title: "Participant minutes",
        kind: "bars",
        times,
        stepMs: after(by, 0),
        series: stacked(told.rows, times),
        least: 1,
        text: (value) => count(Math.ceil(value)),
        scale: tick,
        when: (at) => name(by, at),
      }),
      isOfEach && [h("h2", {}, "By application"), applications(told.rows, chosen, by)],
      h("h2", {}, `By ${by} (UTC)`),
      sums.length === 0
        ? empty("Nothing was used then.", "Choose another time, or another application.")
        : table<UsageRow>({
            title: `Usage by ${by}`,
            rows: sums.reverse(),
            columns: [
              {
                name: by === "month" ? "Month" : by === "day" ? "Day" : "Hour",
                cell: ({ at }) => within(by, at, chosen["application"]),
              },
              ...FIGURES,
            ],
          }),
    ],
  };
}

const BY = [
  ["month", "Month"],
  ["day", "Day"],
  ["hour", "Hour"],
] as const satisfies readonly (readonly [By, string])[];

const FIGURES = [
  { name: "Minutes", cell: (row: UsageRow) => minutes(row.participantSeconds), isNumber: true },
  { name: "Sessions", cell: (row: UsageRow) => count(row.sessions), isNumber: true },
  { name: "Peers came", cell: (row: UsageRow) => count(row.stays), isNumber: true },
  { name: "In", cell: (row: UsageRow) => bytes(row.bytesIn), isNumber: true },
  { name: "Out", cell: (row: UsageRow) => bytes(row.bytesOut), isNumber: true },
];

const name = (by: By, at: number): string =>
  by === "month" ? utcMonth(at) : by === "day" ? utcDay(at) : utcTime(at).slice(0, 16);

/** A month leads to its days, a day to its hours. */
function within(by: By, at: number, application: string | number | boolean | null | undefined) {
  if (by === "hour") return name(by, at);
  const finer = by === "month" ? "day" : "hour";
  return link(
    address("usage", { application, by: finer, from: at, to: after(by, at) }),
    name(by, at),
  );
}

function applications(
  rows: readonly UsageRow[],
  chosen: { [name: string]: unknown },
  by: By,
): HTMLElement {
  const { from, to } = chosen as { from?: string; to?: string };
  return table<UsageRow>({
    title: "Usage by application",
    rows: byApplication(rows),
    columns: [
      {
        name: "Application",
        cell: ({ application }) =>
          link(address("usage", { application, by, from, to }), application ?? "–"),
      },
      ...FIGURES,
    ],
  });
}

/** Rows of all applications, the oldest first. */
export function together(rows: readonly UsageRow[]): UsageRow[] {
  return summed(
    rows,
    ({ at }) => at,
    (row) => ({ ...row, application: null }),
  ).sort((a, b) => a.at - b.at);
}

/** Rows of all times, who used most first. */
export function byApplication(rows: readonly UsageRow[]): UsageRow[] {
  return summed(
    rows,
    ({ application }) => application,
    (row) => row,
  ).sort((a, b) => b.participantSeconds - a.participantSeconds);
}

function summed(
  rows: readonly UsageRow[],
  by: (row: UsageRow) => unknown,
  first: (row: UsageRow) => UsageRow,
): UsageRow[] {
  const sums = new Map<unknown, UsageRow>();
  for (const row of rows) {
    const sum = sums.get(by(row));
    if (!sum) {
      sums.set(by(row), { ...first(row) });
      continue;
    }
    for (const figure of [
      "participantSeconds",
      "stays",
      "sessions",
      "bytesIn",
      "bytesOut",
    ] as const) {
      sum[figure] += row[figure];
    }
  }
  return [...sums.values()];
}

/** Minutes of the applications that used most, and of all others together. */
export function stacked(rows: readonly UsageRow[], times: readonly number[]): Series[] {
  const names = byApplication(rows).map(({ application }) => application);
  const shown = names.length <= SERIES_MAX ? names : names.slice(0, SERIES_MAX - 1);
  const series = (title: string, of: (application: string | null) => boolean): Series => {
    const seconds = new Map(
      together(rows.filter(({ application }) => of(application))).map(
        ({ at, participantSeconds }) => [at, participantSeconds],
      ),
    );
    return { name: title, values: times.map((at) => (seconds.get(at) ?? 0) / 60) };
  };
  const found = shown.map((each) =>
    series(each ?? "Minutes", (application) => application === each),
  );
  if (shown.length < names.length) {
    found.push(series("Others", (application) => !shown.includes(application)));
  }
  return found;
}

/** As many colours as there are to tell apart. */
const SERIES_MAX = 6;
