// The dashboard in real browsers, over the API of a real strait-control that has 10,000 sessions in its store: its pages,
// how soon they are there, narrow and dark, and with names that would be elements, were they taken for HTML.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { SLACK } from "./lib/bounds.mjs";
import { Browser } from "./lib/browsers.mjs";
import { assertWell, drawn, signedIn, visit, widths } from "./lib/dashboard.mjs";
import { join } from "./lib/page.mjs";
import { Server, TOKEN, program } from "./lib/server.mjs";

const OPERATOR = "an operator's token of 32 characters or more";
const SESSIONS = 10_000;
/** As in control/examples/seed.rs. */
const HOSTILE = `<img src=x onerror="globalThis.hacked=1">`;
/** A page's answer of the API and its drawing together. */
const PAGE_MS = 300 * SLACK;
const PAGES = {
  live: "#/live",
  sessions: "#/sessions",
  session: "#/session/seed-009995",
  long: "#/session/seed-009999",
  usage: "#/usage?by=day",
  months: "#/usage?by=month",
  problems: "#/problems",
  availability: "#/availability",
  applications: "#/applications",
  nodes: "#/nodes",
  invoices: "#/invoices",
  diagnostics: "#/diagnostics",
};

let server;
let browser;
/** A token of an application that sees itself. */
let admin;

before(
  async () => {
    server = await Server.start({
      operatorToken: OPERATOR,
      before: (store) => promisify(execFile)(program("examples/seed"), [store, String(SESSIONS)]),
    });
    browser = await Browser.chromium();
    const { key } = await call("POST", "/applications", OPERATOR, { application: "app-0" });
    admin = signed("app-0", key);
    const report = await call("POST", "/diagnostics/reports", TOKEN, {
      text: HOSTILE,
      scope: HOSTILE,
    });
    await call("POST", "/diagnostics/devices", TOKEN, { cameras: ["one"] });
    PAGES.report = `#/diagnostics/${report.id}`;
    const price = { from: "2020-01", currency: "EUR", perThousandMinutes: "3.99", issuer: HOSTILE };
    await call("PUT", "/prices", OPERATOR, price);
    await call("POST", `/invoices/app-0/${month(1)}`, OPERATOR);
    PAGES.invoice = `#/invoices/app-0%2F${month(1)}`;
    PAGES.draft = `#/invoices/app-0%2F${month(0)}`;
  },
  { timeout: 180_000 },
);

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A call of the API that is answered. */
async function call(method, path, token, body) {
  const answer = await fetch(`${server.address}/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const said = await answer.json();
  assert.ok(answer.ok, `${method} ${path}: ${JSON.stringify(said)}`);
  return said;
}

/** A month of the UTC calendar, so many before this one. */
function month(back) {
  const now = new Date();
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - back)).toISOString().slice(0, 7);
}

/** A JSON Web Token of who administers an application. */
function signed(application, { key, secret }) {
  const claims = { iss: application, sub: "admin", scope: "*", admin: true };
  const parts = [
    { alg: "HS256", typ: "JWT", kid: key },
    { ...claims, exp: Math.floor(Date.now() / 1_000) + 3_600 },
  ].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"));
  const signature = createHmac("sha256", secret).update(parts.join(".")).digest("base64url");
  return [...parts, signature].join(".");
}

test("a token is asked for, and stays in the tab", { timeout: 60_000 }, async () => {
  const tab = await browser.tab();
  await tab.goto(`${server.address}/dashboard/#/usage`);
  await tab.fill("#token", "not-a-token");
  await tab.click("#signin-button");
  await tab.until("the reason", () => document.querySelector("#signin .failure p + p") !== null);
  await tab.screenshot("dashboard-signin");
  tab.errors.length = 0;
  await tab.fill("#token", OPERATOR);
  await tab.click("#signin-button");
  await drawn(tab);
  assert.equal(await tab.evaluate(() => document.querySelector("h1#title").textContent), "Usage");
  const kept = await tab.evaluate(() => ({
    address: location.href,
    local: localStorage.length,
    cookie: document.cookie,
  }));
  assert.ok(!kept.address.includes(OPERATOR), kept.address);
  assert.deepEqual([kept.local, kept.cookie], [0, ""]);
  await tab.reload();
  await drawn(tab);
  await tab.click("#signout");
  await tab.until(
    "signed out",
    () => document.querySelector("#shell").hidden && sessionStorage.length === 0,
  );
  await assertWell(tab);
});

