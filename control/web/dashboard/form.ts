import { type Query } from "./api.js";
import { type Child, h } from "./dom.js";
import { fromField, toField } from "./format.js";

interface Field {
  name: string;
  label: string;
  /** What can be chosen: values with their words. */
  options?: readonly (readonly [value: string, word: string])[];
  /** Milliseconds since 1970 in the address, local time in the field. */
  isTime?: boolean;
}

/** Fields that choose what a page shows; `go` gets what is set. */
export function filters(
  fields: readonly Field[],
  query: URLSearchParams,
  go: (chosen: Query) => void,
): HTMLElement {
  const onsubmit = (event: Event): void => {
    event.preventDefault();
    const said = new FormData(event.currentTarget as HTMLFormElement);
    go(
      Object.fromEntries(
        fields.map(({ name, isTime }) => {
          const text = String(said.get(name) ?? "").trim();
          return [name, isTime ? fromField(text) : text];
        }),
      ),
    );
  };
  return h(
    "form",
    { class: "filters", onsubmit, role: "search" },
    fields.map((field) => h("label", {}, field.label, control(field, query.get(field.name) ?? ""))),
    h("button", { type: "submit", class: "primary" }, "Show"),
  );
}

function control({ name, options, isTime }: Field, value: string): HTMLElement {
  if (options) {
    return h(
      "select",
      { name },
      options.map(([each, word]) => h("option", { value: each, selected: each === value }, word)),
    );
  }
  if (isTime) {
    const at = Number(value);
    return h("input", {
      name,
      type: "datetime-local",
      value: value && at ? toField(at) : undefined,
    });
  }
  return h("input", {
    name,
    value: value || undefined,
    maxlength: 128,
    autocomplete: "off",
    spellcheck: "false",
  });
}

interface Question {
  title: string;
  text: Child;
  /** What the button says that does it. */
  action: string;
  /** Has to be typed before. */
  typed?: string;
}

/** Asks before what cannot be undone. */
export function confirmed({ title, text, action, typed }: Question): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog = modal(
      title,
      h("p", {}, text),
      typed !== undefined &&
        h(
          "label",
          {},
          `Type ${typed} to go on`,
          h("input", { id: "typed", autocomplete: "off", spellcheck: "false", autofocus: true }),
        ),
      h(
        "form",
        { method: "dialog", class: "row" },
        h("button", { value: "" }, "Cancel"),
        h("button", { value: "yes", class: "danger", id: "do" }, action),
      ),
    );
    const button = dialog.querySelector<HTMLButtonElement>("#do");
    const input = dialog.querySelector<HTMLInputElement>("#typed");
    if (button && input) {
      button.disabled = true;
      input.oninput = () => (button.disabled = input.value !== typed);
    }
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"));
  });
}

/** Shows a secret until it is closed; it is nowhere else. */
export function showSecret(title: string, secret: string): void {
  const said = h("span", { role: "status" });
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(secret);
      said.textContent = "Copied.";
    } catch {
      said.textContent = "The browser does not let this page copy: select it and copy it by hand.";
    }
  };
  modal(
    title,
    h(
      "p",
      {},
      "Keep it where your server finds it. It is shown this once and cannot be had again.",
    ),
    h("p", {}, h("code", { class: "secret", tabindex: 0 }, secret)),
    h(
      "form",
      { method: "dialog", class: "row" },
      said,
      h("button", { type: "button", onclick: () => void copy() }, "Copy"),
      h("button", { class: "primary" }, "Done"),
    ),
  );
}

function modal(title: string, ...children: Child[]): HTMLDialogElement {
  const dialog = h("dialog", { "aria-label": title }, h("h2", {}, title), children);
  // Esc leaves what was said before as the answer.
  dialog.returnValue = "";
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
