// What the dashboard does that a real server does not show at will, before a stand-in for the API: a server that is away,
// rows that come and go, names of all kinds. The stand-in holds questions and answers against the API's document.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { HOSTILE, OPERATOR, StandIn } from "../../control/web/test/standin.mjs";
import { Browser } from "./lib/browsers.mjs";
import { assertWell, signedIn, visit } from "./lib/dashboard.mjs";

const PAGES = {
  live: "#/live",
  sessions: "#/sessions",
  session: "#/session/s000000",
  usage: "#/usage?by=day",
  problems: "#/problems",
  availability: "#/availability",
  applications: "#/applications",
  nodes: "#/nodes",
  diagnostics: "#/diagnostics",
  report: "#/diagnostics/d0",
  invoices: "#/invoices",
  invoice: "#/invoices/shop%2F2026-02",
};

let server;
let browser;

before(
  async () => {
    server = await StandIn.start({ sessions: 1_000 });
    browser = await Browser.chromium();
  },
  { timeout: 60_000 },
);

after(async () => {
  await browser?.close();
  await server?.stop();
});

test("names are text, whatever they are", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  for (const name of [
    "live",
    "sessions",
    "session",
    "usage",
    "applications",
    "diagnostics",
    "report",
    "invoices",
    "invoice",
  ]) {
    await visit(tab, PAGES[name]);
    const found = await tab.evaluate(
      (text) => ({
        isShown: document.querySelector("#content").textContent.includes(text),
        images: document.querySelectorAll("#content img").length,
      }),
      HOSTILE,
    );
    assert.deepEqual(found, { isShown: true, images: 0 }, name);
  }
  const scope = `#/sessions?${new URLSearchParams({ scope: `${HOSTILE}0`, from: "0" })}`;
  await visit(tab, scope);
  assert.equal(
    await tab.evaluate(() => document.querySelector('input[name="scope"]').value),
    `${HOSTILE}0`,
  );
  await assertWell(tab);
});

test("what renews itself keeps focus and what is typed", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  await visit(tab, PAGES.live);
  // The second of those that stay: the first ends, others come before it.
  const key = await tab.evaluate(() => {
    const row = document.querySelectorAll("tbody tr")[1];
    row.querySelector("a").focus();
    return row.dataset.key;
  });
  const [first] = server.answers.sessions;
  first.live = false;
  server.answers.sessions.unshift(
    { ...first, session: "new-1", live: true },
    { ...first, session: "new-2", live: true },
  );
  await tab.until("the new ones", () => document.querySelector('[data-key="new-1"]') !== null);
  const focused = () => tab.evaluate(() => document.activeElement.closest("tr")?.dataset.key);
  assert.equal(await focused(), key);
  assert.equal(await tab.evaluate(() => document.querySelector('[data-key="s000000"]')), null);

  server.isDown = true;
  await tab.until(
    "that it is old",
    () => document.querySelector(".stale")?.textContent.includes("does not answer") === true,
  );
  assert.equal(await focused(), key, "what was there stays");
  await tab.screenshot("dashboard-stale");
  server.isDown = false;
  await tab.until("that it is new again", () => document.querySelector(".stale") === null);
  server.answers.sessions.splice(0, 2);
  first.live = true;
  assert.ok(
    tab.errors.every((each) => each.includes("ERR_")),
    tab.errors.join(),
  );
  tab.errors.length = 0;
  await assertWell(tab);
});

test("a server that is away is told, and asked again", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  server.isDown = true;
  await visit(tab, PAGES.usage);
  assert.match(
    await tab.evaluate(() => document.querySelector(".failure").textContent),
    /See that strait-control runs/,
  );
  await tab.screenshot("dashboard-away");
  server.isDown = false;
  await tab.click(".failure button");
  await tab.until("usage", () => document.querySelector("#title").textContent === "Usage");
  tab.errors.length = 0;
  await assertWell(tab);
});

test("plots are read by keys, and have a table behind them", { timeout: 60_000 }, async () => {
  const tab = await signedIn(browser, server.address, OPERATOR);
  await visit(tab, "#/session/s000300");
  const plot = await tab.evaluate(() => {
    const chart = document.querySelector(".chart");
    const svg = chart.querySelector("svg");
    svg.focus();
    const press = (key) => svg.dispatchEvent(new KeyboardEvent("keydown", { key }));
    press("Home");
    const first = chart.querySelector(".said").textContent;
    press("ArrowRight");
    const second = chart.querySelector(".said").textContent;
    chart.querySelector("summary").click();
    return {
      first,
      second,
      label: svg.getAttribute("aria-label"),
      charts: document.querySelectorAll(".chart svg[role=img]").length,
    };
  });
  assert.equal(plot.charts, 4, "loss, queue delay, bitrate, round trip");
  assert.match(plot.label, /^Loss, .*at most 2\.0 %/);
  assert.match(plot.first, /^\d\d:\d\d: From peers 1\.0 %, To peers 0\.2 %$/);
  assert.notEqual(plot.first, plot.second);
  await tab.evaluate(() => document.querySelector(".charts").scrollIntoView());
  await tab.screenshot("dashboard-plots");
  await tab.until(
    "the table",
    () => document.querySelectorAll(".chart details tbody tr").length > 1,
  );
  await tab.evaluate(() => {
    const select = document.querySelector("#stream");
    select.selectedIndex = 1;
    select.dispatchEvent(new Event("change"));
  });
  await tab.until(
    "one stream",
    () => location.hash.includes("stream=") && document.querySelector(".chart .legend") === null,
  );
  const hover = await tab.evaluate(() => document.querySelector("time").title);
  assert.match(hover, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/);
  await assertWell(tab);
});

test(
  "every question is one of the API's, every answer as it says",
  { timeout: 60_000 },
  async () => {
    const tab = await signedIn(browser, server.address, OPERATOR);
    for (const hash of Object.values(PAGES)) await visit(tab, hash);
    await assertWell(tab);
    assert.deepEqual(server.mistakes, []);
  },
);