test("any page of 10,000 sessions is there within 300 ms", { timeout: 120_000 }, async (t) => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  for (const [name, hash] of Object.entries(PAGES)) {
    const times = [];
    for (let turn = 0; turn < 3; turn += 1) times.push(await visit(tab, hash));
    times.sort((a, b) => a - b);
    t.diagnostic(`${name}: ${times.map((each) => each.toFixed(0)).join(", ")} ms`);
    assert.ok(times[1] < PAGE_MS, `${name} took ${times} ms`);
    const rows = await tab.evaluate(() => document.querySelectorAll("#content > * > *").length);
    assert.ok(rows > 0, `${name} has content`);
    await tab.screenshot(`dashboard-${name}`);
  }
  await assertWell(tab);
});

test("a session of six hours and twelve peers is shown", { timeout: 60_000 }, async (t) => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  const took = await visit(tab, PAGES.long);
  t.diagnostic(`${took.toFixed(0)} ms`);
  const lines = await tab.evaluate(() =>
    [...document.querySelectorAll(".chart path.line.s0[d]")].map((each) => each.getAttribute("d")),
  );
  // 361 minutes, four of them a step.
  assert.ok(lines.some((line) => line.split("L").length >= 90), "all of it");
  await tab.screenshot("dashboard-long-session");
  await assertWell(tab);
});

test("it works at a phone's width", { timeout: 120_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  await tab.resize(360, 740);
  for (const [name, hash] of Object.entries(PAGES)) {
    await visit(tab, hash);
    const { page, screen, beyond } = await widths(tab);
    assert.ok(page <= screen, `${name} is ${page} wide, the screen ${screen}: ${beyond}`);
    assert.deepEqual(beyond, [], name);
    await tab.screenshot(`dashboard-phone-${name}`);
  }
  // The narrowest that has tables.
  await tab.resize(1040, 700);
  for (const [name, hash] of Object.entries(PAGES)) {
    await visit(tab, hash);
    assert.deepEqual((await widths(tab)).beyond, [], name);
  }
  await tab.resize(360, 740);
  const isShown = () => tab.evaluate(() => document.querySelector("#pages").checkVisibility());
  assert.equal(await isShown(), false);
  await tab.click("#menu");
  assert.equal(await isShown(), true);
  await tab.screenshot("dashboard-phone-menu");
  await tab.click('#pages a[data-page="nodes"]');
  await tab.until("nodes", () => document.querySelector("#title").textContent === "Nodes");
  assert.equal(await isShown(), false, "the menu closes");
  await assertWell(tab);
});

