import { type Host, type List, type Node } from "../api.js";
import { type Child, h } from "../dom.js";
import { bytes, count, percent, rate } from "../format.js";
import { empty, meter } from "../parts.js";
import { table } from "../table.js";
import { type Context, type View } from "../view.js";

/** The nodes of the cluster, how much more they carry, and buttons that drain them. */
export async function nodes({ api, signal, act }: Context): Promise<View> {
  const { items } = await api.get<List<Node>>("/nodes", {}, signal);
  const move = (node: string, verb: "drain" | "undrain") => () =>
    void act(() => api.send("POST", `/nodes/${encodeURIComponent(node)}/${verb}`));
  const button = ({ node, state }: Node) => {
    if (state === "away") return h("span", { class: "quiet" }, "–");
    const verb = state === "draining" ? "undrain" : "drain";
    return h(
      "button",
      { type: "button", onclick: move(node, verb), "aria-label": `${verb} ${node}` },
      verb === "drain" ? "Drain" : "Undrain",
    );
  };
  return {
    title: "Nodes",
    everyMs: 3_000,
    content: [
      h(
        "p",
        { class: "quiet" },
        "A node that drains takes no new scopes; those that it has go on until they end by themselves.",
      ),
      items.length === 0
        ? empty(
            "No node is there.",
            "A strait-control with the role node shows here within a second of its start.",
          )
        : table<Node>({
            title: "Nodes",
            rows: items,
            key: ({ node }) => node,
            columns: [
              {
                name: "Node",
                cell: ({ node, self }) => [
                  node,
                  self && h("span", { class: "quiet" }, " (answers)"),
                ],
              },
              {
                name: "State",
                cell: ({ state }) =>
                  h("span", { class: `state ${state}`, title: STATES[state] }, state),
              },
              { name: "Headroom", cell: headroom },
              { name: "Scopes", cell: ({ scopes }) => known(scopes), isNumber: true },
              { name: "Peers", cell: ({ peers }) => known(peers), isNumber: true },
              { name: "Region", cell: ({ region }) => region ?? "–" },
              { name: "Address", cell: ({ address }) => address ?? "–" },
              { name: "Version", cell: ({ version }) => version ?? "–" },
              { name: "Drain", cell: button },
            ],
          }),
      items.length > 0 && hosts(items),
    ],
  };
}

/** What the hosts do, as their nodes said in the last seconds. */
function hosts(items: readonly Node[]): Child {
  const used = (name: string, all: keyof Host, free: keyof Host) => ({
    name,
    cell: ({ node, host }: Node): Child => {
      const [most, left] = [host?.[all], host?.[free]];
      if (!most || left === null || left === undefined) return "–";
      const share = 1 - left / most;
      const title = `${bytes(most - left)} of ${bytes(most)}`;
      return h("span", { class: "row", title }, busy(share, `${name} of ${node}`), title);
    },
  });
  const cpu = ({ node, host }: Node): Child => {
    if (typeof host?.cpu !== "number") return "–";
    return h("span", { class: "row" }, busy(host.cpu, `CPU of ${node}`), percent(host.cpu, 0));
  };
  const figure = (name: string, of: keyof Host, shown: (value: number) => string) => ({
    name,
    cell: ({ host }: Node): Child => (typeof host?.[of] === "number" ? shown(host[of]) : "–"),
    isNumber: true,
  });
  return [
    h("h2", {}, "Hosts"),
    table<Node>({
      title: "Hosts",
      rows: items,
      key: ({ node }) => `host of ${node}`,
      columns: [
        { name: "Node", cell: ({ node }) => node },
        { name: "CPU", cell: cpu },
        used("Memory", "memoryBytes", "memoryFreeBytes"),
        used("Disk", "diskBytes", "diskFreeBytes"),
        figure("In", "receivedBitsPerSecond", rate),
        figure("Out", "sentBitsPerSecond", rate),
        figure("Dropped/s", "droppedPerSecond", count),
      ],
    }),
  ];
}

/** Red where alert rules begin to complain. */
const busy = (share: number, name: string): Child => meter(share, name, share > 0.9);

const STATES: Record<Node["state"], string> = {
  ready: "takes new scopes",
  full: "has no headroom left: new scopes go elsewhere",
  draining: "takes no new scopes",
  away: "does not renew its lease: see whether it runs and reaches Redis",
};

const known = (value: number | null): string => (value === null ? "–" : count(value));

function headroom({ node, headroom: share }: Node) {
  if (share === null) return "–";
  return h(
    "span",
    { class: "row" },
    meter(share, `headroom of ${node}`, share < 0.1),
    percent(share, 0),
  );
}
