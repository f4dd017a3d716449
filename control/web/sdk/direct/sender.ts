import * as limits from "../limits.js";
import type { LocalPublication } from "../publication.js";
import { EncodingChanger, adjust } from "../sending.js";
import { Candidates, type DirectSignal, Pace, Ticker, answerOf, opened } from "./signals.js";
import type { DirectHost } from "./direct.js";

interface Line {
  transceiver: RTCRtpTransceiver;
  changer: EncodingChanger;
}

/**
 * What this client sends directly: a connection that carries its publications to the other of two,
 * and a data channel with beats. The relay gets none of what the other one says that it shows.
 */
export class DirectSender {
  private connection: RTCPeerConnection | undefined;
  private candidates: Candidates | undefined;
  private channel: RTCDataChannel | undefined;
  private readonly lines = new Map<LocalPublication, Line>();
  private ticker: Ticker | undefined;
  private cancelRetry: (() => void) | undefined;
  private attempt = 0;
  private failures = 0;
  /** When the other one was heard last, or the attempt began. */
  private heardAt = 0;
  private openedAt: number | undefined;
  private unwanted: readonly string[] = [];
  /** Candidates that were found before the first offer was told. */
  private early: DirectSignal[] | undefined;
  /** What the last offer named; another one is due when that changes. */
  private offered = "";
  private ended = false;

  constructor(
    private readonly host: DirectHost,
    private readonly tell: (signal: DirectSignal) => void,
  ) {}

  /** What is published may be another now, or otherwise. */
  update(): void {
    if (this.ended || this.cancelRetry) return;
    if (this.wanted().length > 0 && !this.connection) this.open();
    if (this.connection) void this.negotiate(this.connection);
    for (const [publication, { transceiver, changer }] of this.lines) {
      const { sender } = transceiver;
      if (sender.track && sender.track !== publication.track) {
        sender.replaceTrack(publication.track).catch(() => {});
      }
      changer.apply().catch(() => {});
    }
  }

  /** What the other one answers. */
  async signalled({ attempt, answer, candidate }: DirectSignal): Promise<void> {
    const { connection, candidates } = this;
    if (!connection || !candidates || attempt !== this.attempt) return;
    if (candidate) candidates.add(candidate);
    if (answer === undefined || connection.signalingState !== "have-local-offer") return;
    try {
      await connection.setRemoteDescription({ type: "answer", sdp: candidates.within(answer) });
    } catch {
      if (this.connection === connection) this.fail();
      return;
    }
    candidates.release();
    // What changed meanwhile.
    if (this.connection === connection) this.update();
  }

  /** The relay gets everything again at once; what is under way directly still arrives. */
  end(): void {
    this.ended = true;
    this.cancelRetry?.();
    this.takeBack();
  }

  close(): void {
    this.end();
    this.drop();
  }

  private wanted(): LocalPublication[] {
    return [...this.host.sent()].filter(({ id }) => id !== undefined);
  }

  private open(): void {
    this.attempt += 1;
    this.heardAt = this.host.timers.now();
    this.openedAt = undefined;
    this.offered = "";
    this.early = [];
    const { attempt } = this;
    const connection = opened(this.host.configuration);
    if (!connection) return this.fail();
    this.connection = connection;
    this.candidates = new Candidates(connection);
    connection.addEventListener("icecandidate", ({ candidate }) => {
      if (!candidate) return;
      const signal = { attempt, candidate: candidate.toJSON() };
      if (this.early) this.early.push(signal);
      else this.tell(signal);
    });
    // What is late is of no use: each answer says all there is to say.
    const options = { ordered: false, maxRetransmits: 0 };
    const channel = connection.createDataChannel(limits.DIRECT_LABEL, options);
    this.channel = channel;
    const pace = new Pace(this.host.timers, limits.DIRECT_HEARD_MS);
    channel.addEventListener("message", ({ data }) => {
      if (this.channel === channel && pace.takes()) this.heard(data);
    });
    channel.addEventListener("close", () => {
      if (this.channel === channel) this.fail();
    });
    this.ticker = new Ticker(this.host.timers, limits.DIRECT_BEAT_MS, () => this.beat());
  }

