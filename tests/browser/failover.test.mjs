// Two nodes: a call goes on when one dies, and stays where only its control was away. The CnC is a stand-in, but for the
// last test, where the nodes have their own.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { SLACK } from "./lib/bounds.mjs";
import { Browser } from "./lib/browsers.mjs";
import { ApplicationPage, StandInCnc } from "./lib/cnc.mjs";
import { Redis, skip } from "./lib/redis.mjs";
import { untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";

/** From the death of a node until media of another flows. */
const FAILOVER_MS = 5_000 * SLACK;

let browsers;
before(async () => {
  browsers = { chromium: await Browser.chromium(), firefox: await Browser.firefox() };
}, { timeout: 120_000 });

after(async () => {
  for (const browser of Object.values(browsers ?? {})) await browser.close();
});

/** Joins with the camera by the CnCs, and keeps what is told, with its time, in `told`. */
async function join(browser, page, resolvers, name) {
  const tab = await browser.tab();
  await tab.goto(page);
  await tab.evaluate(
    async ([cncs, token, who]) => {
      const { Strait } = await import("/strait.js");
      globalThis.told = [];
      globalThis.strait = await Strait.join({
        resolvers: cncs, scope: "failover", token, name: who, publish: ["camera", "microphone"],
      });
      for (const event of ["reconnecting", "moved", "reconnected", "closed"]) {
        globalThis.strait.on(event, (detail) => globalThis.told.push([event, detail, Date.now()]));
      }
      globalThis.strait.on("track", ({ publication, track }) => {
        if (publication.kind !== "video") return;
        const video = document.createElement("video");
        Object.assign(video, { srcObject: new MediaStream([track]), autoplay: true, muted: true });
        // The moments of the last picture before another, and of the longest time without any.
        globalThis.pictures ??= [];
        const seen = () => {
          globalThis.pictures.push(Date.now());
          video.requestVideoFrameCallback(seen);
        };
        video.requestVideoFrameCallback(seen);
        document.body.append(video);
      });
    },
    [resolvers, TOKEN, name],
  );
  return tab;
}

async function untilPictures(tab, since) {
  await tab.until(
    "pictures",
    (after) => (globalThis.pictures ?? []).filter((at) => at > after).length > 10,
    { argument: since },
  );
}

/** The longest time without a picture since then, and what was told. */
function watched(tab, since) {
  return tab.evaluate((after) => {
    const times = [after, ...globalThis.pictures.filter((at) => at > after), Date.now()];
    const gaps = times.slice(1).map((at, index) => at - times[index]);
    const told = globalThis.told.filter(([, , at]) => at > after);
    return { gap: Math.max(...gaps), told: told.map(([event, detail, at]) => [event, detail, at - after]) };
  }, since);
}

for (const kind of ["chromium", "firefox"]) {
  test(`${kind}: a node that dies is left for another within 5 s, a control that comes back is not`, {
    timeout: 180_000,
  }, async () => {
    const nodes = [await Server.start(), await Server.start()];
    const cnc = await StandInCnc.of(nodes.map(({ address }) => address));
    try {
      // Nobody listens at the one before: it is passed over.
      const resolvers = ["http://127.0.0.1:9", cnc.address];
      const page = cnc.address;
      const tabs = [
        await join(browsers[kind], page, resolvers, "anna"),
        await join(browsers.chromium, page, resolvers, "bert"),
      ];
      for (const tab of tabs) await untilPictures(tab, 0);

      // Control alone: the relay goes on, and so does the session's node.
      const restarted = Date.now();
      nodes[0].kill("strait-control");
      await nodes[0].ready(20_000);
      for (const tab of tabs) {
        await tab.until("being well", () => globalThis.strait.state === "connected");
        await untilPictures(tab, restarted);
        const { told } = await watched(tab, restarted);
        assert.ok(!told.some(([event]) => event === "moved" || event === "closed"), told);
      }

      const [first, second] = [cnc.endpoint(0), cnc.endpoint(1)];
      const killed = Date.now();
      await nodes[0].die();
      for (const tab of tabs) {
        await tab.until("being on the other node", () =>
          globalThis.told.some(([event]) => event === "moved"),
        );
        await tab.until("being well", () => globalThis.strait.state === "connected");
        await untilPictures(tab, killed + FAILOVER_MS);
        const { gap, told } = await watched(tab, killed);
        console.log(`# ${kind}: ${gap} ms without a picture; ${JSON.stringify(told)}`);
        assert.ok(gap <= FAILOVER_MS, `${gap} ms without a picture`);
        assert.deepEqual(told.find(([event]) => event === "moved")[1], { node: second });
        assert.deepEqual(told.at(-1).slice(0, 2), ["reconnected", { fresh: true }]);
      }
      assert.ok(cnc.reported.every((endpoint) => endpoint === first), cnc.reported);
      for (const tab of tabs) {
        await tab.evaluate(() => globalThis.strait.leave());
        await tab.page.close();
      }
    } finally {
      cnc.close();
      await Promise.all(nodes.map((node) => node.stop()));
    }
  });
}

test("chromium: a host that falls silent is noticed within 2 s", { timeout: 120_000 }, async () => {
  const nodes = [await Server.start(), await Server.start()];
  const cnc = await StandInCnc.of(nodes.map(({ address }) => address));
  try {
    const tabs = [];
    for (const name of ["anna", "bert"]) {
      tabs.push(await join(browsers.chromium, cnc.address, [cnc.address], name));
    }
    for (const tab of tabs) await untilPictures(tab, 0);
    // Stopped, not ended: connections stay, and nothing answers.
    const stopped = Date.now();
    nodes[0].freeze();
    for (const tab of tabs) {
      await tab.until("being on the other node", () =>
        globalThis.told.some(([event]) => event === "moved"),
      );
      await untilPictures(tab, stopped + FAILOVER_MS);
      const { gap, told } = await watched(tab, stopped);
      console.log(`# silent: ${gap} ms without a picture; ${JSON.stringify(told)}`);
      const [, , noticed] = told.find(([event]) => event === "reconnecting");
      assert.ok(noticed <= 2_000 * SLACK, `noticed after ${noticed} ms`);
      // What the CnC needs to find it dead, here three times 500 ms and pauses, comes on top.
      assert.ok(gap <= FAILOVER_MS + 1_000, `${gap} ms without a picture`);
    }
  } finally {
    cnc.close();
    await Promise.all(nodes.map((node) => node.stop()));
  }
});

test("chromium and firefox: with CnCs of their own and Redis both meet on one node when theirs is killed", {
  timeout: 180_000,
}, async (t) => {
  const redis = await Redis.start();
  if (!redis) return skip(t, "there is no redis-server");
  const page = await new ApplicationPage().listen();
  const nodes = [];
  try {
    for (const name of ["one", "two"]) {
      const node = await Server.start();
      nodes.push(node);
      await node.joinCluster(name, redis.port, page.address);
    }
    const resolvers = nodes.map(({ address }) => address);
    const tabs = [
      await join(browsers.chromium, page.address, resolvers, "anna"),
      await join(browsers.firefox, page.address, resolvers, "bert"),
    ];
    for (const tab of tabs) await untilPictures(tab, 0);

    // Both CnCs know the node. It dies with its own.
    const endpoints = nodes.map(({ mediaPort }) => `127.0.0.1:${mediaPort}`);
    const named = await nodes[0].resolve("failover");
    assert.equal(await nodes[1].resolve("failover"), named);
    const at = endpoints.indexOf(named);
    assert.ok(at >= 0, named);
    const there = endpoints[1 - at];
    const killed = Date.now();
    await nodes[at].die();
    for (const tab of tabs) {
      await tab.until("being on the other node", () =>
        globalThis.told.some(([event]) => event === "moved"),
      );
      await tab.until("being well", () => globalThis.strait.state === "connected");
      await untilPictures(tab, killed + FAILOVER_MS);
      const { gap, told } = await watched(tab, killed);
      console.log(`# ${tab.kind}, mappings in Redis: ${gap} ms without a picture; ${JSON.stringify(told)}`);
      assert.ok(gap <= FAILOVER_MS, `${gap} ms without a picture`);
      assert.deepEqual(told.filter(([event]) => event === "moved").map(([, detail]) => detail), [{ node: there }]);
    }
    assert.equal(await nodes[1 - at].resolve("failover"), there);
    for (const [tab, other] of [[tabs[0], "bert"], [tabs[1], "anna"]]) await untilOthers(tab, [other]);
    for (const tab of tabs) await tab.evaluate(() => globalThis.strait.leave());
  } finally {
    page.close();
    await Promise.all(nodes.map((node) => node.stop()));
    await redis.stop();
  }
});
