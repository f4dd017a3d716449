import { type SessionDetail, type Stay, type Stream, type Timeline } from "../api.js";
import { rate } from "../../page/figures.js";
import { chart } from "../chart.js";
import { type Child, h, s } from "../dom.js";
import {
  bytes,
  clock,
  count,
  duration,
  localTime,
  milliseconds,
  minutes,
  percent,
} from "../format.js";
import { link, problems, score, tiles, time } from "../parts.js";
import { address, asked } from "../route.js";
import { table } from "../table.js";
import { type Context, type View, go } from "../view.js";
import { lasted } from "./sessionrows.js";
import { type Step, stepsOf } from "./timeline.js";

/** One session: who was there when, and how it went. */
export async function session(context: Context): Promise<View> {
  const { api, me, query, signal } = context;
  const id = context.id ?? "";
  const path = `/sessions/${encodeURIComponent(id)}`;
  const [detail, timeline] = await Promise.all([
    api.get<SessionDetail>(path, {}, signal),
    api.get<Timeline>(`${path}/quality`, { points: POINTS }, signal),
  ]);
  const until = Math.max(detail.endedAt ?? 0, ...detail.peers.map((each) => each.until));
  const end = detail.live ? Date.now() : until;
  return {
    title: detail.scope,
    ...(detail.live ? { everyMs: 10_000 } : {}),
    content: [
      h(
        "p",
        { class: "quiet" },
        detail.live ? "Lives since " : "Began ",
        time(detail.createdAt, true),
        ` on ${detail.node}`,
        me.role === "operator" && ` for ${detail.application}`,
        ". ",
        link(
          address("sessions", { application: detail.application, scope: detail.scope }),
          "All of this scope",
        ),
        " · ",
        link(
          address("diagnostics", { application: detail.application, session: id }),
          "What clients posted",
        ),
      ),
      tiles(
        ["Lasted", lasted(detail)],
        ["Peers came", count(detail.stays)],
        ["There now", count(detail.present)],
        ["Minutes", minutes(detail.participantSeconds), "participant minutes"],
        ["In", bytes(detail.bytesIn), "media from peers"],
        ["Out", bytes(detail.bytesOut), "media to peers"],
        ["Quality", score(detail.score)],
        ["Problems", problems(detail.problems)],
      ),
      h("h2", {}, "Who was there"),
      stays(detail, detail.createdAt, end, query),
      h("h2", {}, "Quality"),
      quality(timeline, query, (chosen) => go(`session/${encodeURIComponent(id)}`, chosen)),
    ],
  };
}

function stays(detail: SessionDetail, from: number, to: number, query: URLSearchParams): Child {
  if (detail.peers.length === 0) return h("p", { class: "quiet" }, "Nobody's stay was told.");
  const pages = Math.ceil(detail.peers.length / ROWS);
  const page = Math.min(pages, Math.max(1, Number(query.get("page")) || 1));
  const at = (number: number): string =>
    address("session", { ...asked(query, ["stream"]), page: number }, detail.session);
  const axis = h("span", { class: "axis" }, h("span", {}, clock(from)), h("span", {}, clock(to)));
  const shown = table<Stay>({
    title: "Who was there",
    rows: detail.peers.slice((page - 1) * ROWS, page * ROWS),
    key: ({ stay }) => stay,
    columns: [
      { name: "Peer", cell: ({ name, peer }) => h("span", { title: peer }, name || peer) },
      { name: "When", cell: (stay) => bar(stay, from, to) },
      { name: "Came", cell: ({ joinedAt }) => time(joinedAt) },
      {
        name: "Stayed",
        cell: ({ participantSeconds }) => duration(participantSeconds),
        isNumber: true,
      },
      { name: "User", cell: ({ user }) => user || "–" },
      { name: "Client", cell: ({ client }) => client },
      { name: "Left", cell: ({ left, reason }) => (left ? (reason ?? "yes") : "is there") },
      { name: "Quality", cell: (stay) => score(stay.score) },
      { name: "Problems", cell: (stay) => problems(stay.problems) },
    ],
  });
  shown.classList.add("stays");
  shown.querySelectorAll("th")[1]?.append(axis);
  return [
    shown,
    detail.truncated &&
      h("p", { class: "quiet" }, "There were more: the API tells the first 1,000."),
    pages > 1 &&
      h(
        "nav",
        { class: "pages", "aria-label": "Pages of peers" },
        page > 1 && link(at(page - 1), "← Earlier"),
        h("span", {}, `Page ${page} of ${pages}`),
        page < pages && link(at(page + 1), "Later →"),
      ),
  ];
}

