// A made voice: the fake microphones only click or hum.

/** Publishes it, silent at first. */
export function publishVoice(tab, options = {}) {
  return tab.evaluate(async (wanted) => {
    const context = new AudioContext();
    const tone = new OscillatorNode(context, { frequency: 220, type: "sawtooth" });
    const syllables = new OscillatorNode(context, { frequency: 4 });
    const voice = new GainNode(context, { gain: 0.5 });
    const mouth = new GainNode(context, { gain: 0 });
    syllables.connect(new GainNode(context, { gain: 0.3 })).connect(voice.gain);
    const out = context.createMediaStreamDestination();
    tone.connect(voice).connect(mouth).connect(out);
    tone.start();
    syllables.start();
    globalThis.speak = (loud) => mouth.gain.setValueAtTime(loud ? 0.5 : 0, context.currentTime);
    const [track] = out.stream.getAudioTracks();
    await globalThis.strait.publish(track, { source: "microphone", ...wanted });
  }, options);
}

/** Begins or stops to speak. */
export const speak = (tab, loud) => tab.evaluate((on) => globalThis.speak(on), loud);

/** Writes down from now on what the page is told of speech: `anna speaks`, `self silent`, `anna dominates`. */
export const keepBook = (tab) =>
  tab.evaluate(() => {
    globalThis.book = [];
    const { strait } = globalThis;
    const who = ({ peer }) => peer?.name ?? "self";
    strait.on("speaking", ({ publication, speaking }) => {
      globalThis.book.push(`${who(publication)} ${speaking ? "speaks" : "silent"}`);
    });
    strait.on("dominantspeaker", ({ publication }) => {
      globalThis.book.push(`${who(publication)} dominates`);
    });
  });

/** What was written down. */
export const book = (tab) => tab.evaluate(() => globalThis.book);

/** Waits until this line is written down. */
export const read = (tab, line) =>
  tab.until(`reading ${line}`, (wanted) => globalThis.book.includes(wanted), {
    timeoutMs: 10_000,
    argument: line,
  });
