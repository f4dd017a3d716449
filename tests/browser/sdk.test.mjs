// The rest of the SDK with real browsers: statistics, the test of the line, reconfiguration, devices, the way of media.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { join, received, testLine, untilOthers } from "./lib/page.mjs";
import { Server, TOKEN } from "./lib/server.mjs";

let server;
const browsers = {};

before(async () => {
  server = await Server.start();
  browsers.chromium = await Browser.chromium();
  browsers.firefox = await Browser.firefox();
}, { timeout: 120_000 });

after(async () => {
  for (const browser of Object.values(browsers)) await browser.close();
  await server?.stop();
});

/** A tab that sends camera and microphone, and one that watches, in a scope of their own. */
async function pair(kind, scope, devices = true) {
  const address = `${server.address}/?scope=${scope}-${kind}`;
  const [sender, watcher] = [await browsers[kind].tab(), await browsers.chromium.tab()];
  await join(sender, address, { name: "sender", token: TOKEN, devices });
  await join(watcher, address, { name: "watcher", token: TOKEN, devices: false });
  await untilOthers(watcher, ["sender"]);
  if (devices) {
    await watcher.until("the sender's picture", async () => {
      const { subscriptions } = await globalThis.strait.statistics();
      return subscriptions.some(({ framesDecoded }) => framesDecoded > 0);
    });
  }
  return { sender, watcher, close: () => Promise.all([leave(sender), leave(watcher)]) };
}

/** Changes the camera; returns its name, and how many offers there were. */
function reconfigure(tab, change) {
  return tab.evaluate(async (wanted) => {
    const camera = globalThis.strait.publications.find(({ source }) => source === "camera");
    await camera.reconfigureVideo(wanted);
    const { offers } = await globalThis.strait.statistics();
    return { id: camera.id, offers };
  }, change);
}

function untilHeight(tab, height) {
  return tab.until(
    `a picture of ${height} lines`,
    async (wanted) => {
      const { subscriptions } = await globalThis.strait.statistics();
      const heights = subscriptions.map(({ frameHeight }) => frameHeight ?? 0);
      return Math.max(...heights) === wanted || heights.join();
    },
    { timeoutMs: 40_000, argument: height },
  );
}

async function leave(tab) {
  await tab.evaluate(() => globalThis.strait?.leave());
  await tab.page.close();
}

