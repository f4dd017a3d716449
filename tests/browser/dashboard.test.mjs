// The dashboard in real browsers, before a stand-in for the API that has 10,000 sessions: its pages, how soon they are
// there, narrow and dark, and with names that would be elements, were they taken for HTML.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ADMIN, HOSTILE, OPERATOR, StandIn } from "../../control/web/test/standin.mjs";
import { SLACK } from "./lib/bounds.mjs";
import { Browser } from "./lib/browsers.mjs";

/** A page's answer of the API and its drawing together. */
const PAGE_MS = 300 * SLACK;
const PAGES = {
  live: "#/live",
  sessions: "#/sessions?from=0",
  session: "#/session/s000000",
  usage: "#/usage?by=day",
  months: "#/usage?by=month",
  problems: "#/problems",
  availability: "#/availability",
  applications: "#/applications",
  nodes: "#/nodes",
  diagnostics: "#/diagnostics",
  report: "#/diagnostics/d0",
};

let server;
let browser;

before(
  async () => {
    server = await StandIn.start();
    browser = await Browser.chromium();
  },
  { timeout: 60_000 },
);

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A tab in which somebody signed in and sees the live scopes. */
async function signedIn(token = OPERATOR, within = browser) {
  const tab = await within.tab();
  await tab.goto(`${server.address}/dashboard/`);
  await tab.fill("#token", token);
  await tab.click("#signin-button");
  await drawn(tab);
  return tab;
}

const drawn = (tab) =>
  tab.until(
    "a page",
    () => document.querySelector("#shell:not([hidden]) #main")?.ariaBusy === "false",
  );

/** Goes to a page; returns the milliseconds until it was painted, taken in the browser. */
function visit(tab, hash) {
  return tab.evaluate(async (to) => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const main = document.querySelector("#main");
    // The same address again is no other page.
    if (location.hash === to) location.hash = "#/nothing";
    while (main.ariaBusy === "true") await frame();
    const began = performance.now();
    location.hash = to;
    do await frame();
    while (main.dataset.page !== to || main.ariaBusy === "true");
    await frame();
    return performance.now() - began;
  }, hash);
}

/** What went wrong that nobody waited for. */
async function assertWell(tab) {
  assert.deepEqual(tab.errors, []);
  assert.deepEqual(server.mistakes, [], "questions and answers are the API's");
  assert.equal(await tab.evaluate(() => globalThis.hacked), undefined);
  assert.equal(
    await tab.evaluate(() => document.querySelector(".failure")?.textContent),
    undefined,
  );
}

/** Of all that is scrolled with the page, how wide it is. */
const widths = (tab) =>
  tab.evaluate(() => ({
    page: document.documentElement.scrollWidth,
    screen: document.documentElement.clientWidth,
    beyond: [...document.querySelectorAll("#shell *")]
      .filter(
        (each) =>
          each.getBoundingClientRect().right > innerWidth + 1 &&
          each.closest(".skip, thead") === null,
      )
      .map((each) => `${each.tagName}.${each.className?.baseVal ?? each.className}`)
      .slice(0, 5),
  }));

