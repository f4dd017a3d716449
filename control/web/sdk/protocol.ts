/** Payloads of the package `scope`: docs/reference/jsonrtc.md. */

export type Kind = "audio" | "video";

/** Where a publication comes from. */
export type Source = "camera" | "microphone" | "screen" | "screen-audio" | "other";

export interface ConnectAnswer {
  peer?: string;
  application?: string;
  iceServers?: RTCIceServer[];
}

export interface PublicationInfo {
  publication: string;
  kind: Kind;
  source: Source;
  name?: string;
  muted?: boolean;
  codec?: string;
}

export interface PeerInfo {
  peer: string;
  name?: string;
  publications?: PublicationInfo[];
}

/** What a client wants to send on an m-line of its offer. */
export interface PublishEntry {
  mid: string;
  source: Source;
  name?: string;
  muted?: boolean;
}

/** Which publication a slot shows; null frees the slot. */
export interface SubscribeEntry {
  mid: string;
  publication: string | null;
}

export interface PreferenceEntry {
  mid: string;
  paused?: boolean;
  /** The largest simulcast layer wanted; 0 is the smallest. */
  layerMax?: number;
  /** Highest spatial and temporal layer inside a stream; 0 is the lowest. */
  spatialMax?: number;
  temporalMax?: number;
  /** How high it is shown, in pixels of the screen. */
  height?: number;
  /** Where bandwidth is short: what has more comes first. 0 to 255, default 0. */
  priority?: number;
  /** Comes before all that is not pinned. */
  pinned?: boolean;
}

/** From whom this client takes what: peers by id. What is not named stays. */
export interface AllowEntry {
  audio?: "all" | string[];
  video?: "all" | string[];
  screen?: "all" | string[];
}

/** Payload of START and UPDATE. */
export interface ScopeRequest {
  sdp?: string;
  publish?: PublishEntry[];
  subscribe?: SubscribeEntry[];
  preferences?: PreferenceEntry[];
  allow?: AllowEntry;
  /** What this client sends at most, in bits per second; 0: no cap. */
  uplinkMaxBps?: number;
}

export interface FailedEntry {
  mid: string;
  error_code?: number;
  reason?: string;
}

/** Payload of the answers to START and UPDATE. */
export interface ScopeAnswer {
  sdp?: string;
  peer?: string;
  publications?: { mid: string; publication: string }[];
  subscriptions?: { mid: string; publication: string | null }[];
  peers?: PeerInfo[];
  speakers?: SpeakersInfo;
  failed?: FailedEntry[];
}

/** Who speaks, by publications. */
export interface SpeakersInfo {
  speaking?: string[];
  dominant?: string | null;
}

/** Payload of a NOTIFY from the server. */
export interface ScopeNotice extends SpeakersInfo {
  event?: string;
  peer?: string | PeerInfo;
  publication?: string | PublicationInfo;
  reason?: string;
  /** With `layers`: rids of the own publication that anybody needs. */
  active?: string[];
}

/** Payload of a SHUTDOWN from the server. */
export interface ShutdownRequest {
  reason?: string;
  /** The client should come back after 1 to 2 s, at random, with a START. */
  again?: boolean;
}
