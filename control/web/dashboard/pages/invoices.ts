import { type Due, type InvoiceSummary, type List, type Paged } from "../api.js";
import { type Child, h } from "../dom.js";
import { filters } from "../form.js";
import { count, utcMonth } from "../format.js";
import { empty, link, time } from "../parts.js";
import { address, asked } from "../route.js";
import { table } from "../table.js";
import { type Context, type View, applicationField, go } from "../view.js";
import { invoice } from "./invoice.js";
import { prices } from "./prices.js";

/** Invoices that were issued, months that have none yet, prices; or one of the invoices. */
export async function invoices(context: Context): Promise<View> {
  return context.id === undefined ? list(context) : invoice(context, context.id);
}

/** Where one of them is, drafts too. */
export const at = ({ application, month }: { application: string; month: string }): string =>
  address("invoices", {}, `${application}/${month}`);

async function list(context: Context): Promise<View> {
  const { api, me, query, signal } = context;
  const chosen = asked(query, ["application", "month"]);
  const cursor = query.get("cursor");
  const isOperator = me.role === "operator";
  const [{ items, next }, due, field, priced] = await Promise.all([
    api.get<Paged<InvoiceSummary>>("/invoices", { ...chosen, cursor, limit: ROWS }, signal),
    cursor === null ? api.get<DueList>("/invoices/due", chosen, signal) : undefined,
    applicationField(context),
    isOperator && cursor === null && prices(context),
  ]);
  const fields = [
    ...field,
    { name: "month", label: "Month (UTC)", options: [["", "Any"] as const, ...months(Date.now())] },
  ];
  const application = { name: "Application", cell: (row: Due) => row.application };
  const minutes = { name: "Minutes", cell: (row: Due) => count(row.minutes), isNumber: true };
  return {
    title: "Invoices",
    content: [
      filters(fields, query, (wanted) => go("invoices", wanted)),
      items.length === 0
        ? empty("No such invoice was issued.", "Choose all months, or issue one of those below.")
        : table<InvoiceSummary>({
            title: "Invoices",
            rows: items,
            key: ({ number }) => String(number),
            columns: [
              { name: "Number", cell: (row) => link(at(row), String(row.number)) },
              ...(field.length > 0
                ? [{ name: "Application", cell: (row: InvoiceSummary) => row.application }]
                : []),
              { name: "Month", cell: ({ month }) => month },
              { name: "Issued", cell: ({ issuedAt }) => time(issuedAt) },
              { name: "Minutes", cell: (row) => count(row.minutes), isNumber: true },
              { name: "Total", cell: (row) => money(row.total, row.currency), isNumber: true },
            ],
          }),
      h(
        "nav",
        { class: "pages", "aria-label": "Pages" },
        cursor !== null && link(address("invoices", chosen), "← The newest"),
        next !== null && link(address("invoices", { ...chosen, cursor: next }), "Older →"),
      ),
      due !== undefined && [
        h("h2", {}, "Without an invoice"),
        due.truncated && h("p", { class: "quiet" }, "These are the first of them."),
        due.items.length === 0
          ? empty("Nothing was used that has no invoice.", "Choose another month to see older ones.")
          : table<Due>({
              title: "Without an invoice",
              rows: due.items,
              key: (row) => at(row),
              columns: [
                { name: "Month", cell: (row) => link(at(row), row.month) },
                ...(field.length > 0 ? [application] : []),
                minutes,
                {
                  name: "State",
                  cell: ({ over }) => (over ? "to be issued" : "the month is not over"),
                },
              ],
            }),
      ],
      priced,
    ],
  };
}

interface DueList extends List<Due> {
  truncated: boolean;
}

/** An amount as the API tells it, with its currency. */
export const money = (amount: string, currency: string): Child => `${amount} ${currency}`;

/** This month and those of a year before, the newest first. */
export function months(now: number): (readonly [string, string])[] {
  const date = new Date(now);
  return Array.from({ length: 13 }, (_, back) => {
    const month = utcMonth(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() - back));
    return [month, month] as const;
  });
}

const ROWS = 50;
