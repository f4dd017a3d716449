import { type Problems, type Quality } from "../api.js";
import { chart } from "../chart.js";
import { h } from "../dom.js";
import { filters } from "../form.js";
import { count, localTime, milliseconds, percent } from "../format.js";
import { PROBLEMS, empty, link, meter, tiles } from "../parts.js";
import { address, asked } from "../route.js";
import { type Context, type View, applicationField, go } from "../view.js";

/** What went wrong most, what to do about it, and how quality went over time. */
export async function problems(context: Context): Promise<View> {
  const { api, query, signal } = context;
  const chosen = asked(query, ["application", "from", "to"]);
  const [found, quality, field] = await Promise.all([
    api.get<Problems>("/problems", chosen, signal),
    api.get<Quality>("/quality", { ...chosen, by: unit(chosen["from"], chosen["to"]) }, signal),
    applicationField(context),
  ]);
  const fields = [
    ...field,
    { name: "from", label: "From", isTime: true },
    { name: "to", label: "To", isTime: true },
  ];
  const times = quality.rows.map(({ at }) => at);
  const stepMs = unit(chosen["from"], chosen["to"]) === "day" ? 86_400_000 : 3_600_000;
  const plot = (
    title: string,
    values: (number | null)[],
    least: number,
    text: (value: number) => string,
  ) =>
    chart({
      title,
      kind: "lines",
      times,
      stepMs,
      series: [{ name: title, values }],
      least,
      text,
      when: localTime,
    });
  return {
    title: "Problems",
    content: [
      filters(fields, query, (wanted) => go("problems", wanted)),
      tiles(
        ["Measured", count(found.measured), "streams times minutes"],
        ["From", localTime(found.from)],
        ["To", localTime(found.to)],
      ),
      found.problems.length === 0
        ? empty(
            found.measured > 0 ? "Nothing went wrong." : "Nothing was measured then.",
            found.measured > 0
              ? "No stream had a minute with a problem."
              : "Quality is stored once a minute, for peers that send or get media. Choose another time.",
          )
        : h(
            "ol",
            { class: "problems" },
            found.problems.map((each) =>
              h(
                "li",
                {},
                h("h2", {}, PROBLEMS[each.problem] ?? each.problem),
                h("p", {}, each.meaning),
                h(
                  "p",
                  {},
                  meter(each.share, "share of all that was measured", true),
                  " ",
                  `${percent(each.share, 2)} of what was measured: ${count(each.minutes)} minutes`,
                ),
                h("p", {}, h("strong", {}, "What to do: "), each.remedy),
                h(
                  "p",
                  {},
                  each.sessions.map((session, index) => [
                    index > 0 && ", ",
                    link(address("session", {}, session), `session ${session.slice(0, 12)}`),
                  ]),
                  each.sessions.length > 0 && " · ",
                  link(
                    address("sessions", { ...chosen, problem: each.problem }),
                    "all sessions with it",
                  ),
                ),
              ),
            ),
          ),
      h("h2", {}, "Quality over time"),
      h(
        "div",
        { class: "charts" },
        plot(
          "Score",
          quality.rows.map(({ score }) => score),
          100,
          (value) => String(Math.round(value)),
        ),
        plot(
          "Loss",
          quality.rows.map(({ lossFraction }) => lossFraction),
          0.01,
          (value) => percent(value, 2),
        ),
        plot(
          "Round trip",
          quality.rows.map(({ roundTripSeconds }) => roundTripSeconds),
          0.05,
          milliseconds,
        ),
        plot(
          "Pictures stood still",
          quality.rows.map(({ measured, frozenSeconds }) =>
            measured > 0 ? frozenSeconds / (measured * 60) : null,
          ),
          0.001,
          (value) => percent(value, 2),
        ),
      ),
    ],
  };
}

/** A month by hour is more than a plot shows, and more than the API answers. */
function unit(from: unknown, to: unknown): "hour" | "day" {
  if (!from) return "hour";
  return (Number(to) || Date.now()) - Number(from) > 14 * 86_400_000 ? "day" : "hour";
}
