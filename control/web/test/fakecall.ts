import type { Frame } from "../sdk/frames.js";
import { JsonRtc } from "../sdk/jsonrtc.js";
import type { PeerInfo, ScopeRequest } from "../sdk/protocol.js";
import type { PublishOptions } from "../sdk/publication.js";
import { Scope, type ScopeEvents } from "../sdk/scope.js";
import { FakeConnection, FakeStream, type FakeTrack, fakeAnswer } from "./fakeconnection.js";
import { FakeServer } from "./fakeserver.js";
import { FakeTimers } from "./faketimers.js";

Object.assign(globalThis, { RTCPeerConnection: FakeConnection, MediaStream: FakeStream });

/** Answers START and UPDATE as the contract says. */
export class FakeConference {
  peers: PeerInfo[] = [];
  refuse: number | undefined;
  /** Where those who begin are sent, as long as it is set. */
  elsewhere: string[] = [];
  rejected: string[] = [];
  uplinkMaxBps = 0;
  private named = new Map<string, string>();
  private count = 0;

  readonly answer = (
    frame: Frame,
  ): { payload?: unknown; error?: number; location?: string } => {
    const { action } = frame.header;
    const location = action === "START" ? this.elsewhere.shift() : undefined;
    if (location !== undefined) return { error: 307, location };
    if (action !== "START" && action !== "UPDATE") return {};
    if (this.refuse !== undefined) return { error: this.refuse };
    if (action === "START") this.named.clear();
    const request = frame.payload as ScopeRequest;
    const publications = (request.publish ?? []).map(({ mid }) => {
      if (!this.named.has(mid)) this.named.set(mid, `pub-own-${(this.count += 1)}`);
      return { mid, publication: this.named.get(mid) };
    });
    const known = new Set(
      this.peers.flatMap((peer) => (peer.publications ?? []).map((each) => each.publication)),
    );
    const subscriptions = (request.subscribe ?? []).filter(
      ({ publication }) => publication === null || known.has(publication),
    );
    const failed = (request.subscribe ?? [])
      .filter((entry) => !subscriptions.includes(entry))
      .map(({ mid }) => ({ mid, error_code: 404, reason: "no such publication" }));
    return {
      payload: {
        ...(request.sdp ? { sdp: fakeAnswer(request.sdp, this.rejected) } : {}),
        ...(action === "START" ? { peer: "p-own", peers: this.peers } : {}),
        publications,
        subscriptions,
        failed,
        uplinkMaxBps: this.uplinkMaxBps,
      },
    };
  };
}

/** Another peer, with publications of these names. */
export const bob = (...names: string[]): PeerInfo => ({
  peer: "p-bob",
  name: "Bob",
  publications: names.map((name) => ({
    publication: name,
    kind: name.startsWith("mic") ? ("audio" as const) : ("video" as const),
    source: name.startsWith("mic") ? ("microphone" as const) : ("camera" as const),
  })),
});

/** A scope that was joined; `elsewhere`: where it was sent to before. */
export async function joined(
  peers: PeerInfo[] = [],
  tracks: FakeTrack[] = [],
  options: PublishOptions = {},
  elsewhere: string[] = [],
) {
  const server = new FakeServer();
  const conference = new FakeConference();
  conference.elsewhere = elsewhere;
  conference.peers = peers;
  server.answer = conference.answer;
  const timers = new FakeTimers();
  const link = new JsonRtc({
    url: "ws://test/ws",
    subprotocol: "strait.jsonrtc.v1",
    token: "dev",
    name: "alice",
    timers,
    openSocket: server.open,
  });
  const settings = { name: "lobby", link, timers, autoSubscribe: true, slotsFirst: 2 };
  const scope = new Scope(settings);
  const log: string[] = [];
  const names: (keyof ScopeEvents)[] = [
    "joined", "left", "published", "unpublished", "muted", "unmuted", "track", "connected",
    "reconnecting", "reconnected", "closed", "error", "speaking", "dominantspeaker",
  ];
  for (const name of names) scope.on(name, () => log.push(name));
  const start = link
    .connect()
    .then((answer) => scope.start(answer, tracks as unknown as MediaStreamTrack[], options));
  // Awaited below, where it may have failed long ago.
  start.catch(() => {});
  await timers.pass(100);
  await start;
  const starts = () => server.actions("START").map((frame) => frame.payload as ScopeRequest);
  const updates = () => server.actions("UPDATE").map((frame) => frame.payload as ScopeRequest);
  return { server, conference, timers, link, scope, log, starts, updates };
}
