import { checkPublish } from "./arguments.js";
import { type CaptureConstraints, type CaptureSource, capture } from "./capture.js";
import {
  type Connectivity,
  measureConnectivity,
  syntheticPicture,
} from "./connectivity.js";
import { type DeviceChange, type DeviceList, listDevices, watchDevices } from "./devices.js";
import { StraitError, asStraitError } from "./errors.js";
import type { PublishInput } from "./inputs.js";
import { JsonRtc } from "./jsonrtc.js";
import * as limits from "./limits.js";
import { Locator, applicationOf } from "./locator.js";
import type { Publication } from "./peers.js";
import type { PublishOptions } from "./publication.js";
import { Scope } from "./scope.js";
import { realTimers } from "./timers.js";

/** How to join a scope. */
export interface JoinOptions {
  /** The server: `https://HOST`, or the WebSocket itself. Default: where the page came from. */
  url?: string;
  /**
   * Instead of `url`: addresses of CnCs, which know the node of the scope. The first is random, the
   * others follow until one answers; when the node dies, the SDK goes on with the next.
   */
  resolvers?: readonly string[];
  /** For `resolvers`: whose scope it is. Default: the application of the token. */
  application?: string;
  /** For `resolvers`: where the client is, if it knows. */
  region?: string;
  /** Which conference. */
  scope: string;
  /** What allows it; sent in the CONNECT frame, never in an address. */
  token?: string;
  /** How the others see this client. */
  name?: string;
  /** Published with the first offer: the fastest way to be seen. */
  publish?: PublishInput;
  /** For `publish`. */
  publishOptions?: PublishOptions;
  /** Receive what others publish: all (default), none, or what the function says. */
  autoSubscribe?: boolean | ((publication: Publication) => boolean);
  /** Receive slots of each kind in the first offer. Default 4; more are added when needed. */
  slots?: number;
  /**
   * Where exactly two browsers are in the scope, media goes directly between them, if it can and the
   * server allows it; each then knows the other's addresses. Default true.
   */
  direct?: boolean;
  /** WebSocket subprotocol, if the server is configured for another one. */
  subprotocol?: string;
}

/** How to test the line. */
export interface ConnectivityOptions
  extends Pick<
    JoinOptions,
    "url" | "resolvers" | "application" | "region" | "scope" | "token" | "subprotocol"
  > {
  /** How long to send and measure; at most 30 s. Default 4 s. */
  measureMs?: number;
}

/** The entry of the SDK. */
export class Strait {
  /**
   * Joins a scope. Resolves when the server has answered; the event `connected` follows when the
   * media path is up. Throws a `StraitError` with a readable reason.
   */
  static async join(options: JoinOptions): Promise<Scope> {
    const { publish, publishOptions = {} } = options;
    // Before anybody is asked for anything.
    checkPublish(publish ?? [], publishOptions);
    const link = linkFor(options);
    const scope = new Scope({
      name: options.scope,
      link,
      timers: realTimers,
      autoSubscribe: options.autoSubscribe ?? true,
      slotsFirst: options.slots ?? limits.SLOTS_FIRST,
      direct: options.direct ?? true,
      hasOthers: options.resolvers !== undefined,
    });
    try {
      const answer = await link.connect();
      await scope.start(answer, publish, publishOptions);
    } catch (thrown) {
      throw asStraitError(thrown);
    }
    return scope;
  }

  /**
   * Tests the line to the server without joining: sends a small picture there and back for a few
   * seconds. Says how good it is, and whether media gets through by UDP and by TCP. Nobody in the
   * scope learns of it. Throws a `StraitError` when the server is away, or refuses the token.
   */
  static async testConnectivity(options: ConnectivityOptions): Promise<Connectivity> {
    const link = linkFor(options);
    try {
      const answer = await link.connect();
      return await measureConnectivity(link, answer, {
        scope: options.scope,
        measureMs: Math.min(
          options.measureMs ?? limits.CONNECTIVITY_MEASURE_MS,
          limits.CONNECTIVITY_MEASURE_MS_MAX,
        ),
        timers: realTimers,
        synthesize: syntheticPicture,
      });
    } catch (thrown) {
      throw asStraitError(thrown);
    } finally {
      link.close();
    }
  }

  /** Cameras, microphones and loudspeakers; nameless before the person has allowed one. */
  static devices(): Promise<DeviceList> {
    return listDevices();
  }

  /** Calls `listener` when devices come or go; the returned function stops it. */
  static onDevicesChanged(listener: (change: DeviceChange) => void): () => void {
    return watchDevices(listener);
  }

  /**
   * Asks for devices without publishing them yet, for a preview; `publish` takes the tracks and
   * remembers what they are.
   */
  static capture(
    sources: CaptureSource | readonly CaptureSource[],
    constraints?: CaptureConstraints,
  ): Promise<MediaStreamTrack[]> {
    return capture(sources, constraints);
  }
}

function linkFor(options: Omit<ConnectivityOptions, "measureMs"> & { name?: string }): JsonRtc {
  if (typeof RTCPeerConnection !== "function") {
    throw new StraitError("unsupported", "this browser has no WebRTC, or it is switched off");
  }
  if (!options.scope) throw new StraitError("unsupported", "a scope needs a name");
  return new JsonRtc({
    url: options.resolvers ? locatorFor(options, options.resolvers) : webSocketUrl(options.url),
    subprotocol: options.subprotocol ?? "strait.jsonrtc.v1",
    token: options.token,
    name: options.name,
  });
}

function locatorFor(
  { application, scope, region, token }: Omit<ConnectivityOptions, "measureMs">,
  resolvers: readonly string[],
) {
  const wanted = { resolvers, application: application ?? applicationOf(token), scope, region };
  const locator = new Locator(wanted, realTimers);
  return (failed: string | undefined, signal: AbortSignal) => locator.locate(failed, signal);
}

/** The address of the WebSocket: `/ws` of the server unless another path is given. */
export function webSocketUrl(given: string | undefined): string {
  const base = globalThis.location?.href;
  let url: URL;
  try {
    url = new URL(given ?? "/ws", base);
  } catch {
    throw new StraitError("unsupported", `${given ?? "(no url)"} is no address of a server`);
  }
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol === "https:") url.protocol = "wss:";
  if (url.pathname === "/") url.pathname = "/ws";
  return url.href;
}
