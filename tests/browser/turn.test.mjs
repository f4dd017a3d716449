// TURN over TLS: browsers that may use nothing else are in a call, over the port of HTTPS.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./lib/browsers.mjs";
import { join, testLine, turnAlone, untilOthers } from "./lib/page.mjs";
import { freePort, Server, TOKEN } from "./lib/server.mjs";

let server;
let metricsPort;
const browsers = [];

before(async () => {
  metricsPort = await freePort();
  server = await Server.start({ metricsPort });
}, { timeout: 60_000 });

after(async () => {
  for (const browser of browsers) await browser.close();
  await server?.stop();
});

async function enter(browser, name) {
  const tab = await browser.tab();
  await tab.first(turnAlone);
  // Firefox takes no TURN server over TLS whose host is an address.
  const address = server.secureAddress.replace("127.0.0.1", "localhost");
  await join(tab, `${address}/?scope=turn`, { name, token: TOKEN });
  return tab;
}

async function metric(name) {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\d+)`, "m").exec(text)?.[1]);
}

/** The pair of candidates by which media goes. */
function selected() {
  return globalThis.strait.media.connection.getStats().then((report) => {
    const all = [...report.values()];
    const transport = all.find(({ type }) => type === "transport");
    const pair = report.get(transport?.selectedCandidatePairId) ??
      all.find(({ type, selected, nominated }) => type === "candidate-pair" && (selected ?? nominated));
    const { candidateType, relayProtocol, address } = report.get(pair.localCandidateId);
    return { candidateType, relayProtocol, address };
  });
}

test("Chromium and Firefox that may use TURN alone are in a call over TLS", {
  timeout: 150_000,
}, async () => {
  browsers.push(await Browser.chromium({ flags: ["--ignore-certificate-errors"] }));
  browsers.push(await Browser.firefox());
  const [anna, bert] = [await enter(browsers[0], "anna"), await enter(browsers[1], "bert")];
  await Promise.all([untilOthers(anna, ["bert"], 60_000), untilOthers(bert, ["anna"], 60_000)]);
  for (const tab of [anna, bert]) {
    await tab.until("sound and pictures of the other one", async () => {
      const { subscriptions } = await globalThis.strait.statistics();
      const heard = subscriptions.filter((each) => (each.packetsReceived ?? 0) > 100);
      return heard.length >= 2 && heard.some((each) => (each.framesDecoded ?? 0) >= 30);
    }, { timeoutMs: 60_000 });
  }
  for (const tab of [anna, bert]) {
    const { candidateType, relayProtocol, address } = await tab.evaluate(selected);
    assert.equal(candidateType, "relay", tab.kind);
    assert.match(String(relayProtocol), /^(tls|tcp)$/, tab.kind);
    if (address) assert.match(address, /^(192\.0\.2\.|2001:db8:)/, tab.kind);
    assert.equal(await tab.evaluate(() => globalThis.strait.connectionType), "tcp-relay", tab.kind);
  }
  assert.ok((await metric("relay_turn_allocations")) >= 2);
  assert.equal(await metric("relay_turn_unauthorized_total"), 0);
});

test("a test of the line says that TURN over TLS alone gets through", {
  timeout: 120_000,
}, async (t) => {
  for (const browser of browsers) {
    const tab = await browser.tab();
    await tab.first(turnAlone);
    await tab.goto(server.secureAddress.replace("127.0.0.1", "localhost"));
    const seen = await testLine(tab, "line", TOKEN);
    const what = `${tab.kind}: ${JSON.stringify(seen)}`;
    t.diagnostic(what);
    assert.deepEqual(seen.transports, { udp: false, tcp: false, tls: true }, what);
    assert.equal(seen.connectionType, "tcp-relay", what);
    assert.ok(seen.up.packets > 20 && seen.down.packets > 20, what);
  }
});
