// A made camera: the fake ones show so little that their largest layer fits every line.

/** Publishes it in layers. Works in Chromium. */
export function publishCamera(tab, options = {}) {
  return tab.evaluate(async ({ width, height, frameRate, ...wanted }) => {
    const generator = new MediaStreamTrackGenerator({ kind: "video" });
    const writer = generator.writable.getWriter();
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    let seed = 1;
    const chance = (most) => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((seed / 2 ** 32) * most);
    };
    const began = performance.now();
    setInterval(() => {
      // Enough news in each picture that an encoder takes all that it may.
      for (let n = 0; n < 24; n += 1) {
        context.fillStyle = `rgb(${chance(256)}, ${chance(256)}, ${chance(256)})`;
        context.fillRect(chance(width), chance(height), 8 + chance(48), 8 + chance(48));
      }
      const timestamp = Math.round((performance.now() - began) * 1_000);
      writer.write(new VideoFrame(canvas, { timestamp })).catch(() => {});
    }, 1_000 / frameRate);
    await globalThis.strait.publish(generator, { source: "camera", simulcast: true, ...wanted });
  }, { width: 960, height: 540, frameRate: 15, ...options });
}
