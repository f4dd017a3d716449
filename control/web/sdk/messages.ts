/** Messages between peers: text, or bytes in base 64 (docs/reference/jsonrtc.md). */

import { StraitError } from "./errors.js";
import type { ScopeNotice } from "./protocol.js";

/** A message of another peer, a browser or a native client. */
export interface PeerMessage {
  /** The id of the peer that sent it. */
  from: string;
  /** What it sent: text, or bytes. */
  data: string | Uint8Array;
  /** Sent to this peer alone. */
  direct: boolean;
}

/** The largest message, in bytes: the server's limit. */
export const MESSAGE_BYTES = 64 * 1024;
/** Bytes that are turned into characters at a time: arguments of a call are bounded. */
const CHUNK = 8192;

/** The payload of a NOTIFY that sends `data`, to one peer or to all others. */
export function messageEntry(data: string | Uint8Array, to?: string): object {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data).length : data.length;
  if (bytes > MESSAGE_BYTES) {
    throw new StraitError("unsupported", `a message of ${bytes} bytes; at most ${MESSAGE_BYTES}`);
  }
  const receiver = to === undefined ? {} : { to };
  if (typeof data === "string") return { event: "message", ...receiver, text: data };
  let characters = "";
  for (let at = 0; at < data.length; at += CHUNK) {
    characters += String.fromCharCode(...data.subarray(at, at + CHUNK));
  }
  return { event: "message", ...receiver, data: btoa(characters) };
}

/** The message in a NOTIFY; none where it holds none. */
export function messageOf(notice: ScopeNotice): PeerMessage | undefined {
  const { from, direct = false, text, data } = notice;
  if (from === undefined) return undefined;
  if (text !== undefined) return { from, direct, data: text };
  if (data === undefined) return undefined;
  return { from, direct, data: Uint8Array.from(atob(data), (each) => each.charCodeAt(0)) };
}
