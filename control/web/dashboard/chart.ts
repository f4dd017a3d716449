import { h, s } from "./dom.js";
import { HEIGHT, WIDTH, across, known, linePath, niceMost } from "./scale.js";
import { type Column, table } from "./table.js";

export interface Series {
  name: string;
  /** One for each time; `null` where nothing is known. */
  values: readonly (number | null)[];
}

export interface Plot {
  title: string;
  kind: "lines" | "bars";
  /** Ascending. */
  times: readonly number[];
  /** How far apart two times are that follow each other. */
  stepMs: number;
  /** Six at most; bars stand on each other. */
  series: readonly Series[];
  /** The end of the scale when all is less. */
  least: number;
  text: (value: number) => string;
  /** Of the scale's end and half, where `text` would round them. */
  scale?: (value: number) => string;
  when: (at: number) => string;
}

/**
 * A plot: lines or bars with their scale, figures of the time that the pointer or the arrow keys choose, and the same
 * as a table behind it.
 */
export function chart(plot: Plot): HTMLElement {
  const { title, times, series, text, when } = plot;
  const [first, last] = [times[0], times.at(-1)];
  const signature = JSON.stringify([title, times, series]);
  if (
    first === undefined ||
    last === undefined ||
    !series.some(({ values }) => known(values)[0] !== undefined)
  ) {
    return h(
      "figure",
      { class: "chart", "data-whole": signature },
      h("figcaption", {}, title),
      h("p", { class: "quiet" }, "Nothing was measured."),
    );
  }
  const sums = times.map((_, index) => total(series.map(({ values }) => values[index] ?? null)));
  const all = plot.kind === "bars" ? sums : series.flatMap(({ values }) => values);
  const most = niceMost(all, plot.least);
  const cursor = s("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const picture = s(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      tabindex: 0,
      "aria-label":
        `${title}, ${when(first)} to ${when(last)}: ${summary(plot, all)}. ` +
        "Arrow keys read it, the table below has all figures.",
    },
    s("path", { class: "grid", d: `M0 0H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT}H${WIDTH}` }),
    plot.kind === "lines"
      ? series.map(({ values }, index) =>
          s("path", { class: `line s${index}`, d: linePath(times, values, most, plot.stepMs) }),
        )
      : bars(plot, most),
    cursor,
  );
  const said = h("output", { class: "said", "aria-live": "polite" });
  const xs =
    plot.kind === "lines" ? across(times) : times.map((_, index) => middle(index, times.length));
  const choose = (index: number): void => {
    const at = times[index];
    if (at === undefined) return;
    cursor.setAttribute("x1", String(xs[index]));
    cursor.setAttribute("x2", String(xs[index]));
    cursor.setAttribute("visibility", "visible");
    const figures = series.map(({ name, values }) => {
      const value = values[index] ?? null;
      const figure = value === null ? "–" : text(value);
      return series.length > 1 ? `${name} ${figure}` : figure;
    });
    said.textContent = `${when(at)}: ${figures.join(", ")}`;
  };
  let chosen = times.length;
  const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 };
  picture.onkeydown = (event) => {
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    chosen = Math.min(times.length - 1, Math.max(0, chosen + step));
    choose(chosen);
  };
  picture.onpointermove = (event) => {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    const apart = xs.map((each) => Math.abs(each - x));
    chosen = apart.indexOf(Math.min(...apart));
    choose(chosen);
  };
  return h(
    "figure",
    { class: "chart", "data-whole": signature },
    h("figcaption", {}, title, said),
    h(
      "div",
      { class: "plot" },
      h(
        "div",
        { class: "scale", "aria-hidden": "true" },
        [most, most / 2, 0].map((value) => h("span", {}, (plot.scale ?? text)(value))),
      ),
      picture,
      h(
        "div",
        { class: "times", "aria-hidden": "true" },
        h("span", {}, when(first)),
        last > first && h("span", {}, when(last)),
      ),
    ),
    series.length > 1 &&
      h(
        "ul",
        { class: "legend" },
        series.map(({ name }, index) =>
          h(
            "li",
            {},
            s(
              "svg",
              { viewBox: "0 0 20 10", "aria-hidden": "true", class: plot.kind },
              s("path", { class: `line s${index}`, d: "M1 5H19" }),
            ),
            name,
          ),
        ),
      ),
    figures(plot),
  );
}

/** Made when it is opened: a long session has thousands of rows. */
function figures({ title, times, series, text, when }: Plot): HTMLElement {
  const rows = times.map((at, index) => ({ at, index }));
  const columns: Column<(typeof rows)[number]>[] = [
    { name: "Time", cell: ({ at }) => when(at) },
    ...series.map(({ name, values }) => ({
      name,
      isNumber: true,
      cell: ({ index }: { index: number }) => {
        const value = values[index] ?? null;
        return value === null ? "–" : text(value);
      },
    })),
  ];
  const details = h("details", {}, h("summary", {}, "Table"));
  details.ontoggle = () => {
    if (details.open && details.childElementCount === 1) {
      details.append(h("div", { class: "scroll", tabindex: 0 }, table({ title, columns, rows })));
    }
  };
  return details;
}

function bars({ times, series }: Plot, most: number): SVGElement[] {
  const width = (WIDTH / times.length) * 0.8;
  const heights = times.map(() => 0);
  return series.map(({ values }, index) => {
    const d = values.map((value, at) => {
      const from = heights[at] ?? 0;
      const height = ((value ?? 0) / most) * HEIGHT;
      heights[at] = from + height;
      const x = middle(at, times.length) - width / 2;
      return height > 0 ? `M${x} ${HEIGHT - from}v${-height}h${width}v${height}z` : "";
    });
    return s("path", { class: `bar s${index}`, d: d.join("") });
  });
}

function middle(index: number, of: number): number {
  return ((index + 0.5) / of) * WIDTH;
}

function summary({ kind, text }: Plot, values: readonly (number | null)[]): string {
  const some = known(values);
  const sum =
    kind === "bars" ? `together ${text(some.reduce((all, each) => all + each, 0))}, ` : "";
  return `${sum}at most ${text(Math.max(...some))}`;
}

function total(values: readonly (number | null)[]): number | null {
  const some = known(values);
  return some.length > 0 ? some.reduce((sum, value) => sum + value, 0) : null;
}
