import assert from "node:assert/strict";
import { test } from "node:test";
import type { LocalPublication } from "../sdk/publication.js";
import { EncodingChanger, adjust, firstEncodings } from "../sdk/sending.js";

interface Video {
  bounds?: object;
  layers?: string[];
  simulcast?: boolean;
  width?: number;
}

const video = ({ bounds = {}, layers, simulcast, width = 1280 }: Video = {}) =>
  ({
    kind: "video",
    options: { simulcast },
    bounds,
    layers,
    track: { getSettings: () => ({ width, height: (width * 9) / 16 }) },
  }) as unknown as LocalPublication;

const free = { ladder: undefined, shareBps: undefined };
const held = (shareBps: number) => ({ ladder: undefined, shareBps });

test("what nobody said anything of is left to the browser", () => {
  assert.deepEqual(firstEncodings(video(), free), [{}]);
});

test("a cap bounds the encoder, and goes without a trace", () => {
  const encodings: RTCRtpEncodingParameters[] = [{}];
  adjust(encodings, video(), held(285_000));
  assert.deepEqual(encodings, [{ maxBitrate: 285_000 }]);
  adjust(encodings, video({ bounds: { bitrateBps: 200_000 } }), held(285_000));
  assert.deepEqual(encodings, [{ maxBitrate: 200_000 }], "the smaller of the two");
  adjust(encodings, video(), free);
  assert.deepEqual(encodings, [{}]);
});

test("a track that is larger than wanted is scaled, and that is taken back", () => {
  const encodings: RTCRtpEncodingParameters[] = [{}];
  adjust(encodings, video({ bounds: { width: 640, frameRate: 10 } }), free);
  assert.deepEqual(encodings, [{ maxFramerate: 10, scaleResolutionDownBy: 2 }]);
  adjust(encodings, video({ bounds: { height: 180 } }), free);
  assert.deepEqual(encodings, [{ scaleResolutionDownBy: 4 }]);
  adjust(encodings, video({ bounds: { width: 1920 } }), free);
  assert.deepEqual(encodings, [{ scaleResolutionDownBy: 1 }], "never larger than it is");
});

test("layers: a tenth, a third and all of it, smaller by four and by two", () => {
  const layers = firstEncodings(video({ simulcast: true, bounds: { bitrateBps: 900_000 } }), free);
  assert.deepEqual(layers, [
    { rid: "q", active: true, maxBitrate: 90_000, scaleResolutionDownBy: 4 },
    { rid: "h", active: true, maxBitrate: 300_000, scaleResolutionDownBy: 2 },
    { rid: "f", active: true, maxBitrate: 900_000, scaleResolutionDownBy: 1 },
  ]);
});

test("under a cap the small layers come first, and what it does not carry stops", () => {
  const sent = (shareBps: number | undefined, layers?: string[]) => {
    const picture = video({ simulcast: true, layers });
    const encodings = firstEncodings(picture, { ladder: undefined, shareBps });
    return encodings.filter(({ active }) => active).map(({ rid, maxBitrate }) => `${rid} ${maxBitrate}`);
  };
  assert.deepEqual(sent(undefined), ["q 150000", "h 500000", "f 1500000"]);
  assert.deepEqual(sent(900_000), ["q 150000", "h 500000"]);
  assert.deepEqual(sent(600_000), ["q 150000", "h 450000"]);
  assert.deepEqual(sent(100_000), ["q 100000"], "the smallest always");
  assert.deepEqual(sent(600_000, ["f"]), ["f 600000"], "of those that anybody needs");
  assert.deepEqual(sent(100_000, []), []);
});

test("a sender takes one change at a time, and the last word counts", async () => {
  let [wanted, running, most] = [1, 0, 0];
  let told: RTCRtpEncodingParameters[] = [{}];
  let finish: () => void = () => {};
  const sender = {
    getParameters: () => ({ encodings: told.map((each) => ({ ...each })) }),
    setParameters: async ({ encodings }: { encodings: RTCRtpEncodingParameters[] }) => {
      most = Math.max(most, (running += 1));
      await new Promise<void>((resolve) => (finish = resolve));
      running -= 1;
      if (wanted === 13) throw new Error("cannot");
      told = encodings;
    },
  } as unknown as RTCRtpSender;
  const changer = new EncodingChanger(sender, ([first]) => {
    if (first) first.maxBitrate = wanted;
  });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const first = changer.apply();
  await turn();
  wanted = 2;
  const second = changer.apply();
  wanted = 3;
  void changer.apply();
  finish();
  await turn();
  finish();
  await Promise.all([first, second]);
  assert.deepEqual([told, most], [[{ maxBitrate: 3 }], 1]);
  wanted = 13;
  const failing = assert.rejects(changer.apply(), /cannot/);
  await turn();
  finish();
  await failing;
  wanted = 4;
  const again = changer.apply();
  await turn();
  finish();
  await again;
  assert.deepEqual(told, [{ maxBitrate: 4 }], "and goes on after a failure");
});