  private async negotiate(connection: RTCPeerConnection): Promise<void> {
    if (connection.signalingState !== "stable") return;
    const wanted = this.wanted();
    const named = JSON.stringify(wanted.map(({ id }) => id));
    if (named === this.offered) return;
    this.offered = named;
    for (const [publication, { transceiver }] of this.lines) {
      if (wanted.includes(publication)) continue;
      this.lines.delete(publication);
      this.setDirectly(publication, undefined);
      transceiver.stop();
    }
    for (const publication of wanted) {
      if (!this.lines.has(publication)) this.lines.set(publication, this.line(publication));
    }
    const { attempt } = this;
    try {
      await connection.setLocalDescription();
    } catch {
      if (this.connection === connection) this.fail();
      return;
    }
    if (this.connection !== connection) return;
    const publications = [...this.lines].flatMap(([{ id }, { transceiver }]) =>
      id === undefined || transceiver.mid === null ? [] : { mid: transceiver.mid, publication: id },
    );
    this.tell({ attempt, offer: connection.localDescription?.sdp ?? "", publications });
    const { early = [] } = this;
    this.early = undefined;
    for (const signal of early) this.tell(signal);
  }

  private line(publication: LocalPublication): Line {
    const { track } = publication;
    const encodings: RTCRtpEncodingParameters[] = [{}];
    this.adjust(encodings, publication);
    const transceiver = (this.connection as RTCPeerConnection).addTransceiver(track, {
      direction: "sendonly",
      sendEncodings: encodings,
    });
    const changer = new EncodingChanger(transceiver.sender, (changed) =>
      this.adjust(changed, publication),
    );
    return { transceiver, changer };
  }

  /** One stream within the publication's bounds, whatever the relay gets. */
  private adjust(encodings: RTCRtpEncodingParameters[], publication: LocalPublication): void {
    adjust(encodings, publication, { ladder: undefined, shareBps: this.host.share(publication) });
    const unwanted = this.unwanted.includes(publication.id ?? "");
    for (const encoding of encodings) encoding.active = !unwanted;
  }

  private beat(): void {
    const now = this.host.timers.now();
    const { channel } = this;
    const patienceMs =
      this.openedAt === undefined ? limits.DIRECT_CONNECT_MS : limits.DIRECT_SILENCE_MS;
    if (now - this.heardAt > patienceMs) return this.fail();
    if (channel?.readyState !== "open") return;
    this.openedAt ??= now;
    try {
      channel.send("{}");
    } catch {
      // It is full or just closed: silence decides.
    }
  }

  private heard(data: unknown): void {
    const answer = answerOf(data);
    if (!answer) return;
    this.heardAt = this.host.timers.now();
    if (this.ended) return;
    const { shown, unwanted, speaking } = answer;
    const changed = unwanted.join() !== this.unwanted.join();
    this.unwanted = unwanted;
    for (const [publication, { transceiver, changer }] of this.lines) {
      const isShown = publication.id !== undefined && shown.includes(publication.id);
      this.setDirectly(publication, isShown ? transceiver.sender : undefined);
      if (isShown && publication.kind === "audio") {
        const speaks = !publication.muted && speaking.includes(publication.id as string);
        this.host.speaking(publication, speaks);
      }
      if (changed) changer.apply().catch(() => {});
    }
  }

  private setDirectly(publication: LocalPublication, sender: RTCRtpSender | undefined): void {
    if (publication.directly === sender) return;
    publication.directly = sender;
    if (!sender) this.host.speaking(publication, undefined);
    this.host.sentDirectly(publication);
  }

  private takeBack(): void {
    for (const [publication, { transceiver }] of this.lines) {
      if (publication.directly === transceiver.sender) this.setDirectly(publication, undefined);
    }
  }

  /** This attempt came to nothing, or to its end: the next one follows later and later. */
  private fail(): void {
    const { openedAt, ended } = this;
    const { timers } = this.host;
    this.takeBack();
    this.drop();
    if (ended) return;
    const lasted = openedAt !== undefined && timers.now() - openedAt > limits.DIRECT_WELL_MS;
    this.failures = lasted ? 1 : this.failures + 1;
    const waitMs = limits.DIRECT_RETRY_MS * 2 ** (this.failures - 1);
    this.cancelRetry = timers.after(Math.min(waitMs, limits.DIRECT_RETRY_MS_MAX), () => {
      this.cancelRetry = undefined;
      this.update();
    });
  }

  private drop(): void {
    const { connection } = this;
    this.ticker?.stop();
    this.connection = this.channel = this.candidates = undefined;
    this.unwanted = [];
    this.lines.clear();
    connection?.close();
  }
}