function bar({ joinedAt, until, left, name }: Stay, from: number, to: number): Child {
  const span = Math.max(1, to - from);
  const x = Math.min(99.4, (Math.max(0, joinedAt - from) / span) * 100);
  const length = ((Math.max(until, joinedAt) - joinedAt) / span) * 100;
  // Who is there still may have been told of after the session was.
  const width = Math.min(100 - x, Math.max(0.6, length));
  const label = `${name} from ${localTime(joinedAt, true)} ${left ? `to ${localTime(until, true)}` : "until now"}`;
  return s(
    "svg",
    {
      class: "bar",
      viewBox: "0 0 100 10",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    s("title", {}, label),
    s("rect", { class: "rail", x: 0, y: 4.5, width: 100, height: 1 }),
    s("rect", {
      class: left ? "presence" : "presence here",
      x,
      y: 0,
      width,
      height: 10,
    }),
  );
}

const PLOTS: {
  title: string;
  least: number;
  of: (step: Step) => number | null;
  text: (value: number) => string;
}[] = [
  { title: "Loss", least: 0.01, of: ({ loss }) => loss, text: (value) => percent(value) },
  { title: "Queue delay", least: 0.02, of: ({ queue }) => queue, text: milliseconds },
  { title: "Bitrate", least: 50_000, of: ({ bitrate }) => bitrate, text: rate },
  { title: "Round trip", least: 0.05, of: ({ roundTrip }) => roundTrip, text: milliseconds },
];

/** Of all streams the worst minute of each step, in and out, or of the one that was chosen. */
function quality(
  { streams, stepSeconds, truncated }: Timeline,
  query: URLSearchParams,
  go: (chosen: { stream: string; page: string | null }) => void,
): Child {
  if (streams.length === 0) {
    return h(
      "p",
      { class: "quiet" },
      "Nothing was measured: quality is stored once a minute, for peers that send or get media.",
    );
  }
  const chosen = streams.find((each) => keyOf(each) === query.get("stream"));
  const onchange = (event: Event): void =>
    go({ stream: (event.currentTarget as HTMLSelectElement).value, page: query.get("page") });
  const options = streams
    .slice(0, OPTIONS_MAX)
    .map((each) => h("option", { value: keyOf(each), selected: each === chosen }, nameOf(each)));
  const shown: [string, Map<number, Step>][] = chosen
    ? [[nameOf(chosen), stepsOf([chosen])]]
    : (["in", "out"] as const).map((way) => [
        way === "in" ? "From peers" : "To peers",
        stepsOf(streams.filter(({ direction }) => direction === way)),
      ]);
  const times = [...new Set(shown.flatMap(([, found]) => [...found.keys()]))].sort((a, b) => a - b);
  const isOfDays = (times.at(-1) ?? 0) - (times[0] ?? 0) > 86_400_000;
  const plots = PLOTS.map(({ title, least, of, text }) =>
    chart({
      title,
      kind: "lines",
      times,
      stepMs: stepSeconds * 1_000,
      series: shown.map(([name, found]) => ({
        name,
        values: times.map((at) => {
          const step = found.get(at);
          return step ? of(step) : null;
        }),
      })),
      least,
      text,
      when: (at) => (isOfDays ? localTime(at) : clock(at)),
    }),
  );
  return [
    h(
      "label",
      { class: "row" },
      "Stream",
      h(
        "select",
        { onchange, id: "stream" },
        h("option", { value: "" }, "All: the worst of each moment, bitrates together"),
        options,
      ),
    ),
    truncated &&
      h(
        "p",
        { class: "quiet" },
        "There was more than the API tells at once: this is the beginning.",
      ),
    h("div", { class: "charts" }, plots),
  ];
}

const keyOf = ({ stay, direction, stream }: Stream): string => [stay, direction, stream].join("/");
const nameOf = ({ name, peer, direction, stream }: Stream): string =>
  direction === "in" ? `${name || peer} sends ${stream}` : `${name || peer} gets`;

const ROWS = 50;
/** Of one plot: more would be a few pixels apart. */
const POINTS = 120;
/** More streams than anybody looks for in a list. */
const OPTIONS_MAX = 500;
