import { StraitError, asStraitError } from "./errors.js";
import type { Source } from "./protocol.js";

/** What the SDK can capture by itself. */
export type CaptureSource = "camera" | "microphone" | "screen";

/** Constraints for each source; the defaults suit a call. */
export type CaptureConstraints = Partial<Record<CaptureSource, MediaTrackConstraints>>;

const capturedAs = new WeakMap<MediaStreamTrack, Source>();

const CAMERA: MediaTrackConstraints = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30 },
};
const MICROPHONE: MediaTrackConstraints = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
};

/**
 * Asks the person for devices, all in one question where the browser can: camera and microphone
 * together, the screen (with its sound where the browser offers it) on its own.
 * Throws a `StraitError` of kind `permission`, `device` or `unsupported`.
 */
export async function capture(
  sources: CaptureSource | readonly CaptureSource[],
  constraints: CaptureConstraints = {},
): Promise<MediaStreamTrack[]> {
  const wanted = new Set(typeof sources === "string" ? [sources] : sources);
  const devices = mediaDevices();
  const tracks: MediaStreamTrack[] = [];
  const camera = wanted.has("camera");
  const microphone = wanted.has("microphone");
  try {
    if (camera || microphone) {
      const stream = await devices.getUserMedia({
        video: camera && (constraints.camera ?? CAMERA),
        audio: microphone && (constraints.microphone ?? MICROPHONE),
      });
      tracks.push(...stream.getTracks());
      for (const track of tracks) {
        capturedAs.set(track, track.kind === "audio" ? "microphone" : "camera");
      }
    }
    if (wanted.has("screen")) tracks.push(...(await captureScreen(devices, constraints.screen)));
    return tracks;
  } catch (thrown) {
    for (const track of tracks) track.stop();
    throw explain(thrown, [...wanted]);
  }
}

/** What a captured track is, or `other`. */
export function sourceOf(track: MediaStreamTrack): Source {
  return capturedAs.get(track) ?? "other";
}

/** Releases the device of a track that the SDK captured; leaves an application's own alone. */
export function stopIfCaptured(track: MediaStreamTrack): void {
  if (capturedAs.has(track)) track.stop();
}

/** Has a track that the SDK captured captured like this; leaves an application's own alone. */
export async function constrain(
  track: MediaStreamTrack,
  constraints: MediaTrackConstraints,
): Promise<void> {
  if (!capturedAs.has(track) || Object.keys(constraints).length === 0) return;
  await track.applyConstraints({ ...track.getConstraints(), ...constraints });
}

/**
 * Captures with another device in the place of `current`, which goes on meanwhile, unless the
 * system lets only one run at a time: then it is stopped, and if the other one cannot be had, there
 * is a new track of the old one beside the error.
 */
export async function recapture(
  source: "camera" | "microphone",
  current: MediaStreamTrack,
  constraints: MediaTrackConstraints,
  deviceId: string,
): Promise<{ track?: MediaStreamTrack; error?: StraitError }> {
  const devices = mediaDevices();
  const base = source === "camera" ? CAMERA : MICROPHONE;
  const open = async (id: string): Promise<MediaStreamTrack | undefined> => {
    const wanted = { ...base, ...constraints, deviceId: { exact: id } };
    const stream = await devices.getUserMedia({ [source === "camera" ? "video" : "audio"]: wanted });
    const [track] = stream.getTracks();
    if (track) capturedAs.set(track, source);
    return track;
  };
  try {
    return { track: await open(deviceId) };
  } catch (thrown) {
    const name = thrown instanceof Error ? thrown.name : "";
    const before = current.getSettings().deviceId;
    const isBusy = name === "NotReadableError" || name === "AbortError";
    if (!isBusy || !before || !capturedAs.has(current)) return { error: explain(thrown, [source]) };
    current.stop();
    try {
      return { track: await open(deviceId) };
    } catch (again) {
      const error = explain(again, [source]);
      return { track: await open(before).catch(() => undefined), error };
    }
  }
}

/** @internal */
export function mediaDevices(): MediaDevices {
  const devices: MediaDevices | undefined = globalThis.navigator?.mediaDevices;
  if (devices) return devices;
  const reason = "the browser offers devices to secure pages only: use HTTPS or localhost";
  throw new StraitError("unsupported", reason);
}

async function captureScreen(
  devices: MediaDevices,
  constraints: MediaTrackConstraints = { frameRate: { ideal: 15, max: 30 } },
): Promise<MediaStreamTrack[]> {
  if (typeof devices.getDisplayMedia !== "function") {
    throw new StraitError("unsupported", "this browser cannot share a screen");
  }
  const stream = await devices.getDisplayMedia({ video: constraints, audio: true });
  // Chromium names the sound first.
  const isSound = ({ kind }: MediaStreamTrack) => Number(kind === "audio");
  const tracks = [...stream.getTracks()].sort((left, right) => isSound(left) - isSound(right));
  for (const track of tracks) {
    capturedAs.set(track, track.kind === "audio" ? "screen-audio" : "screen");
    // Text must stay sharp: rather fewer frames than fewer pixels.
    if (track.kind === "video" && "contentHint" in track) track.contentHint = "detail";
  }
  return tracks;
}

function explain(thrown: unknown, sources: CaptureSource[]): StraitError {
  if (thrown instanceof StraitError) return thrown;
  const what = sources.join(" and ");
  switch (thrown instanceof Error ? thrown.name : "") {
    case "NotAllowedError":
    case "SecurityError":
      return new StraitError(
        "permission",
        `the browser was not allowed to use the ${what}: allow it in the address bar and try again`,
      );
    case "NotFoundError":
    case "OverconstrainedError":
      return new StraitError("device", `no ${what} was found: is one connected?`);
    case "NotReadableError":
    case "AbortError":
      return new StraitError("device", `the ${what} cannot be read: another program may hold it`);
    default:
      return asStraitError(thrown);
  }
}
