/** Strait's browser SDK: join a scope, publish, subscribe. See docs/sdk.md. */
export { type ConnectivityOptions, Strait, type JoinOptions } from "./strait.js";
export {
  Scope,
  type ScopeEvents,
  type ScopeState,
} from "./scope.js";
export type { PublishInput } from "./inputs.js";
export { Publication, RemotePeer } from "./peers.js";
export { LocalPublication, type PublishOptions, type VideoChange } from "./publication.js";
export { QUALITIES, type QualityName, type VideoQuality } from "./quality.js";
export type { AllowedSenders, MediaType, SenderRules } from "./senders.js";
export type { PeerMessage } from "./messages.js";
export type { CaptureConstraints, CaptureSource } from "./capture.js";
export type { ConnectionType } from "./connectiontype.js";
export type { Connectivity, DirectionFigures, Transports } from "./connectivity.js";
export { type Device, type DeviceChange, type DeviceList, setSpeaker } from "./devices.js";
export type { Grade } from "./grade.js";
export type {
  PublicationStatistics,
  Statistics,
  StreamStatistics,
  SubscriptionStatistics,
} from "./statistics.js";
export type {
  Kind,
  PreferenceEntry,
  PublicationQuality,
  QualityInfo,
  Source,
  SubscriptionQuality,
} from "./protocol.js";
export { StraitError, type ErrorKind } from "./errors.js";
export { type TypedEvent, TypedEvents } from "./events.js";
