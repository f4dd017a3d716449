import { mediaDevices } from "./capture.js";
import { StraitError, asStraitError } from "./errors.js";

/** A camera, a microphone or a loudspeaker. */
export interface Device {
  /** For `useDevice`, `setSpeaker`, or a `deviceId` constraint. */
  id: string;
  kind: "camera" | "microphone" | "speaker";
  /** What the system calls it; empty before the person has allowed a device of its kind. */
  label: string;
  /** The same for what is in one casing. */
  group: string;
}

/** All devices. Before the person has allowed one, browsers show at most one of each kind. */
export interface DeviceList {
  cameras: Device[];
  microphones: Device[];
  /** Empty where the browser does not let pages choose. */
  speakers: Device[];
}

/** What came and went. */
export interface DeviceChange {
  devices: DeviceList;
  added: Device[];
  removed: Device[];
}

const KINDS: Record<MediaDeviceKind, Device["kind"]> = {
  videoinput: "camera",
  audioinput: "microphone",
  audiooutput: "speaker",
};

/** Throws a `StraitError` of kind `unsupported` on a page that is not secure. */
export async function listDevices(): Promise<DeviceList> {
  return sorted(await enumerate());
}

/**
 * Calls `listener` when a device is connected or taken away, or when its name becomes known. The
 * returned function stops it.
 */
export function watchDevices(listener: (change: DeviceChange) => void): () => void {
  const devices = mediaDevices();
  let before = enumerate().catch(() => []);
  let stopped = false;
  const onChange = () => {
    // One after the other, so that each is told against the one before.
    before = before.then(async (known) => {
      const now = await enumerate().catch(() => known);
      const added = now.filter((device) => !known.some((each) => isSame(each, device)));
      const removed = known.filter((device) => !now.some((each) => isSame(each, device)));
      if (stopped || added.length + removed.length === 0) return now;
      try {
        listener({ devices: sorted(now), added, removed });
      } catch (thrown) {
        // As of an event's listener: the fault is the application's, and the next change is told.
        reportError(thrown);
      }
      return now;
    });
  };
  devices.addEventListener("devicechange", onChange);
  return () => {
    stopped = true;
    devices.removeEventListener("devicechange", onChange);
  };
}

/** Plays an element's sound by this loudspeaker; `""` is the system's own choice. */
export async function setSpeaker(
  element: HTMLMediaElement,
  speaker: Device | string,
): Promise<void> {
  if (typeof element.setSinkId !== "function") {
    throw new StraitError("unsupported", "this browser plays by the system's loudspeaker only");
  }
  try {
    await element.setSinkId(typeof speaker === "string" ? speaker : speaker.id);
  } catch (thrown) {
    const name = thrown instanceof Error ? thrown.name : "";
    if (name === "NotFoundError") {
      throw new StraitError("device", "this loudspeaker was not found: is it connected?");
    }
    if (name === "NotAllowedError") {
      throw new StraitError("permission", "the browser does not let this page choose a loudspeaker");
    }
    throw asStraitError(thrown);
  }
}

function sorted(all: readonly Device[]): DeviceList {
  const of = (kind: Device["kind"]) => all.filter((each) => each.kind === kind);
  return { cameras: of("camera"), microphones: of("microphone"), speakers: of("speaker") };
}

async function enumerate(): Promise<Device[]> {
  const infos = await mediaDevices().enumerateDevices();
  return infos.map(({ deviceId, kind, label, groupId }) => ({
    id: deviceId,
    kind: KINDS[kind],
    label,
    group: groupId,
  }));
}

function isSame(left: Device, right: Device): boolean {
  return left.id === right.id && left.kind === right.kind && left.label === right.label;
}
