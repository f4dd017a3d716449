import { type List, type Price } from "../api.js";
import { type Child, h } from "../dom.js";
import { confirmed } from "../form.js";
import { empty } from "../parts.js";
import { table } from "../table.js";
import { type Context } from "../view.js";

/** What minutes cost, with a form that sets it: for operators. */
export async function prices(context: Context): Promise<Child> {
  const { api, signal } = context;
  const { items } = await api.get<List<Price>>("/prices", {}, signal);
  return [
    h("h2", {}, "Prices"),
    items.length === 0
      ? empty("There is no price.", "Set one: without it there is no invoice.")
      : table<Price>({
          title: "Prices",
          rows: items,
          key: ({ application, from }) => `${from} ${application ?? ""}`,
          columns: [
            { name: "From", cell: ({ from }) => from },
            { name: "Application", cell: ({ application }) => application ?? "any other" },
            {
              name: "1,000 minutes",
              cell: ({ perThousandMinutes, currency }) => `${perThousandMinutes} ${currency}`,
              isNumber: true,
            },
            { name: "Issued by", cell: ({ issuer }) => issuer.split("\n")[0] || "–" },
            { name: "Change", cell: (price) => removeButton(context, price) },
          ],
        }),
    setPrice(context),
  ];
}

function removeButton({ api, act }: Context, { application, from }: Price): Child {
  const whose = application ?? "any other application";
  const remove = async (): Promise<void> => {
    const title = `Remove the price of ${whose} from ${from} on?`;
    const text = "Invoices that were issued stay as they are.";
    if (await confirmed({ title, text, action: "Remove it" })) {
      await act(() => api.send("DELETE", "/prices", undefined, { application, from }));
    }
  };
  const label = `remove the price of ${whose} from ${from} on`;
  return h(
    "button",
    { type: "button", class: "danger", onclick: () => void remove(), "aria-label": label },
    "Remove",
  );
}

function setPrice({ api, act }: Context): Child {
  const onsubmit = (event: Event): void => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const said = new FormData(form);
    const text = (name: string): string => String(said.get(name) ?? "").trim();
    void act(async () => {
      await api.send<Price>("PUT", "/prices", {
        application: text("application") || null,
        from: text("from"),
        currency: text("currency"),
        decimals: Number(text("decimals")),
        perThousandMinutes: text("perThousandMinutes"),
        issuer: text("issuer").replace(/\r\n/g, "\n"),
      });
      form.reset();
    });
  };
  const field = (label: string, name: string, more: { [name: string]: unknown }): Child =>
    h("label", {}, label, h("input", { name, autocomplete: "off", required: true, ...more }));
  return h(
    "details",
    { class: "add" },
    h("summary", {}, "Set a price"),
    h(
      "form",
      { class: "filters", onsubmit, id: "set-price" },
      field("Application (none: any other)", "application", { maxlength: 48, required: false }),
      field("From month", "from", { placeholder: "2026-01", pattern: "\\d{4}-\\d{2}" }),
      field("Currency", "currency", { placeholder: "EUR", pattern: "[A-Z]{3}" }),
      field("Decimals", "decimals", { type: "number", min: 0, max: 4, value: 2 }),
      field("1,000 minutes", "perThousandMinutes", {
        placeholder: "3.99",
        inputmode: "decimal",
        pattern: "\\d+(\\.\\d{1,6})?",
      }),
      h(
        "label",
        { class: "wide" },
        "Issued by (name and address)",
        h("textarea", { name: "issuer", rows: 3, maxlength: 400 }),
      ),
      h("button", { type: "submit", class: "primary" }, "Set"),
    ),
  );
}
