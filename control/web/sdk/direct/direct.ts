import * as limits from "../limits.js";
import type { Publication } from "../peers.js";
import type { ScopeNotice } from "../protocol.js";
import type { LocalPublication } from "../publication.js";
import type { Timers } from "../timers.js";
import { DirectReceiver } from "./receiver.js";
import { DirectSender } from "./sender.js";
import { type DirectSignal, signalOf } from "./signals.js";

/** What direct connections ask of the media session that owns them. */
export interface DirectHost {
  readonly timers: Timers;
  /** Of the connection to the relay. */
  readonly configuration: RTCConfiguration;
  /** To the other of the pair with this number, through the server. */
  signal(number: number, text: string): void;
  /** What this client publishes. */
  sent(): Iterable<LocalPublication>;
  /** Its share of a capped uplink, in bits per second. */
  share(publication: LocalPublication): number | undefined;
  /** The subscribed and not paused publication with this id. */
  received(id: string): Publication | undefined;
  /** What goes directly is speech, is none, or does not go directly any more. */
  speaking(publication: Publication | LocalPublication, speaking: boolean | undefined): void;
  /** `directly` of a publication changed: what the relay gets does, too. */
  sentDirectly(publication: LocalPublication): void;
  /** `directly` of a publication changed, and so did its track. */
  shown(publication: Publication): void;
  /** The relay is to bring it again, though it is still shown directly. */
  resume(publication: Publication): void;
}

/** The two ways between this client and the other of two. */
interface Pair {
  number: number;
  sender: DirectSender;
  receiver: DirectReceiver;
}

/**
 * Media between the two of a scope, past the relay, as long as the server says that they are two.
 * Each has a connection for what it sends, so that neither waits for the other, and the relay's
 * stays as it is: what breaks goes by it again.
 */
export class Direct {
  private pair: Pair | undefined;
  /** The one that is over, until the relay has taken over. */
  private over: Pair | undefined;

  constructor(private readonly host: DirectHost) {}

  onNotice({ event, number = 0, text, iceServers }: ScopeNotice): void {
    if (event === "direct") return this.begin(number, iceServers);
    if (event === "direct-ended") return this.end();
    const signal = signalOf(text);
    const { pair } = this;
    if (!signal || pair?.number !== number) return;
    if (signal.answer !== undefined || signal.receiver) void pair.sender.signalled(signal);
    else pair.receiver.signalled(signal);
  }

  /** What is published may be another now, or otherwise. */
  update(): void {
    this.pair?.sender.update();
  }

  close(): void {
    this.end();
    this.drop();
  }

  private begin(number: number, iceServers: RTCIceServer[] = []): void {
    this.end();
    const all = [...(this.host.configuration.iceServers ?? []), ...iceServers];
    const host = { ...this.host, configuration: directConfiguration({ iceServers: all }) };
    const tell = (signal: DirectSignal) => {
      if (this.pair === pair) this.host.signal(number, JSON.stringify(signal));
    };
    const sender = new DirectSender(host, tell);
    const pair = { number, sender, receiver: new DirectReceiver(host, tell) };
    this.pair = pair;
    sender.update();
  }

  private end(): void {
    const { pair } = this;
    if (!pair) return;
    this.pair = undefined;
    // However fast pairs follow each other: those before the last one are gone.
    this.drop();
    this.over = pair;
    pair.sender.end();
    pair.receiver.end();
    this.host.timers.after(limits.DIRECT_LINGER_MS, () => {
      if (this.over === pair) this.drop();
    });
  }

  private drop(): void {
    const { over } = this;
    this.over = undefined;
    over?.sender.close();
    over?.receiver.close();
  }
}

/** For a connection past the relay: no server on the way either, only those that say where one is. */
export function directConfiguration({ iceServers = [] }: RTCConfiguration): RTCConfiguration {
  const servers = iceServers.flatMap(({ urls }) => urls).filter((url) => /^stuns?:/.test(url));
  return { iceServers: servers.map((urls) => ({ urls })), bundlePolicy: "max-bundle" };
}
