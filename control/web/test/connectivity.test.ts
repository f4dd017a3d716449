import assert from "node:assert/strict";
import { test } from "node:test";
import { measureConnectivity } from "../sdk/connectivity.js";
import { JsonRtc } from "../sdk/jsonrtc.js";
import type { ScopeRequest } from "../sdk/protocol.js";
import { FakeConnection, FakeStream, FakeTrack, fakeAnswer } from "./fakeconnection.js";
import { FakeServer } from "./fakeserver.js";
import { FakeTimers } from "./faketimers.js";

Object.assign(globalThis, { RTCPeerConnection: FakeConnection, MediaStream: FakeStream });

const CANDIDATES = [
  "a=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host",
  "a=candidate:3 1 tcp 1520435199 192.0.2.1 8443 typ host tcptype passive",
];

const [STUN, TURN] = ["stun:one.example", "turns:node.example?transport=tcp"];
const SERVERS = [{ urls: STUN }, { urls: TURN, username: "9:t", credential: "secret" }];

interface Line {
  works: ("udp" | "tcp" | "tls")[];
  offered?: string[];
  /** The node has TURN over TLS. */
  turn?: boolean;
  /** Of 100 packets each way. */
  lost?: [number, number];
  rtt?: number;
}

/** Tests a line that is like this. */
async function tested(line: Line) {
  const { works, offered = CANDIDATES, turn = false, lost: [up, down] = [0, 0], rtt = 0.05 } = line;
  const server = new FakeServer();
  server.answer = ({ header, payload }) => {
    const { sdp = "" } = payload as ScopeRequest;
    if (header.action !== "START") return {};
    const publications = [{ mid: "0", publication: "pub-own" }];
    return { payload: { sdp: [fakeAnswer(sdp), ...offered, ""].join("\r\n"), publications } };
  };
  const timers = new FakeTimers();
  FakeConnection.onAnswer = (connection) => {
    const { iceTransportPolicy, iceServers = [] } = connection.configuration;
    const isTls = iceTransportPolicy === "relay";
    const urls = iceServers.flatMap((server) => server.urls);
    assert.deepEqual(urls, isTls ? [TURN] : turn ? [STUN] : [], "each way by itself");
    const hasUdp = connection.candidates.join().includes(" udp ");
    const by = isTls && hasUdp ? "tls" : hasUdp ? "udp" : "tcp";
    let looks = 0;
    connection.getStats = async () => {
      const at = 4_000 * looks;
      const n = 100 * looks;
      const of = (id: string, type: string, more: object): [string, object] => [
        id, { id, type, timestamp: at, ...more },
      ];
      const report = new Map([
        of("P", "candidate-pair", {
          selected: true, currentRoundTripTime: rtt, localCandidateId: "L",
        }),
        of("L", "local-candidate", {
          protocol: "udp", ...(isTls ? { candidateType: "relay", relayProtocol: "tls" } : { protocol: by }),
        }),
        of("O", "outbound-rtp", { packetsSent: n, bytesSent: n * 1_000 }),
        of("R", "remote-inbound-rtp", { packetsLost: up * looks, jitter: 0.002 }),
        of("I", "inbound-rtp", {
          packetsReceived: n - down * looks, bytesReceived: n * 1_000, jitter: 0.008,
          packetsLost: down * looks,
        }),
      ]);
      looks += 1;
      return report;
    };
    connection.setState(works.includes(by) ? "connected" : "checking");
  };
  const link = new JsonRtc({
    url: "ws://test/ws", subprotocol: "strait.jsonrtc.v1", token: "dev", name: undefined, timers,
    openSocket: server.open,
  });
  const track = new FakeTrack("video");
  const connecting = link.connect().then((answer) =>
    measureConnectivity(link, turn ? { ...answer, iceServers: SERVERS } : answer, {
      scope: "lobby",
      measureMs: 4_000,
      timers,
      synthesize: () => ({
        track: track as unknown as MediaStreamTrack,
        stop: () => track.stop(),
      }),
    }),
  );
  await timers.pass(40_000);
  FakeConnection.onAnswer = () => {};
  const seen = await connecting;
  assert.ok(track.stopped, "nothing goes on");
  assert.equal(FakeConnection.last.connectionState, "closed");
  return { seen, server };
}

