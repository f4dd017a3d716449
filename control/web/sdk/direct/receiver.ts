import * as limits from "../limits.js";
import type { Publication } from "../peers.js";
import type { Entry } from "../report.js";
import { Ears } from "./ears.js";
import { Candidates, type DirectSignal, Pace, Ticker, opened } from "./signals.js";
import type { DirectHost } from "./direct.js";

/**
 * What comes directly from the other of two. A publication is shown from here once something of it
 * arrived, and from the relay again when nothing is heard any more, or when it is over and the relay
 * has something newer.
 */
export class DirectReceiver {
  private connection: RTCPeerConnection | undefined;
  private candidates: Candidates | undefined;
  private ticker: Ticker | undefined;
  private attempt = 0;
  private heardAt = 0;
  /** Publications by m-line. */
  private readonly offered = new Map<string, string>();
  private readonly shown = new Map<Publication, RTCRtpReceiver>();
  private answering = false;
  private looking = false;
  private readonly attempts: Pace;
  private readonly answers: Pace;
  private readonly ears: Ears;
  /** Since when it is over, and what the relay had brought by then. */
  private ending: { at: number; before: Map<Publication, number> } | undefined;

  constructor(
    private readonly host: DirectHost,
    private readonly tell: (signal: DirectSignal) => void,
  ) {
    this.attempts = new Pace(host.timers, limits.DIRECT_ATTEMPT_MS);
    this.answers = new Pace(host.timers, limits.DIRECT_ANSWER_MS);
    this.ears = new Ears(host);
  }

  signalled(signal: DirectSignal): void {
    const { attempt, offer, candidate, publications = [] } = signal;
    if (this.ending || attempt < this.attempt) return;
    if (offer === undefined) {
      if (candidate && attempt === this.attempt) this.candidates?.add(candidate);
      return;
    }
    if (attempt > this.attempt && this.attempts.takes()) this.open(attempt);
    // Who sends waits for the answer before it offers something else.
    if (attempt === this.attempt && this.connection && this.candidates && !this.answering) {
      void this.answer(this.connection, this.candidates, offer, publications);
    }
  }

  /** The relay brings everything again: what comes directly is shown until it does. */
  end(): void {
    if (this.ending) return;
    this.ending = { at: this.host.timers.now(), before: new Map() };
    for (const publication of this.shown.keys()) {
      this.host.speaking(publication, undefined);
      this.host.resume(publication);
    }
  }

  close(): void {
    this.ticker?.stop();
    for (const publication of [...this.shown.keys()]) this.hide(publication);
    this.connection?.close();
    this.connection = this.candidates = undefined;
    this.answering = false;
    this.offered.clear();
  }

