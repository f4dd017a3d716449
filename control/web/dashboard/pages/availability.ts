import { type Availability } from "../api.js";
import { chart } from "../chart.js";
import { h } from "../dom.js";
import { filters } from "../form.js";
import { count, duration, percent, utcDay } from "../format.js";
import { empty, meter, tiles, time } from "../parts.js";
import { asked } from "../route.js";
import { table } from "../table.js";
import { type Context, type View, go } from "../view.js";

/** How much of what may be down is spent. */
export async function availability({ api, query, signal }: Context): Promise<View> {
  const found = await api.get<Availability>("/availability", asked(query, ["from", "to"]), signal);
  const { budgetSeconds, spentSeconds } = found;
  const isSpent = spentSeconds > budgetSeconds;
  const share = budgetSeconds > 0 ? spentSeconds / budgetSeconds : 0;
  const fields = [
    { name: "from", label: "From", isTime: true },
    { name: "to", label: "To", isTime: true },
  ];
  const form = filters(fields, query, (wanted) => go("availability", wanted));
  if (found.availability === null) {
    return {
      title: "Availability",
      content: [
        form,
        empty(
          "Nothing was checked then.",
          "Every node checks itself once a minute while it runs: come back in a few minutes, or choose another time.",
        ),
      ],
    };
  }
  return {
    title: "Availability",
    everyMs: 60_000,
    content: [
      form,
      tiles(
        ["Availability", percent(found.availability, 3)],
        ["Promised", percent(found.promised, 2)],
        ["Budget", duration(budgetSeconds), "what may be down in this time"],
        ["Spent", duration(spentSeconds)],
        ["Left", duration(budgetSeconds - spentSeconds)],
        ["Checked", duration(found.minutes * 60)],
      ),
      h(
        "p",
        { class: "budget" },
        meter(share, "share of the budget that is spent", isSpent),
        isSpent
          ? ` The budget is spent (${percent(share, 0)}): look at the incidents, and change nothing that can wait.`
          : ` ${percent(share, 0)} of the budget is spent.`,
      ),
      chart({
        title: "Minutes down by day (UTC)",
        kind: "bars",
        times: found.days.map(({ at }) => at),
        stepMs: 86_400_000,
        series: [
          { name: "Minutes down", values: found.days.map(({ minutesDown }) => minutesDown) },
        ],
        least: 5,
        text: (value) => `${Math.round(value * 10) / 10} min`,
        when: utcDay,
      }),
      h("h2", {}, "Incidents"),
      found.incidents.length === 0
        ? h("p", { class: "quiet" }, "None: no minute was down.")
        : table({
            title: "Incidents",
            rows: found.incidents,
            columns: [
              { name: "From", cell: ({ from }) => time(from) },
              { name: "To", cell: ({ to }) => time(to) },
              {
                name: "Lasted",
                cell: ({ from, to }) => duration((to - from) / 1000),
                isNumber: true,
              },
              { name: "Reason", cell: ({ reason }) => reason },
            ],
          }),
      h("h2", {}, "Nodes"),
      table({
        title: "Nodes",
        rows: found.nodes,
        columns: [
          { name: "Node", cell: ({ node }) => node },
          { name: "Minutes checked", cell: ({ minutes }) => count(minutes), isNumber: true },
          { name: "Minutes down", cell: ({ minutesDown }) => count(minutesDown), isNumber: true },
        ],
      }),
    ],
  };
}
