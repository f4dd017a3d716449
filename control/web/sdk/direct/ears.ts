import * as limits from "../limits.js";
import type { Publication } from "../peers.js";
import type { Entry } from "../report.js";
import { Pace } from "./signals.js";
import type { DirectHost } from "./direct.js";

/** Sound that came until now, and until when it counts as speech. */
interface Heard {
  energy: number;
  seconds: number;
  until: number;
}

/** Hears who speaks in what comes past the server, which tells nothing of it. */
export class Ears {
  private readonly heard = new WeakMap<Publication, Heard>();
  private readonly pace: Pace;

  constructor(private readonly host: DirectHost) {
    this.pace = new Pace(host.timers, limits.DIRECT_SPEECH_MS);
  }

  /** Listens to what is shown, and tells, until it is over: the server tells again then. */
  async listen(
    shown: ReadonlyMap<Publication, RTCRtpReceiver>,
    isOver: () => boolean,
  ): Promise<void> {
    if (isOver() || !this.pace.takes()) return;
    for (const [publication, receiver] of [...shown]) {
      if (publication.kind !== "audio") continue;
      const sound = await soundOf(receiver);
      if (isOver()) return;
      // Hidden meanwhile.
      if (!shown.has(publication)) continue;
      const before = this.heard.get(publication);
      const now = this.host.timers.now();
      const speaks = !publication.muted && before !== undefined && isLoud(before, sound);
      const until = speaks ? now + limits.DIRECT_SILENT_AFTER_MS : (before?.until ?? now);
      this.heard.set(publication, { ...sound, until });
      this.host.speaking(publication, !publication.muted && now < until);
    }
  }
}

/** The power of what came between: a level at one moment may be that of a pause within a word. */
function isLoud(before: Heard, { energy, seconds }: Omit<Heard, "until">): boolean {
  const [more, passed] = [energy - before.energy, seconds - before.seconds];
  return passed > 0 && more / passed >= limits.DIRECT_SPEECH_LEVEL ** 2;
}

async function soundOf(receiver: RTCRtpReceiver): Promise<Omit<Heard, "until">> {
  const sound = { energy: 0, seconds: 0 };
  (await receiver.getStats()).forEach((entry: Entry) => {
    if (entry.type !== "inbound-rtp") return;
    const { totalAudioEnergy: energy, totalSamplesDuration: seconds } = entry;
    if (typeof energy === "number") sound.energy += energy;
    if (typeof seconds === "number") sound.seconds += seconds;
  });
  return sound;
}