  private open(attempt: number): void {
    this.close();
    this.attempt = attempt;
    this.heardAt = this.host.timers.now();
    const connection = opened(this.host.configuration);
    if (!connection) return;
    this.connection = connection;
    this.candidates = new Candidates(connection);
    const pace = new Pace(this.host.timers, limits.DIRECT_HEARD_MS);
    let beats: RTCDataChannel | undefined;
    let heard = false;
    connection.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate) this.tell({ attempt, receiver: true, candidate: candidate.toJSON() });
    });
    connection.addEventListener("datachannel", ({ channel }) => {
      if (beats || channel.label !== limits.DIRECT_LABEL) return channel.close();
      beats = channel;
      channel.addEventListener("message", () => {
        if (this.connection !== connection || !pace.takes()) return;
        this.heardAt = this.host.timers.now();
        heard = true;
        this.reply(channel);
      });
      channel.addEventListener("close", () => {
        if (this.connection === connection) this.close();
      });
    });
    this.ticker = new Ticker(this.host.timers, limits.DIRECT_LOOK_MS, () => {
      const patienceMs = heard ? limits.DIRECT_SILENCE_MS : limits.DIRECT_CONNECT_MS;
      if (this.host.timers.now() - this.heardAt > patienceMs) return this.close();
      if (heard) void this.look(connection);
    });
  }

  private async answer(
    connection: RTCPeerConnection,
    candidates: Candidates,
    offer: string,
    publications: { mid: string; publication: string }[],
  ): Promise<void> {
    const { attempt } = this;
    this.answering = true;
    await this.answers.turn();
    if (this.connection !== connection || this.ending) return;
    try {
      await connection.setRemoteDescription({ type: "offer", sdp: candidates.within(offer) });
      await connection.setLocalDescription();
    } catch {
      // It cannot be taken: the sender gives up after a while, and tries again.
      if (this.connection === connection) this.close();
      return;
    }
    if (this.connection !== connection) return;
    this.answering = false;
    candidates.release();
    this.offered.clear();
    for (const { mid, publication } of publications) this.offered.set(mid, publication);
    this.tell({ attempt, answer: connection.localDescription?.sdp ?? "" });
  }

  private reply(channel: RTCDataChannel): void {
    if (channel.bufferedAmount > limits.DIRECT_BUFFERED_BYTES) return;
    const offered = [...this.offered.values()];
    // It is over: the sender gives the relay everything again, if it has not heard of it yet.
    const all = this.ending ? [] : [...this.shown.keys()];
    const shown = all.map(({ id }) => id);
    const speaking = all.filter((each) => each.speaking).map(({ id }) => id);
    const unwanted = this.ending ? [] : offered.filter((id) => !this.host.received(id));
    try {
      channel.send(JSON.stringify({ shown, unwanted, speaking }));
    } catch {
      // It is full or just closed: silence decides.
    }
  }

  /** Compares what is shown with what is wanted and what arrives. */
  private async look(connection: RTCPeerConnection): Promise<void> {
    if (this.looking) return;
    this.looking = true;
    try {
      if (this.ending) await this.leave(this.ending);
      else {
        await this.show(connection);
        await this.ears.listen(this.shown, () => this.ending !== undefined);
      }
    } catch {
      // A connection that was closed meanwhile has nothing to say.
    } finally {
      this.looking = false;
    }
  }

  private async show(connection: RTCPeerConnection): Promise<void> {
    const offered = new Map([...this.offered].map(([mid, id]) => [id, mid]));
    for (const [publication, receiver] of this.shown) {
      const isCurrent = publication.directly === receiver && offered.has(publication.id);
      if (!isCurrent || this.host.received(publication.id) !== publication) this.hide(publication);
    }
    for (const [id, mid] of offered) {
      const publication = this.host.received(id);
      if (!publication || this.shown.has(publication)) continue;
      const receiver = connection.getTransceivers().find((each) => each.mid === mid)?.receiver;
      if (receiver?.track.kind !== publication.kind || (await arrived(receiver)) === 0) continue;
      if (this.connection !== connection || this.ending) return;
      this.shown.set(publication, receiver);
      publication.directly = receiver;
      this.host.shown(publication);
    }
  }

  private async leave({ at, before }: { at: number; before: Map<Publication, number> }) {
    for (const publication of [...this.shown.keys()]) {
      const { relayed } = publication;
      const now = relayed ? await arrived(relayed) : 0;
      const first = before.get(publication);
      if (first === undefined) before.set(publication, now);
      else if (now > first) this.hide(publication);
    }
    const tookMs = this.host.timers.now() - at;
    if (this.shown.size === 0 || tookMs > limits.DIRECT_LINGER_MS) this.close();
  }

  private hide(publication: Publication): void {
    const receiver = this.shown.get(publication);
    this.shown.delete(publication);
    this.host.speaking(publication, undefined);
    // A newer pair may show it by now.
    if (publication.directly !== receiver) return;
    publication.directly = undefined;
    this.host.shown(publication);
  }
}

/** What came: pictures that can be shown, or sound. */
async function arrived(receiver: RTCRtpReceiver): Promise<number> {
  let count = 0;
  const report = await receiver.getStats();
  report.forEach((entry: Entry) => {
    if (entry.type !== "inbound-rtp") return;
    const field = receiver.track.kind === "video" ? "framesDecoded" : "packetsReceived";
    const value = entry[field];
    if (typeof value === "number") count += value;
  });
  return count;
}