test("it is dark where that is wanted", { timeout: 120_000 }, async () => {
  const dark = await Browser.chromium({ dark: true });
  try {
    const tab = await signedIn(dark, server.address, OPERATOR);
    for (const name of ["live", "session", "usage", "problems", "applications", "invoice"]) {
      await visit(tab, PAGES[name]);
      const contrast = await tab.evaluate(() => {
        const luminance = (colour) => {
          const [r, g, b] = colour.match(/[\d.]+/g).map((each) => {
            const part = Number(each) / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const style = getComputedStyle(document.body);
        const [text, ground] = [luminance(style.color), luminance(style.backgroundColor)];
        return { ground, ratio: (text + 0.05) / (ground + 0.05) };
      });
      assert.ok(contrast.ground < 0.05 && contrast.ratio > 7, JSON.stringify(contrast));
      await tab.screenshot(`dashboard-dark-${name}`);
    }
    await assertWell(tab);
  } finally {
    await dark.close();
  }
});

test("names are text, whatever they are", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  const scope = `${HOSTILE}390`;
  const chosen = `#/sessions?${new URLSearchParams({ scope })}`;
  for (const [text, hash] of [
    [scope, PAGES.live],
    [scope, chosen],
    [`${HOSTILE}0`, PAGES.session],
    [HOSTILE, PAGES.diagnostics],
    [HOSTILE, PAGES.report],
    [HOSTILE, PAGES.invoices],
    [HOSTILE, PAGES.invoice],
  ]) {
    await visit(tab, hash);
    const found = await tab.evaluate(
      (wanted) => ({
        isShown: document.querySelector("#content").textContent.includes(wanted),
        images: document.querySelectorAll("#content img").length,
      }),
      text,
    );
    assert.deepEqual(found, { isShown: true, images: 0 }, hash);
  }
  await visit(tab, chosen);
  const field = await tab.evaluate(() => document.querySelector('input[name="scope"]').value);
  assert.equal(field, scope);
  await assertWell(tab);
});

test("a call is seen while it lasts", { timeout: 120_000 }, async () => {
  const caller = await browser.tab();
  await join(caller, `${server.address}/?scope=seen-live`, { name: HOSTILE, token: TOKEN });
  // A development token sees the application of development.
  const tab = await signedIn(browser, server.address, TOKEN);
  await tab.until(
    "the scope",
    () => document.querySelector("tbody tr a")?.textContent === "seen-live",
  );
  await tab.click("tbody tr a");
  await tab.until(
    "who is there",
    () => document.querySelector(".stays td .here, .stays .presence.here") !== null,
  );
  const name = await tab.evaluate(
    () => document.querySelector('.stays td[data-name="Peer"]').textContent,
  );
  assert.equal(name, HOSTILE);
  await caller.goto("about:blank");
  await tab.until(
    "its end",
    () => document.querySelector('.stays td[data-name="Left"]')?.textContent !== "is there",
    { timeoutMs: 60_000 },
  );
  await assertWell(tab);
});

test("sessions are chosen, and paged", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  await visit(tab, PAGES.sessions);
  const keys = () =>
    tab.evaluate(() => [...document.querySelectorAll("tbody tr")].map((row) => row.dataset.key));
  const first = await keys();
  assert.equal(first.length, 50);
  await tab.click(".pages a");
  await tab.until(
    "older ones",
    () => location.hash.includes("cursor") && document.querySelector("#main").ariaBusy === "false",
  );
  const second = await keys();
  assert.equal(new Set([...first, ...second]).size, 100);
  await tab.evaluate(() => history.back());
  await tab.until(
    "the newest",
    () => !location.hash.includes("cursor") && document.querySelector("#main").ariaBusy === "false",
  );
  assert.deepEqual(await keys(), first);

  await tab.evaluate(() => {
    document.querySelector('select[name="problem"]').value = "freezes";
    document.querySelector(".filters button").click();
  });
  await tab.until(
    "those with freezes",
    () =>
      location.hash.includes("problem=freezes") &&
      [...document.querySelectorAll('tbody td[data-name="Problems"]')].every((each) =>
        each.textContent.includes("Freezes"),
      ),
  );
  await visit(tab, "#/sessions?scope=nobody-was-here");
  assert.match(await tab.evaluate(() => document.querySelector(".empty").textContent), /show all/);
  await assertWell(tab);
});

test("keys are made, shown once and revoked; nodes drain", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  await visit(tab, PAGES.applications);
  const add = () =>
    tab.evaluate(() => {
      const form = document.querySelector("#add-application");
      form.application.value = "fresh";
      form.requestSubmit();
    });
  /** Reads the secret that is shown, and closes what shows it. */
  const taken = async () => {
    await tab.until("a secret", () => document.querySelector("dialog .secret") !== null);
    const secret = await tab.evaluate(() => document.querySelector("dialog .secret").textContent);
    await tab.screenshot("dashboard-secret");
    await tab.click("dialog .primary");
    await tab.until("no secret", () => document.querySelector(".secret") === null);
    assert.equal(await tab.evaluate((it) => document.body.innerHTML.includes(it), secret), false);
    return secret;
  };
  const whoIs = async (token) => {
    const headers = { authorization: `Bearer ${token}` };
    return (await fetch(`${server.address}/api/v1/me`, { headers })).status;
  };
  await add();
  const first = signed("fresh", { key: "first", secret: await taken() });
  assert.equal(await whoIs(first), 200, "it signs");
  await add();
  await tab.until("a refusal", () => document.querySelector("#notice .failure p + p") !== null);
  tab.errors.length = 0;

  const rows = (count) =>
    tab.until(
      `${count} keys`,
      (wanted) => document.querySelectorAll('[data-key="fresh"] tbody tr').length === wanted,
      { argument: count },
    );
  await tab.evaluate(() => {
    const form = document.querySelector('[data-key="fresh"] .add form');
    form.key.value = "second";
    form.requestSubmit();
  });
  await taken();
  await rows(2);
  await tab.click('[data-key="fresh"] tr[data-key="first"] .danger');
  await tab.until("a question", () => document.querySelector("dialog #do") !== null);
  await tab.screenshot("dashboard-revoke");
  await tab.click("dialog #do");
  await rows(1);
  assert.equal(await whoIs(first), 401, "what it signed is worth nothing");
  await tab.click('[data-key="fresh"] tr[data-key="second"] button');
  await tab.until(
    "off",
    () => document.querySelector('[data-key="fresh"] td[data-name="State"]').textContent === "off",
  );

  await visit(tab, PAGES.nodes);
  const until = (state) =>
    tab.until(state, (it) => document.querySelector("tbody .state").textContent === it, {
      argument: state,
    });
  await until("ready");
  for (const state of ["draining", "ready"]) {
    await tab.click("tbody button");
    await until(state);
  }
  await assertWell(tab);
});

