import { type Application, type Key, type NewKey } from "../api.js";
import { type Child, h } from "../dom.js";
import { confirmed, showSecret } from "../form.js";
import { empty, link, time } from "../parts.js";
import { address } from "../route.js";
import { table } from "../table.js";
import { type Context, type View } from "../view.js";

/** Applications with their keys: operators add, switch and revoke them. */
export async function applications(context: Context): Promise<View> {
  const { api, me, signal } = context;
  const items = await api.all<Application>("/applications", signal);
  const isOperator = me.role === "operator";
  return {
    title: "Applications and keys",
    content: [
      isOperator
        ? addApplication(context)
        : h("p", { class: "quiet" }, "Operators add and revoke keys."),
      items.length === 0
        ? empty(
            "There is no application.",
            "Add one: it comes with a first key, by whose secret your server signs tokens.",
          )
        : items.map((each) => one(context, each, isOperator)),
    ],
  };
}

function one(
  context: Context,
  { application, concatenated, changesKeys, keys }: Application,
  isOperator: boolean,
): Child {
  const { api, act } = context;
  const path = `/applications/${encodeURIComponent(application)}`;
  const change = (body: object) => (): void => void act(() => api.send("PATCH", path, body));
  const setting = (text: string, isOn: boolean, name: string): Child =>
    h(
      "li",
      {},
      text,
      h("strong", {}, isOn ? "yes" : "no"),
      isOperator && [
        " ",
        h(
          "button",
          {
            type: "button",
            onclick: change({ [name]: !isOn }),
            "aria-label": `${text} ${application}: switch ${isOn ? "off" : "on"}`,
          },
          isOn ? "Switch off" : "Switch on",
        ),
      ],
    );
  const remove = async (): Promise<void> => {
    const text =
      "It and its keys go at once; what was recorded stays. Its clients cannot join any more.";
    const title = `Remove ${application}?`;
    if (await confirmed({ title, text, action: "Remove it", typed: application })) {
      await act(() => api.send("DELETE", path));
    }
  };
  return h(
    "section",
    { class: "panel", "data-key": application, "aria-label": application },
    h("h2", {}, application),
    h(
      "p",
      {},
      link(address("usage", { application }), "Usage"),
      " · ",
      link(address("sessions", { application }), "Sessions"),
    ),
    h(
      "ul",
      { class: "settings" },
      setting("Takes signatures over concatenated fields: ", concatenated, "concatenated"),
      setting("Session keys change when a native client leaves: ", changesKeys, "changesKeys"),
    ),
    keys.length === 0
      ? h("p", { class: "quiet" }, "It has no key: nobody can join.")
      : table<Key>({
          title: `Keys of ${application}`,
          rows: keys,
          key: ({ key }) => key,
          columns: [
            { name: "Key", cell: ({ key }) => h("code", {}, key) },
            {
              name: "Kind",
              cell: ({ kind }) => (kind === "secret" ? "shared secret" : "public key, ES256"),
            },
            { name: "Since", cell: ({ createdAt }) => time(createdAt) },
            {
              name: "State",
              cell: ({ enabled }) => (enabled ? "on" : h("span", { class: "tag" }, "off")),
            },
            ...(isOperator
              ? [{ name: "Change", cell: (key: Key) => buttons(context, path, application, key) }]
              : []),
          ],
        }),
    isOperator && [
      addKey(context, path, application),
      h(
        "p",
        {},
        h(
          "button",
          {
            type: "button",
            class: "danger",
            onclick: () => void remove(),
            "aria-label": `remove ${application}`,
          },
          "Remove this application",
        ),
      ),
    ],
  );
}

function buttons(
  { api, act }: Context,
  path: string,
  application: string,
  { key, enabled }: Key,
): Child {
  const own = `${path}/keys/${encodeURIComponent(key)}`;
  const set = (): void => void act(() => api.send("PATCH", own, { enabled: !enabled }));
  const revoke = async (): Promise<void> => {
    const title = `Revoke ${key} of ${application}?`;
    const text =
      "What is signed with it is refused from then on, everywhere within seconds. Who is in a call stays.";
    if (await confirmed({ title, text, action: "Revoke it" }))
      await act(() => api.send("DELETE", own));
  };
  return h(
    "span",
    { class: "row" },
    h(
      "button",
      {
        type: "button",
        onclick: set,
        "aria-label": `switch ${enabled ? "off" : "on"} ${key} of ${application}`,
      },
      enabled ? "Switch off" : "Switch on",
    ),
    h(
      "button",
      {
        type: "button",
        class: "danger",
        onclick: () => void revoke(),
        "aria-label": `revoke ${key} of ${application}`,
      },
      "Revoke",
    ),
  );
}

function addApplication({ api, act }: Context): Child {
  const onsubmit = (event: Event): void => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const application = String(new FormData(form).get("application")).trim();
    void act(async () => {
      type Added = { application: Application; key: NewKey };
      const { key } = await api.send<Added>("POST", "/applications", { application });
      form.reset();
      if (key.secret !== null) showSecret(`Secret of ${key.key}, ${application}`, key.secret);
    });
  };
  return h(
    "form",
    { class: "filters", onsubmit, id: "add-application" },
    h(
      "label",
      {},
      "New application",
      h("input", { name: "application", required: true, maxlength: 64, autocomplete: "off" }),
    ),
    h("button", { type: "submit", class: "primary" }, "Add"),
  );
}

function addKey({ api, act }: Context, path: string, application: string): Child {
  const onsubmit = (event: Event): void => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const said = new FormData(form);
    const key = String(said.get("key")).trim();
    const publicKey = String(said.get("publicKey")).trim();
    void act(async () => {
      const added = await api.send<NewKey>("POST", `${path}/keys`, {
        key,
        ...(publicKey ? { publicKey } : {}),
      });
      form.reset();
      if (added.secret !== null) showSecret(`Secret of ${added.key}, ${application}`, added.secret);
    });
  };
  return h(
    "details",
    { class: "add" },
    h("summary", {}, "Add a key"),
    h(
      "form",
      { class: "filters", onsubmit },
      h(
        "label",
        {},
        "Name",
        h("input", { name: "key", required: true, maxlength: 64, autocomplete: "off" }),
      ),
      h(
        "label",
        { class: "wide" },
        "Public key on P-256 (PEM); without it a secret is made",
        h("textarea", { name: "publicKey", rows: 3, maxlength: 2048, spellcheck: "false" }),
      ),
      h("button", { type: "submit", class: "primary" }, "Add"),
    ),
  );
}
