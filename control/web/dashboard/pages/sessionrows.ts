import { type Me, type Session } from "../api.js";
import { bytes, duration, minutes } from "../format.js";
import { link, problems, score, time } from "../parts.js";
import { address } from "../route.js";
import { type Column, table } from "../table.js";

/** Sessions as a table, on every page that lists them. */
export function sessionTable(title: string, rows: readonly Session[], me: Me): HTMLElement {
  const columns: Column<Session>[] = [
    {
      name: "Scope",
      cell: ({ session, scope }) => link(address("session", {}, session), scope),
    },
    { name: "Began", cell: ({ createdAt }) => time(createdAt) },
    { name: "Lasted", cell: lasted, isNumber: true },
    {
      name: "Peers",
      cell: ({ live, present, stays }) => (live ? `${present} now` : stays),
      isNumber: true,
    },
    {
      name: "Minutes",
      cell: ({ participantSeconds }) => minutes(participantSeconds),
      isNumber: true,
    },
    { name: "Media", cell: ({ bytesIn, bytesOut }) => bytes(bytesIn + bytesOut), isNumber: true },
    { name: "Quality", cell: (session) => score(session.score) },
    { name: "Problems", cell: (session) => problems(session.problems) },
    { name: "Node", cell: ({ node }) => node },
  ];
  if (me.role === "operator") {
    columns.splice(1, 0, { name: "Application", cell: ({ application }) => application });
  }
  return table({ title, columns, rows, key: ({ session }) => session });
}

/** How long it lasted, or lasts; nothing where its node died before it could say. */
export function lasted({ createdAt, endedAt, live }: Session): string {
  if (endedAt === null && !live) return "–";
  return duration(((endedAt ?? Date.now()) - createdAt) / 1000);
}