test("an invoice is issued, printed and saved", { timeout: 60_000 }, async () => {
  await call("POST", "/applications", OPERATOR, { application: HOSTILE });
  const tab = await signedIn(browser, server.address, OPERATOR);
  const said = (selector) =>
    tab.evaluate((it) => document.querySelector(it)?.textContent ?? "", selector);
  await visit(tab, PAGES.draft);
  assert.equal(await tab.evaluate(() => document.querySelector("#issue")), null, "it runs");
  assert.match(await said("#content"), /when the month is over/);
  // A name with all that is not to be taken for HTML, or for a part of the address.
  await visit(tab, `#/invoices/${encodeURIComponent(`${HOSTILE}/${month(1)}`)}`);
  assert.match(await said("#title"), /^Draft/);
  await tab.click("#issue");
  await tab.until("a question", () => document.querySelector("dialog #do") !== null);
  await tab.click("dialog #do");
  await tab.until("its number", () => document.querySelector("#issue") === null);
  await visit(tab, PAGES.invoices);
  const rows = await tab.evaluate(() =>
    [...document.querySelectorAll('table[aria-label="Invoices"] tbody tr')].map((row) =>
      [...row.children].map((cell) => cell.textContent),
    ),
  );
  assert.deepEqual(
    rows.map(([number, application]) => [number, application]),
    [["2", HOSTILE], ["1", "app-0"]],
  );

  await visit(tab, PAGES.invoice);
  const shown = await said(".total");
  const told = await call("GET", `/invoices/app-0/${month(1)}`, OPERATOR);
  assert.ok(shown.includes(`${told.total} EUR`), `${shown}: ${told.total}`);
  const saved = tab.page.waitForEvent("download");
  await tab.evaluate(() =>
    [...document.querySelectorAll("#content button")].find((each) => each.textContent === "CSV").click(),
  );
  const chunks = [];
  for await (const chunk of await (await saved).createReadStream()) chunks.push(chunk);
  const csv = Buffer.concat(chunks).toString();
  assert.match(csv, /^number,application,month,[^\r]*\r\n1,"app-0",/);
  // On paper, A4, there is the invoice and nothing else, black on white and as a table.
  await tab.resize(794, 1_123);
  await tab.page.emulateMedia({ media: "print", colorScheme: "dark" });
  const paper = await tab.evaluate(() => ({
    others: [".top", "#content button", "#content a"].some((each) =>
      document.querySelector(each).checkVisibility(),
    ),
    row: getComputedStyle(document.querySelector("#content tbody tr")).display,
    ground: getComputedStyle(document.body).backgroundColor,
    text: getComputedStyle(document.body).color,
  }));
  const black = { others: false, row: "table-row", ground: "rgb(255, 255, 255)", text: "rgb(0, 0, 0)" };
  assert.deepEqual(paper, black);
  assert.deepEqual((await widths(tab)).beyond, []);
  await tab.screenshot("dashboard-invoice-printed");
  await assertWell(tab);
});