test("a token is asked for, and stays in the tab", { timeout: 60_000 }, async () => {
  const tab = await browser.tab();
  await tab.goto(`${server.address}/dashboard/#/usage`);
  await tab.fill("#token", "not-a-token");
  await tab.click("#signin-button");
  await tab.until(
    "the reason",
    () =>
      document
        .querySelector("#signin .failure")
        ?.textContent.includes("The token is not known.") === true,
  );
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
  const tab = await signedIn();
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

test("it works at a phone's width", { timeout: 120_000 }, async () => {
  const tab = await signedIn();
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
    const tab = await signedIn(OPERATOR, dark);
    for (const name of ["live", "session", "usage", "problems", "applications"]) {
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
  const tab = await signedIn();
  for (const name of [
    "live",
    "sessions",
    "session",
    "usage",
    "applications",
    "diagnostics",
    "report",
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

test("sessions are chosen, and paged", { timeout: 60_000 }, async () => {
  const tab = await signedIn();
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
      [...document.querySelectorAll('tbody td[data-name="Problems"]')].every(
        (each) => each.textContent === "Freezes",
      ),
  );
  await visit(tab, "#/sessions?scope=nobody-was-here");
  assert.match(
    await tab.evaluate(() => document.querySelector(".empty").textContent),
    /show all/,
  );
  await assertWell(tab);
});

test("what renews itself keeps focus and what is typed", { timeout: 60_000 }, async () => {
  const tab = await signedIn();
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
  const tab = await signedIn();
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
  const tab = await signedIn();
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

test("keys are made, shown once and revoked; nodes drain", { timeout: 60_000 }, async () => {
  const tab = await signedIn();
  await visit(tab, PAGES.applications);
  const add = () =>
    tab.evaluate(() => {
      const form = document.querySelector("#add-application");
      form.application.value = "fresh";
      form.requestSubmit();
    });
  await add();
  await tab.until(
    "the secret",
    () => document.querySelector("dialog .secret")?.textContent === "made-up-secret-1",
  );
  await tab.screenshot("dashboard-secret");
  await tab.click("dialog .primary");
  await tab.until(
    "the application",
    () => document.querySelector('section[data-key="fresh"]') !== null,
  );
  await tab.until("no secret", () => !document.body.innerHTML.includes("made-up-secret"));
  await add();
  await tab.until(
    "a refusal",
    () =>
      document.querySelector("#notice .failure")?.textContent.includes("Choose another name.") ===
      true,
  );
  tab.errors.length = 0;

  await tab.evaluate(() => {
    const form = document.querySelector('section[data-key="fresh"] .add form');
    form.key.value = "second";
    form.requestSubmit();
  });
  await tab.until(
    "its secret",
    () => document.querySelector("dialog .secret")?.textContent === "made-up-secret-2",
  );
  await tab.click("dialog .primary");
  const keys = () =>
    tab.evaluate(() =>
      [...document.querySelectorAll('section[data-key="fresh"] tbody tr')].map(
        (row) => row.dataset.key,
      ),
    );
  await tab.until(
    "two keys",
    () => document.querySelectorAll('section[data-key="fresh"] tbody tr').length === 2,
  );
  assert.deepEqual(await keys(), ["first", "second"]);
  await tab.click('section[data-key="fresh"] tr[data-key="first"] .danger');
  await tab.until("a question", () => document.querySelector("dialog #do") !== null);
  await tab.screenshot("dashboard-revoke");
  await tab.click("dialog #do");
  await tab.until(
    "one key",
    () => document.querySelectorAll('section[data-key="fresh"] tbody tr').length === 1,
  );
  await tab.click('section[data-key="fresh"] tr[data-key="second"] button');
  await tab.until(
    "off",
    () =>
      document.querySelector('section[data-key="fresh"] td[data-name="State"]').textContent ===
      "off",
  );

  await visit(tab, PAGES.nodes);
  const state = () =>
    tab.evaluate(() => document.querySelector('tr[data-key="node-0"] .state').textContent);
  assert.equal(await state(), "ready");
  await tab.click('tr[data-key="node-0"] button');
  await tab.until(
    "draining",
    () => document.querySelector('tr[data-key="node-0"] .state').textContent === "draining",
  );
  await tab.click('tr[data-key="node-0"] button');
  await tab.until(
    "ready",
    () => document.querySelector('tr[data-key="node-0"] .state').textContent === "ready",
  );
  await assertWell(tab);
});

test("an application sees itself and changes nothing", { timeout: 60_000 }, async () => {
  const tab = await signedIn(ADMIN);
  for (const [name, hash] of Object.entries(PAGES).filter(([each]) => each !== "nodes")) {
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
    const tab = await signedIn(OPERATOR, firefox);
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
