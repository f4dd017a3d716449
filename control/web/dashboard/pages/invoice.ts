import { type Invoice, type InvoiceLine } from "../api.js";
import { type Child, h } from "../dom.js";
import { confirmed } from "../form.js";
import { count, utcDay, utcMonth } from "../format.js";
import { link } from "../parts.js";
import { address } from "../route.js";
import { table } from "../table.js";
import { type Context, type View } from "../view.js";
import { money } from "./invoices.js";

/** One invoice or its draft, as it is printed. `id` is the application, a slash and the month. */
export async function invoice(context: Context, id: string): Promise<View> {
  const { api, signal } = context;
  const slash = id.lastIndexOf("/");
  const [application, month] = [id.slice(0, Math.max(0, slash)), id.slice(slash + 1)];
  const path = `/invoices/${encodeURIComponent(application)}/${encodeURIComponent(month)}`;
  const told = await api.get<Invoice>(path, {}, signal);
  const title = told.number === null ? "Draft of an invoice" : `Invoice ${told.number}`;
  const facts: [string, Child][] = [
    ["Application", told.application],
    ["Month", `${told.month} (UTC)`],
    ["Issued", told.issuedAt === null ? "not yet: it changes with the minutes" : `${utcDay(told.issuedAt)} (UTC)`],
    ["Issued by", h("span", { class: "lines" }, told.issuer || "–")],
  ];
  return {
    title,
    content: [
      h("p", { class: "screen" }, link(address("invoices"), "← Invoices")),
      h(
        "dl",
        { class: "facts" },
        facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
      ),
      table<InvoiceLine>({
        title: "Lines",
        rows: told.lines,
        columns: [
          { name: "Month", cell: (line) => line.month },
          { name: "What", cell: what },
          { name: "Minutes", cell: (line) => count(line.minutes), isNumber: true },
          {
            name: "1,000 minutes",
            cell: (line) => money(line.perThousandMinutes, told.currency),
            isNumber: true,
          },
          { name: "Amount", cell: (line) => money(line.amount, told.currency), isNumber: true },
        ],
      }),
      h(
        "p",
        { class: "total" },
        `Total of ${count(told.minutes)} minutes: `,
        h("strong", {}, money(told.total, told.currency)),
      ),
      h(
        "p",
        { class: "quiet" },
        `Each line is rounded to ${told.decimals} decimals, halves away from zero. Taxes are not in it.`,
      ),
      h(
        "p",
        { class: "row screen" },
        h("button", { type: "button", onclick: () => print() }, "Print"),
        h("button", { type: "button", onclick: () => void csv(context, path, told) }, "CSV"),
        issueButton(context, path, told),
      ),
    ],
  };
}

function what({ kind, minutes }: InvoiceLine): string {
  if (kind === "usage") return "Participant minutes";
  return minutes < 0 ? "Minutes billed before that were none" : "Minutes that came late";
}

function issueButton({ api, me, act }: Context, path: string, told: Invoice): Child {
  if (told.state === "issued" || me.role !== "operator") return undefined;
  if (told.month >= utcMonth(Date.now())) {
    return h("span", { class: "quiet" }, "It can be issued when the month is over.");
  }
  const issue = async (): Promise<void> => {
    const title = `Issue ${told.month} of ${told.application}?`;
    const text =
      "It gets the next number and is never changed again. What changes later is on the next one.";
    if (await confirmed({ title, text, action: "Issue it" })) {
      await act(async () => void (await api.send("POST", path)));
    }
  };
  return h(
    "button",
    { type: "button", class: "primary", id: "issue", onclick: () => void issue() },
    "Issue",
  );
}

async function csv({ api, act }: Context, path: string, told: Invoice): Promise<void> {
  await act(async () => {
    const text = await api.text(path, { format: "csv" });
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    const name = `invoice-${told.number ?? "draft"}-${told.month}.csv`;
    h("a", { href: url, download: name }).click();
    // The browser has begun to read it by then.
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
}