test("a price is set and removed", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  await visit(tab, PAGES.invoices);
  const set = (amount) =>
    tab.evaluate((it) => {
      const form = document.querySelector("#set-price");
      form.closest("details").open = true;
      for (const [name, value] of Object.entries(it)) form.elements[name].value = value;
      form.requestSubmit();
    }, { application: "app-0", from: month(-1), currency: "EUR", perThousandMinutes: amount });
  const prices = () =>
    tab.evaluate(() =>
      [...document.querySelectorAll('table[aria-label="Prices"] tbody tr')].map(
        (row) => row.querySelector('[data-name="1,000 minutes"]').textContent,
      ),
    );
  await set("0.5");
  await tab.until("two prices", () =>
    document.querySelectorAll('table[aria-label="Prices"] tbody tr').length === 2,
  );
  assert.deepEqual(await prices(), ["3.99 EUR", "0.50 EUR"]);
  await tab.click('table[aria-label="Prices"] tbody tr:nth-child(2) .danger');
  await tab.until("a question", () => document.querySelector("dialog #do") !== null);
  await tab.click("dialog #do");
  await tab.until("one price", () =>
    document.querySelectorAll('table[aria-label="Prices"] tbody tr').length === 1,
  );
  await assertWell(tab);
});

test("hosts of nodes are shown", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  await visit(tab, PAGES.nodes);
  // Shares are of two looks, three seconds from each other.
  await tab.until("its CPU", () =>
    /^\d+ %$/.test(document.querySelector('table[aria-label="Hosts"] [data-name="CPU"]')?.textContent),
  );
  const cell = (name) =>
    tab.evaluate(
      (it) => document.querySelector(`table[aria-label="Hosts"] [data-name="${it}"]`).textContent,
      name,
    );
  for (const name of ["Memory", "Disk"]) assert.match(await cell(name), /^[\d.]+ .B of [\d.]+ .B$/);
  for (const name of ["In", "Out"]) assert.match(await cell(name), /^[\d.]+ [kMG]?bit\/s$/);
  await tab.screenshot("dashboard-hosts");
  await assertWell(tab);
});

test("an application sees itself and changes nothing", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, admin);
  // The long session is another application's.
  const others = ["nodes", "report", "long"];
  for (const [name, hash] of Object.entries(PAGES).filter(([each]) => !others.includes(each))) {
    await visit(tab, hash);
    const found = await tab.evaluate(() => ({
      isChanged:
        document.querySelector(
          "#content .danger, #add-application, .add, select[name=application]",
        ) !== null,
      nodes: document.querySelector('#pages a[data-page="nodes"]') !== null,
    }));
    assert.deepEqual(found, { isChanged: false, nodes: false }, name);
  }
  await assertWell(tab);
});

test("Firefox shows every page", { timeout: 120_000 }, async (t) => {
  const firefox = await Browser.firefox();
  try {
    const tab = await signedIn(firefox, server.address, OPERATOR);
    for (const [name, hash] of Object.entries(PAGES)) {
      t.diagnostic(`${name}: ${(await visit(tab, hash)).toFixed(0)} ms`);
      assert.deepEqual((await widths(tab)).beyond, [], name);
    }
    await visit(tab, PAGES.session);
    await tab.screenshot("dashboard-firefox");
    await assertWell(tab);
  } finally {
    await firefox.close();
  }
});
