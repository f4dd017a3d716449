// Real browsers behind one small interface: a `Tab` can be driven without knowing which one it is.
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";
import { freePort } from "./server.mjs";

/** Screenshots go here; the folder is not committed. */
export const OUT = join(dirname(fileURLToPath(import.meta.url)), "..", "out");

const onPath = (...names) =>
  (process.env.PATH ?? "")
    .split(delimiter)
    .flatMap((folder) => names.map((name) => join(folder, name)))
    .find((path) => existsSync(path));

export const CHROMIUM =
  process.env.CHROMIUM_PATH || onPath("chromium", "google-chrome", "chromium-browser");
export const FIREFOX = process.env.FIREFOX_PATH || onPath("firefox-esr", "firefox");

const FAKE_DEVICES = "--use-fake-device-for-media-stream";
const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-ui-for-media-stream",
  "--disable-features=WebRtcHideLocalIpsWithMdns",
  "--autoplay-policy=no-user-gesture-required",
  "--disable-renderer-backgrounding",
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
];
const FIREFOX_PREFS = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  // Without a permission Firefox offers its default address only, which cannot reach loopback.
  "permissions.default.camera": 1,
  "permissions.default.microphone": 1,
  "media.getusermedia.insecure.enabled": true,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  "media.autoplay.default": 0,
  "media.autoplay.blocking_policy": 0,
  // Each stands for a window of its own, that somebody looks at.
  "dom.min_background_timeout_value": 4,
  "dom.min_background_timeout_value_without_budget_throttling": 4,
  "dom.timeout.enable_budget_timer_throttling": false,
  "app.update.enabled": false,
  "app.update.auto": false,
  "app.normandy.enabled": false,
  "browser.safebrowsing.update.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "datareporting.healthreport.uploadEnabled": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.update.enabled": false,
  "extensions.getAddons.cache.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "",
  "toolkit.telemetry.enabled": false,
  "toolkit.telemetry.unified": false,
  "privacy.trackingprotection.enabled": false,
};

/**
 * Small pictures, so that two cores carry four browsers: what the page asks for is replaced before
 * the browser sees it.
 */
function smallCapture({ width, height, frameRate }) {
  const devices = navigator.mediaDevices;
  if (!devices) return;
  const real = devices.getUserMedia.bind(devices);
  devices.getUserMedia = (constraints) =>
    real({ ...constraints, ...(constraints.video ? { video: { width, height, frameRate } } : {}) });
}
const SMALL = { width: 320, height: 240, frameRate: 15 };

/** A browser with a profile of its own, and the tabs in it. Ended by `close`. */
export class Browser {
  constructor(kind, handle) {
    this.kind = kind;
    this.handle = handle;
  }

  /** Launches Chromium; `camera: false` refuses every device, `flags` are added, `host` is another than this one. */
  static async chromium({ dark = false, viewport, camera = true, flags = [], host } = {}) {
    if (!CHROMIUM) throw new Error("no Chromium: install it or set CHROMIUM_PATH");
    const profile = await mkdtemp(join(tmpdir(), "strait-chromium-"));
    const args = [...CHROMIUM_FLAGS, ...flags, `${FAKE_DEVICES}=fps=15,display-media-type=monitor`];
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: host ? await host.wrapped(CHROMIUM) : CHROMIUM,
      headless: true,
      args: camera ? args : args.filter((each) => each !== "--use-fake-ui-for-media-stream"),
      colorScheme: dark ? "dark" : "light",
      viewport: viewport ?? { width: 1100, height: 700 },
      ignoreHTTPSErrors: true,
    });
    const browser = new Browser("chromium", context);
    browser.profile = profile;
    return browser;
  }

  static async firefox({ viewport, host } = {}) {
    if (!FIREFOX) throw new Error("no Firefox: install it or set FIREFOX_PATH");
    // It is driven by a port of its loopback.
    const port = host ? await freePort() : 0;
    await host?.forward(port);
    const handle = await puppeteer.launch({
      browser: "firefox",
      executablePath: host ? await host.wrapped(FIREFOX) : FIREFOX,
      args: [`--remote-debugging-port=${port}`],
      headless: true,
      extraPrefsFirefox: FIREFOX_PREFS,
      acceptInsecureCerts: true,
      defaultViewport: viewport ?? { width: 1100, height: 700 },
      // Firefox refuses a home directory of another user.
      env: { ...process.env, MOZ_DISABLE_AUTO_SAFE_MODE: "1", MOZ_HEADLESS: "1" },
    });
    return new Browser("firefox", handle);
  }

  async tab() {
    const page = await this.handle.newPage();
    const tab = new Tab(this.kind, page);
    page.on("console", (message) => {
      if (message.type() === "error") tab.errors.push(message.text());
    });
    page.on("pageerror", (error) => tab.errors.push(String(error)));
    await tab.first(smallCapture, SMALL);
    return tab;
  }

  async close() {
    await this.handle.close().catch(() => {});
    if (this.profile) await rm(this.profile, { recursive: true, force: true }).catch(() => {});
  }
}

/** One page in one browser. */
export class Tab {
  constructor(kind, page) {
    this.kind = kind;
    this.page = page;
    /** Errors that the page wrote to the console. */
    this.errors = [];
  }

  /** Runs `task` in every page that is opened here, before its own scripts. */
  async first(task, argument) {
    if (this.kind === "chromium") await this.page.addInitScript(task, argument);
    else await this.page.evaluateOnNewDocument(task, argument);
  }

  async goto(url) {
    await this.page.goto(url);
  }

  /** Runs `task` in the page; what it returns must be JSON. */
  evaluate(task, argument) {
    return this.page.evaluate(task, argument);
  }

  /** Waits until `task` is true in the page; the error says what was waited for. */
  async until(what, task, { timeoutMs = 30_000, argument } = {}) {
    const end = Date.now() + timeoutMs;
    let last;
    for (;;) {
      try {
        last = await this.page.evaluate(task, argument);
      } catch (error) {
        // A reload throws the page's context away.
        last = String(error);
        if (!/context|navigat|destroy|closed|detached/i.test(last)) throw error;
      }
      if (last === true) return;
      if (Date.now() > end) {
        const errors = this.errors.slice(-5).join(" | ");
        throw new Error(`${this.kind}: ${what} did not happen in ${timeoutMs} ms (${last}) ${errors}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async click(selector) {
    await this.page.click(selector);
  }

  async fill(selector, text) {
    await this.page.evaluate(
      ([where, value]) => {
        document.querySelector(where).value = value;
      },
      [selector, text],
    );
  }

  async reload() {
    await this.page.reload();
  }

  async resize(width, height) {
    if (this.kind === "chromium") await this.page.setViewportSize({ width, height });
    else await this.page.setViewport({ width, height });
  }

  /** Writes `out/NAME.png`. */
  async screenshot(name) {
    await mkdir(OUT, { recursive: true });
    await this.page.screenshot({ path: join(OUT, `${name}.png`) });
  }
}
