// Joins a scope in Chromium without devices and prints what it sees of the first publisher, as
// JSON: `node watch.mjs PAGE TOKEN`. For tests/interop.
import { Browser } from "./lib/browsers.mjs";
import { join, pictureHash, received } from "./lib/page.mjs";

const [page, token] = process.argv.slice(2);
const browser = await Browser.chromium();
try {
  const tab = await browser.tab();
  await join(tab, page, { name: "watcher", token, devices: false });
  await tab.until("a picture", () =>
    [...document.querySelectorAll(".tile:not(.own) video")].some((each) => each.readyState >= 2),
  );
  const hashes = new Set();
  for (let count = 0; count < 8; count += 1) {
    hashes.add(await pictureHash(tab, 0));
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  const all = await received(tab);
  const video = all.find(({ kind }) => kind === "video");
  const audio = all.find(({ kind }) => kind === "audio");
  console.log(
    JSON.stringify({
      framesDecoded: video?.framesDecoded,
      totalAudioEnergy: audio?.totalAudioEnergy,
      pictures: hashes.size,
    }),
  );
} finally {
  await browser.close();
}
