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
  /** With START: in a scope that nobody else can enter. */
  alone?: boolean;
  /** Media may go directly to the other of two. */
  direct?: boolean;
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
  /** The cap of what this client sends that holds, in bits per second; 0: none. */
  uplinkMaxBps?: number;
  messages?: MessageCounts;
}

/** With START: messages that went over data channels in this stay, as the server counts them. */
export interface MessageCounts {
  /** To this client. */
  sent?: number;
  /** From it. */
  taken?: number;
}

/** Who speaks, by publications. */
export interface SpeakersInfo {
  speaking?: string[];
  dominant?: string | null;
}

/** How streams fared over an interval, as the relay measured it. */
export interface QualityInfo {
  intervalSeconds?: number;
  /** What may be sent to this peer, if that is known. */
  budgetBps?: number | null;
  roundTripSeconds?: number | null;
  /** What this peer gets. */
  subscriptions?: SubscriptionQuality[];
  /** One encoding that this peer sends. */
  publications?: PublicationQuality[];
}

export interface SubscriptionQuality {
  publication: string;
  /** Sent by the relay within the interval, without retransmissions. */
  packets: number;
  bytes: number;
  /** Share of packets lost, 0 to 1, and jitter, as this browser last reported them. */
  fractionLost: number;
  jitterSeconds: number;
  roundTripSeconds: number | null;
  /** The simulcast layer that is sent, the one that is wanted, and the best that fits. */
  layer: number;
  layerWanted?: number | null;
  layerPermitted?: number | null;
  /** What the bandwidth takes away. */
  heldBack: "nothing" | "lowered" | "paused";
  /** Since it was subscribed: key frames that went out, pictures that stood too long, how long. */
  keyFrames: number;
  freezes: number;
  frozenSeconds: number;
}

export interface PublicationQuality {
  publication: string;
  /** Empty without simulcast. */
  rid: string;
  /** What reached the relay within the interval. */
  packets: number;
  bytes: number;
  /** Packets that had the time to arrive, those that did not, and those of them that came again. */
  expected: number;
  lost: number;
  repaired: number;
  /** One-way queuing delay on the way to the relay: of the newest packet, and of 95 % of them. */
  queueDelaySeconds?: number | null;
  queueDelayP95Seconds?: number | null;
  jitterSeconds: number;
  keyFrames: number;
  /** How those who get it fared: how many, with a lower layer, with nothing, the worst loss. */
  viewers: { count: number; lowered: number; paused: number; fractionLostMax: number };
}

/** Payload of a NOTIFY from the server. */
export interface ScopeNotice extends SpeakersInfo, QualityInfo {
  event?: string;
  peer?: string | PeerInfo;
  publication?: string | PublicationInfo;
  reason?: string;
  /** With `message`: the sender, whether it is for this peer alone, and text or base 64. */
  from?: string;
  direct?: boolean;
  text?: string;
  data?: string;
  /** Of one that went over a data channel, which may not have brought it. With `direct`, `signal`: of the pair. */
  number?: number;
  /** With `direct`: where this client can ask how it is seen from outside. */
  iceServers?: RTCIceServer[];
  /** With `layers`: rids of the own publication that anybody needs. */
  active?: string[];
}

/** Payload of a SHUTDOWN from the server. */
export interface ShutdownRequest {
  reason?: string;
  /** The client should come back after 1 to 2 s, at random, with a START. */
  again?: boolean;
}
