// What the tests do with the dashboard and read from it.
import assert from "node:assert/strict";

/** A tab in which somebody signed in and sees the live scopes. */
export async function signedIn(browser, address, token) {
  const tab = await browser.tab();
  await tab.goto(`${address}/dashboard/`);
  await tab.fill("#token", token);
  await tab.click("#signin-button");
  await drawn(tab);
  return tab;
}

export const drawn = (tab) =>
  tab.until(
    "a page",
    () => document.querySelector("#shell:not([hidden]) #main")?.ariaBusy === "false",
  );

/** Goes to a page; returns the milliseconds until it was painted, taken in the browser. */
export function visit(tab, hash) {
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
export async function assertWell(tab) {
  assert.deepEqual(tab.errors, []);
  assert.equal(await tab.evaluate(() => globalThis.hacked), undefined);
  assert.equal(
    await tab.evaluate(() => document.querySelector(".failure")?.textContent),
    undefined,
  );
}

/** Of all that is scrolled with the page, how wide it is. */
export const widths = (tab) =>
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