for (const kind of ["chromium", "firefox"]) {
  test(`${kind}: statistics say of each stream how it fares`, { timeout: 90_000 }, async () => {
    const { sender, watcher, close } = await pair(kind, "statistics");
    for (const tab of [sender, watcher]) {
      await tab.evaluate(() => {
        globalThis.told = [];
        globalThis.strait.on("statistics", (each) => globalThis.told.push(each));
        globalThis.strait.watchStatistics(true, 1_000);
      });
    }
    const isNumber = (value) => typeof value === "number" && value >= 0;
    const known = (tab, list, names) =>
      tab.until(
        `${names} of ${list}`,
        ([which, figures]) => {
          const last = globalThis.told.at(-1);
          const camera = last?.[which].find(({ publication }) => publication.source === "camera");
          const missing = figures.filter((name) => typeof camera?.[name] !== "number");
          return (camera?.grade !== undefined && missing.length === 0) || `lacks ${missing}`;
        },
        { argument: [list, names] },
      );
    const both = ["bitrateBps", "packetsLost", "lossRatio", "jitterMs", "roundTripTimeMs"];
    const figures = [...both, "queueDelayMs", "framesPerSecond", "frameHeight"];
    await known(sender, "publications", figures);
    await known(watcher, "subscriptions", figures);
    for (const tab of [sender, watcher]) {
      const last = await tab.evaluate(() => {
        const { grade, connectionType, roundTripTimeMs } = globalThis.told.at(-1);
        return { grade, connectionType, roundTripTimeMs, state: globalThis.strait.connectionType };
      });
      assert.ok(["fine", "average", "bad"].includes(last.grade), JSON.stringify(last));
      assert.ok(isNumber(last.roundTripTimeMs), JSON.stringify(last));
      assert.deepEqual([last.connectionType, last.state], ["udp-relay", "udp-relay"]);
    }
    await close();
  });

  test(`${kind}: a running video is reconfigured without an offer`, { timeout: 90_000 }, async () => {
    const { sender, watcher, close } = await pair(kind, "reconfigure");
    await untilHeight(watcher, 240);
    const before = await reconfigure(sender, {});
    const small = { width: 160, height: 120, frameRate: 10, bitrateBps: 80_000 };
    assert.deepEqual(await reconfigure(sender, small), before, "nor another publication");
    await untilHeight(watcher, 120);
    const large = { width: 320, height: 240, frameRate: 15, bitrateBps: 400_000 };
    assert.deepEqual(await reconfigure(sender, large), before);
    await untilHeight(watcher, 240);
    await close();
  });

  test(`${kind}: a running video goes into layers by one offer`, { timeout: 120_000 }, async () => {
    const { sender, watcher, close } = await pair(kind, "layers", false);
    await sender.evaluate(async () => {
      // The page's own captures are made small for the other tests; browsers make no layers of those.
      const { getUserMedia } = MediaDevices.prototype;
      const video = { width: 960, height: 540, frameRate: 15 };
      const stream = await getUserMedia.call(navigator.mediaDevices, { video });
      await globalThis.strait.publish(stream.getVideoTracks()[0], { source: "camera" });
    });
    // An application's own track is scaled.
    const before = await reconfigure(sender, { width: 480, bitrateBps: 1_200_000 });
    await untilHeight(watcher, 270);
    const layered = await reconfigure(sender, { simulcast: true, width: 960 });
    assert.notEqual(layered.id, before.id);
    assert.equal(layered.offers, before.offers + 1);
    await untilHeight(watcher, 540);
    const streams = await sender.evaluate(async () => {
      const { publications } = await globalThis.strait.statistics();
      return publications[0].streams;
    });
    assert.equal(streams, 3);
    await close();
  });

  test(`${kind}: devices are listed, and a publication takes another one`, {
    timeout: 60_000,
  }, async () => {
    const { sender, watcher, close } = await pair(kind, "devices");
    const seen = await sender.evaluate(async () => {
      // The tests' own captures are small, and of any device.
      delete navigator.mediaDevices.getUserMedia;
      const { Strait } = await import("./strait.js");
      const { cameras, microphones } = await Strait.devices();
      const camera = globalThis.strait.publications.find(({ source }) => source === "camera");
      const before = camera.track;
      await camera.useDevice(cameras.at(-1));
      const wrong = await camera.useDevice("no such device").catch(({ kind: what }) => what);
      return {
        kinds: [...cameras, ...microphones].map(({ kind: what }) => what),
        named: cameras.every(({ id, label }) => id && label),
        replaced: before !== camera.track && before.readyState === "ended",
        device: camera.track.getSettings().deviceId === cameras.at(-1).id,
        live: camera.track.readyState,
        wrong,
      };
    });
    assert.ok(seen.kinds.includes("camera") && seen.kinds.includes("microphone"), `${seen.kinds}`);
    const { named, replaced, device, live, wrong } = seen;
    assert.deepEqual(
      { named, replaced, device, live, wrong },
      { named: true, replaced: true, device: true, live: "live", wrong: "device" },
    );
    const frames = async () =>
      (await received(watcher)).find(({ source }) => source === "camera")?.framesDecoded ?? 0;
    const until = Date.now() + 15_000;
    const first = await frames();
    while ((await frames()) < first + 10 && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.ok((await frames()) >= first + 10, "the new device's pictures arrive");
    await close();
  });

  test(`${kind}: the line is tested without joining, and nobody hears of it`, {
    timeout: 90_000,
  }, async (t) => {
    const [bystander, tab] = [await browsers.chromium.tab(), await browsers[kind].tab()];
    const scope = `line-${kind}`;
    await join(bystander, `${server.address}/?scope=${scope}`, {
      name: "bystander", token: TOKEN, devices: false,
    });
    await bystander.evaluate(() => {
      globalThis.heard = [];
      for (const name of ["joined", "published", "left"]) {
        globalThis.strait.on(name, () => globalThis.heard.push(name));
      }
    });
    await tab.goto(server.address);
    const seen = await testLine(tab, scope, TOKEN);
    t.diagnostic(JSON.stringify(seen));
    const what = JSON.stringify(seen);
    assert.ok(["fine", "average", "bad"].includes(seen.grade), what);
    assert.equal(seen.connectionType, "udp-relay", what);
    assert.equal(seen.transports.udp, true, what);
    // Firefox does not send by TCP to loopback, where the node of this test has its only address for it.
    if (kind === "chromium") assert.equal(seen.transports.tcp, true, what);
    for (const { packets, bitrateBps, lossRatio, jitterMs } of [seen.up, seen.down]) {
      assert.ok(packets > 20 && bitrateBps > 20_000, what);
      assert.ok(lossRatio >= 0 && lossRatio < 0.5 && jitterMs >= 0, what);
    }
    assert.ok(seen.roundTripTimeMs >= 0 && seen.connectMs > 0, what);
    assert.deepEqual(await bystander.evaluate(() => globalThis.heard), []);
    const refused = await tab.evaluate(async (wanted) => {
      const { Strait } = await import("./strait.js");
      return Strait.testConnectivity({ scope: wanted, token: "wrong" }).catch(({ code }) => code);
    }, scope);
    assert.equal(refused, 401);
    await leave(bystander);
    await tab.page.close();
  });
}

test("messages go between Chromium and Firefox, to all or to one, as text or bytes", {
  timeout: 60_000,
}, async () => {
  const address = `${server.address}/?scope=messages`;
  const [anna, bert] = [await browsers.chromium.tab(), await browsers.firefox.tab()];
  for (const [tab, name] of [[anna, "anna"], [bert, "bert"]]) {
    await join(tab, address, { name, token: TOKEN, devices: false });
    await tab.evaluate(() => {
      globalThis.got = [];
      globalThis.strait.onMessage(({ data, direct }) => {
        globalThis.got.push([typeof data === "string" ? data : [...data], direct]);
      });
    });
  }
  await untilOthers(anna, ["bert"]);
  await untilOthers(bert, ["anna"]);
  for (const [from, to] of [[anna, bert], [bert, anna]]) {
    await from.evaluate(async () => {
      const { strait } = globalThis;
      await strait.sendMessage("to all ☕");
      await strait.sendMessage(new Uint8Array([0, 255, 7]), [...strait.peers.values()][0]);
    });
    await to.until("two messages", () => globalThis.got.length === 2);
    const got = await to.evaluate(() => globalThis.got);
    assert.deepEqual(got, [["to all ☕", false], [[0, 255, 7], true]]);
  }
  for (const tab of [anna, bert]) await leave(tab);
});

test("media that has no other way goes by TCP, and the SDK says so", { timeout: 60_000 }, async () => {
  const tab = await browsers.chromium.tab();
  await tab.first(() => {
    const { setRemoteDescription } = RTCPeerConnection.prototype;
    RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
      const lines = sdp.split("\r\n").filter((line) => !/^a=candidate:\S+ \d+ udp /i.test(line));
      return setRemoteDescription.call(this, { type, sdp: lines.join("\r\n") });
    };
  });
  await join(tab, `${server.address}/?scope=tcp`, { name: "tcp", token: TOKEN });
  await tab.until("tcp-relay", () => {
    const { connectionType } = globalThis.strait;
    return connectionType === "tcp-relay" || connectionType;
  });
  const told = await tab.evaluate(async () => {
    const told = [];
    globalThis.strait.on("connectiontype", (each) => told.push(each));
    await globalThis.strait.leave();
    return told;
  });
  assert.deepEqual(told, [{ type: "none", previous: "tcp-relay" }]);
  await tab.page.close();
});
