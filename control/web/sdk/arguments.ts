/** What applications pass, checked before anything is done with it: many have no type checker. */

import { StraitError } from "./errors.js";
import * as limits from "./limits.js";
import type { RemotePeer } from "./peers.js";
import { QUALITIES } from "./quality.js";

const DEVICES = ["camera", "microphone", "screen"];
const SOURCES = [...DEVICES, "screen-audio", "other"];
const NUMBER = "a number above 0";

/** What `publish` takes, and with which options. */
export function checkPublish(input: unknown, options: unknown): void {
  const inputs = Array.isArray(input) ? (input as unknown[]) : [input];
  const may = `${oneOf(DEVICES)}, a track, a stream, or a list of these`;
  for (const each of inputs) {
    const isStream = isObject(each) && typeof each["getTracks"] === "function";
    if (!isStream && !isTrack(each) && !DEVICES.includes(each as string)) {
      throw wrong("publish", each, may);
    }
  }
  checkOptions(options);
}

function checkOptions(options: unknown): void {
  if (!isObject(options)) throw wrong("options of publish", options, "an object");
  const { source, name, maxBitrateBps, quality, codecs } = options;
  if (source !== undefined && !SOURCES.includes(source as string)) {
    throw wrong("source", source, oneOf(SOURCES));
  }
  if (name !== undefined && typeof name !== "string") throw wrong("name", name, "text");
  if (maxBitrateBps !== undefined) checkAboveZero("maxBitrateBps", maxBitrateBps);
  if (quality !== undefined) checkQuality(quality);
  const isNames = Array.isArray(codecs) && codecs.every((each) => typeof each === "string");
  if (codecs !== undefined && !isNames) throw wrong("codecs", codecs, "a list of names");
}

function checkQuality(quality: unknown): void {
  const names = Object.keys(QUALITIES);
  if (names.includes(quality as string)) return;
  if (!isObject(quality)) {
    throw wrong("quality", quality, `${oneOf(names)}, or {width, height, frameRate, bitrateBps}`);
  }
  for (const name of ["width", "height", "frameRate", "bitrateBps"]) {
    checkAboveZero(`quality.${name}`, quality[name]);
  }
}

/** A size or a rate. */
export function checkAboveZero(name: string, value: unknown): void {
  if (!(Number.isFinite(value) && (value as number) > 0)) throw wrong(name, value, NUMBER);
}

/** What `replaceTrack` takes. */
export function checkTrack(track: unknown): void {
  if (!isTrack(track)) throw wrong("replaceTrack", track, "a track");
}

/** What `limitUplink` takes. */
export function checkCap(bps: unknown): void {
  const isCap = Number.isSafeInteger(bps) && (bps as number) >= 0;
  if (!isCap) throw wrong("limitUplink", bps, "a whole number of bits per second, or 0 for no cap");
}

/** The id of whom `sendMessage` is to reach; undefined: all others. */
export function receiverOf(data: unknown, to: RemotePeer | string | undefined): string | undefined {
  // An array of another frame's page is no instance of this one's.
  const isBytes = Object.prototype.toString.call(data) === "[object Uint8Array]";
  if (typeof data !== "string" && !isBytes) throw wrong("data", data, "text or a Uint8Array");
  if (to === undefined) return undefined;
  const id: unknown = isObject(to) ? to["id"] : to;
  const bytes = typeof id === "string" ? new TextEncoder().encode(id).length : 0;
  if (bytes > 0 && bytes <= limits.PEER_BYTES_MAX) return id as string;
  throw wrong("to", to, "a peer, or the id of one");
}

function isTrack(value: unknown): boolean {
  if (!isObject(value) || typeof value["addEventListener"] !== "function") return false;
  return value["kind"] === "audio" || value["kind"] === "video";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function oneOf(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(", ");
}

function wrong(name: string, value: unknown, may: string): StraitError {
  return new StraitError("unsupported", `${name}: ${shown(value)} was passed; it takes ${may}`);
}

function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, limits.SHOWN_CHARACTERS_MAX));
  if (Array.isArray(value)) return "a list";
  if (typeof value === "function") return "a function";
  return isObject(value) ? "an object" : String(value);
}