test("a good line: the own picture comes back, and nobody else hears of it", async () => {
  const { seen, server } = await tested({ works: ["udp", "tcp"] });
  assert.equal(seen.grade, "fine");
  assert.deepEqual(seen.transports, { udp: true, tcp: true, tls: undefined });
  const { connectionType, roundTripTimeMs, lossRatio, jitterMs, up, down } = seen;
  assert.deepEqual(
    { connectionType, roundTripTimeMs, lossRatio, jitterMs },
    { connectionType: "udp-relay", roundTripTimeMs: 50, lossRatio: 0, jitterMs: 8 },
  );
  assert.deepEqual(up, { bitrateBps: 200_000, packets: 100, lossRatio: 0, jitterMs: 2 });
  assert.deepEqual(down, { bitrateBps: 200_000, packets: 100, lossRatio: 0, jitterMs: 8 });
  const starts = server.actions("START");
  assert.equal(starts.length, 2);
  for (const { header, payload } of starts) {
    assert.equal(header.target, "lobby");
    assert.equal((payload as ScopeRequest).alone, true);
  }
  const [update] = server.actions("UPDATE");
  const { subscribe } = update?.payload as ScopeRequest;
  assert.deepEqual(subscribe, [{ mid: "1", publication: "pub-own" }]);
  assert.equal(server.actions("SHUTDOWN").length, 2);
});

test("loss in either direction, and a long way, lower the grade", async () => {
  const average = await tested({ works: ["udp"], lost: [5, 0] });
  assert.deepEqual([average.seen.grade, average.seen.lossRatio], ["average", 0.05]);
  const bad = await tested({ works: ["udp"], lost: [0, 20] });
  assert.deepEqual([bad.seen.grade, bad.seen.down.lossRatio], ["bad", 0.2]);
  const far = await tested({ works: ["udp"], rtt: 0.5 });
  assert.deepEqual([far.seen.grade, far.seen.roundTripTimeMs], ["bad", 500]);
});

test("where UDP does not get through TCP is measured; where nothing does, it is bad", async () => {
  const { seen } = await tested({ works: ["tcp"] });
  assert.deepEqual(seen.transports, { udp: false, tcp: true, tls: undefined });
  assert.deepEqual([seen.grade, seen.connectionType], ["fine", "tcp-relay"]);
  const none = await tested({ works: [] });
  assert.deepEqual(none.seen.transports, { udp: false, tcp: false, tls: undefined });
  const { grade, connectionType, connectMs, lossRatio } = none.seen;
  assert.deepEqual([grade, connectionType, connectMs, lossRatio], ["bad", "none", undefined, undefined]);
  const udpAlone = await tested({ works: ["udp", "tcp"], offered: CANDIDATES.slice(0, 1) });
  const { transports } = udpAlone.seen;
  assert.deepEqual(transports, { udp: true, tcp: false, tls: undefined }, "the node offers no TCP");
});

test("where neither gets through TURN over TLS is tried, and measured", async () => {
  const { seen } = await tested({ works: ["tls"], turn: true });
  assert.deepEqual(seen.transports, { udp: false, tcp: false, tls: true });
  assert.deepEqual([seen.grade, seen.connectionType], ["fine", "tcp-relay"]);
  assert.equal(seen.up.packets, 100);
  const none = await tested({ works: [], turn: true });
  assert.deepEqual(none.seen.transports, { udp: false, tcp: false, tls: false });
  assert.deepEqual([none.seen.grade, none.seen.connectionType], ["bad", "none"]);
  for (const works of [["udp"], ["tcp"]] as const) {
    const other = await tested({ works: [...works], turn: true });
    assert.equal(other.seen.transports.tls, undefined, "not needed");
  }
});

test("what carries nothing back is bad, however short the way", async () => {
  const { seen } = await tested({ works: ["udp"], lost: [0, 100] });
  assert.equal(seen.grade, "bad");
});

test("a test that the server refuses leaves nothing open", async () => {
  const server = new FakeServer();
  server.answer = () => ({ error: 403 });
  const timers = new FakeTimers();
  const link = new JsonRtc({
    url: "ws://test/ws", subprotocol: "strait.jsonrtc.v1", token: "dev", name: undefined, timers,
    openSocket: server.open,
  });
  const answer = link.connect();
  await timers.pass(10);
  const track = new FakeTrack("video");
  const refused = measureConnectivity(link, await answer, {
    scope: "lobby",
    measureMs: 4_000,
    timers,
    synthesize: () => ({
      track: track as unknown as MediaStreamTrack,
      stop: () => track.stop(),
    }),
  });
  const isRefused = assert.rejects(refused, { code: 403 });
  await timers.pass(10);
  await isRefused;
  assert.deepEqual([FakeConnection.last.connectionState, track.stopped], ["closed", true]);
});
