import { checkPublish } from "./arguments.js";
import { type CaptureSource, capture, stopIfCaptured } from "./capture.js";
import { StraitError } from "./errors.js";
import type { PublishOptions } from "./publication.js";

/** What can be published: a device by name, a track, or a stream with all its tracks. */
export type PublishInput =
  | CaptureSource
  | MediaStreamTrack
  | MediaStream
  | readonly (CaptureSource | MediaStreamTrack | MediaStream)[];

/** The tracks of an input, for which devices are asked for where it names some, after a check. */
export async function tracksOf(
  input: PublishInput,
  options: PublishOptions,
): Promise<MediaStreamTrack[]> {
  checkPublish(input, options);
  const { constraints } = options;
  const inputs = Array.isArray(input) ? input : [input];
  const devices = inputs.filter((each): each is CaptureSource => typeof each === "string");
  const tracks: MediaStreamTrack[] = [];
  if (devices.length > 0) {
    const asked = constraints && Object.fromEntries(devices.map((name) => [name, constraints]));
    tracks.push(...(await capture(devices, asked)));
  }
  for (const each of inputs) {
    if (typeof each === "string") continue;
    tracks.push(...("getTracks" in each ? each.getTracks() : [each]));
  }
  if (tracks.some(({ readyState }) => readyState === "ended")) {
    for (const track of tracks) stopIfCaptured(track);
    const reason = "a track has ended: it was stopped, or its device was taken away";
    throw new StraitError("device", reason);
  }
  return tracks;
}
