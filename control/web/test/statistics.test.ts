import assert from "node:assert/strict";
import { test } from "node:test";
import { NodeFigures } from "../sdk/nodefigures.js";
import type { MediaSession } from "../sdk/media.js";
import type { PublicationQuality, SubscriptionQuality } from "../sdk/protocol.js";
import type { Entry } from "../sdk/report.js";
import { StatisticsReader } from "../sdk/statistics.js";

/** A session with a camera up and a camera down; `say` sets what the browser says of it. */
function call(connectionState = "connected") {
  const camera = { kind: "video", source: "camera", muted: false };
  let entries: Partial<Entry>[] = [];
  const getStats = async () => new Map(entries.map((entry) => [entry.id, entry]));
  const session = {
    connection: { connectionState, getStats },
    offers: 2,
    uplinks: [{ publication: { ...camera, id: "pub-own" }, transceiver: { mid: "0" } }],
    slots: [
      {
        bound: { ...camera, id: "pub-bob" },
        transceiver: { mid: "1", receiver: { track: { id: "t" } } },
      },
    ],
  } as unknown as MediaSession;
  const say = (moment: Moment) => {
    entries = report(moment);
    return session;
  };
  return { say };
}

interface Moment {
  at: number;
  sent?: number;
  got?: number;
  lost?: number;
  rtt?: number;
  frames?: number;
}

const report = ({ at, sent = 0, got = 0, lost = 0, rtt = 0.04, frames = 24 }: Moment) => [
  { id: "T", type: "transport", timestamp: at, selectedCandidatePairId: "P" },
  { id: "P", type: "candidate-pair", timestamp: at, currentRoundTripTime: rtt, localCandidateId: "L" },
  { id: "L", type: "local-candidate", timestamp: at, protocol: "udp" },
  {
    id: "O", type: "outbound-rtp", kind: "video", mid: "0", timestamp: at, bytesSent: sent * 100,
    packetsSent: sent, remoteId: "R", framesPerSecond: frames, frameHeight: 360,
  },
  {
    id: "R", type: "remote-inbound-rtp", timestamp: at, fractionLost: 0.01, packetsLost: 3,
    jitter: 0.004, roundTripTime: 0.05,
  },
  {
    id: "I", type: "inbound-rtp", kind: "video", mid: "1", timestamp: at, packetsReceived: got,
    packetsLost: lost, bytesReceived: got * 100, jitter: 0.01, framesPerSecond: frames,
  },
];

test("each stream has its loss, jitter, round trip, queue, rates and grade", async () => {
  const reader = new StatisticsReader();
  const { say } = call();
  const node = new NodeFigures();
  await reader.read(say({ at: 0, sent: 10, got: 10 }), 1, node, 0);
  const encoding = { publication: "pub-own", rid: "", expected: 100, lost: 2, jitterSeconds: 0.003 };
  const publications = [{ ...encoding, queueDelaySeconds: 0.012 } as PublicationQuality];
  node.note({ publications }, 1_000);
  const later = say({ at: 1_000, sent: 60, got: 100, lost: 10, rtt: 0.07 });
  const seen = await reader.read(later, 1, node, 2_000);
  assert.deepEqual([seen.connectionType, seen.offers, seen.grade], ["udp-relay", 3, "average"]);
  const [up] = seen.publications;
  assert.ok(up);
  const { bitrateBps, packetsLost, lossRatio, jitterMs, roundTripTimeMs, queueDelayMs } = up;
  assert.deepEqual(
    { bitrateBps, packetsLost, lossRatio, jitterMs, roundTripTimeMs, queueDelayMs },
    {
      bitrateBps: 40_000, packetsLost: 3, lossRatio: 0.01, jitterMs: 4, roundTripTimeMs: 50,
      queueDelayMs: 12,
    },
  );
  assert.deepEqual([up.framesPerSecond, up.frameHeight, up.grade], [24, 360, "fine"]);
  const [down] = seen.subscriptions;
  assert.ok(down);
  assert.deepEqual([down.bitrateBps, down.packetsLost, down.lossRatio], [72_000, 10, 0.1]);
  assert.deepEqual([down.jitterMs, down.roundTripTimeMs], [10, 70]);
  assert.equal(down.queueDelayMs, 30, "above the shortest round trip");
  assert.equal(down.grade, "average", "a tenth is lost");
});

test("what stands still by itself is not graded, what the relay takes away is", async () => {
  const reader = new StatisticsReader();
  const { say } = call();
  const node = new NodeFigures();
  const told = (heldBack: SubscriptionQuality["heldBack"], at: number) =>
    node.note({ subscriptions: [{ publication: "pub-bob", heldBack } as SubscriptionQuality] }, at);
  await reader.read(say({ at: 0, got: 10 }), 0, node, 0);
  const grades = async (at: number, got: number, frames: number) => {
    const seen = await reader.read(say({ at, got, frames }), 0, node, at);
    return [seen.publications[0]?.grade, seen.subscriptions[0]?.grade];
  };
  assert.deepEqual(await grades(1_000, 20, 2), [undefined, "bad"], "a slide show");
  assert.deepEqual(await grades(2_000, 20, 0), [undefined, undefined], "nothing comes");
  told("paused", 2_500);
  assert.deepEqual(await grades(3_000, 20, 0), [undefined, "bad"]);
  told("lowered", 3_500);
  assert.deepEqual(await grades(4_000, 30, 24), [undefined, "average"]);
  assert.deepEqual(await grades(9_000, 40, 24), [undefined, "fine"], "what was told is stale");
});

test("without a media path all is bad", async () => {
  const down = call("disconnected").say({ at: 0 });
  const seen = await new StatisticsReader().read(down, 0, new NodeFigures(), 0);
  assert.deepEqual([seen.grade, seen.connectionType], ["bad", "none"]);
});

test("what the node told of a publication is the worst of its encodings, while it is new", () => {
  const node = new NodeFigures();
  const told = (rid: string, queueDelaySeconds: number | null, lost: number) =>
    ({
      publication: "pub-1", rid, expected: 100, lost, jitterSeconds: 0.001, queueDelaySeconds,
    }) as PublicationQuality;
  node.note({ publications: [told("q", 0.03, 0), told("f", 0.05, 4)] }, 0);
  assert.deepEqual(node.ofPublication("pub-1", 1_000), {
    lossRatio: 0.04, jitterMs: 1, queueDelayMs: 50,
  });
  node.note({ publications: [told("f", null, 0)] }, 4_000);
  assert.equal(node.ofPublication("pub-1", 4_000).queueDelayMs, 30);
  assert.equal(node.ofPublication("pub-1", 5_500).queueDelayMs, undefined, "the other is stale");
  assert.equal(node.ofPublication(undefined, 0).lossRatio, undefined);
});
