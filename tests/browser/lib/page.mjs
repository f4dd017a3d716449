// What the tests do with Strait's page and read from it.

/** Opens the page, fills the form and joins. */
export async function join(tab, address, { name, token, scope, devices = true }) {
  await tab.goto(address);
  await tab.fill("#name", name);
  await tab.fill("#token", token);
  if (scope !== undefined) await tab.fill("#scope", scope);
  await tab.evaluate((wanted) => {
    document.querySelector("#with-camera").checked = wanted;
    document.querySelector("#with-microphone").checked = wanted;
  }, devices);
  await tab.click("#join");
  await connected(tab);
}

/**
 * Joins and returns the milliseconds from pressing Join until another's picture is on the screen.
 * Taken in the page, so that driving the browser costs nothing.
 */
export async function timeToPicture(tab, address, { name, token }) {
  await tab.goto(address);
  await tab.fill("#name", name);
  await tab.fill("#token", token);
  return tab.evaluate(async () => {
    const began = performance.now();
    document.querySelector("#join").click();
    while (performance.now() - began < 20_000) {
      const videos = document.querySelectorAll(".tile:not(.own).picture video");
      if ([...videos].some((video) => video.readyState >= 2 && video.videoWidth > 0)) break;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return performance.now() - began;
  });
}

/** Waits until the page says that it is connected. */
export function connected(tab, timeoutMs = 20_000) {
  const text = "being connected";
  return tab.until(text, () => globalThis.strait?.state === "connected", { timeoutMs });
}

/** What arrives, per subscription. */
export function received(tab) {
  return tab.evaluate(async () => {
    const { subscriptions } = await globalThis.strait.statistics();
    return subscriptions.map(({ publication, ...figures }) => ({
      ...figures,
      peer: publication.peer.name,
      kind: publication.kind,
      source: publication.source,
    }));
  });
}

/** What is sent, per publication. */
export function sent(tab) {
  return tab.evaluate(async () => {
    const { publications } = await globalThis.strait.statistics();
    return publications.map(({ publication, ...figures }) => ({
      ...figures,
      kind: publication.kind,
      source: publication.source,
    }));
  });
}

/** Offers since the scope was joined. */
export function offers(tab) {
  return tab.evaluate(async () => (await globalThis.strait.statistics()).offers);
}

/** Names of the others, sorted. */
export function others(tab) {
  return tab.evaluate(() =>
    [...(globalThis.strait?.peers.values() ?? [])].map((peer) => peer.name).sort(),
  );
}

/** Waits until exactly these others are there. */
export function untilOthers(tab, names, timeoutMs = 30_000) {
  const argument = JSON.stringify([...names].sort());
  return tab.until(
    `seeing ${argument}`,
    (wanted) =>
      JSON.stringify([...globalThis.strait.peers.values()].map((peer) => peer.name).sort()) ===
      wanted,
    { timeoutMs, argument },
  );
}

/** A number for the picture that a tile of another peer shows now: it changes when it moves. */
export function pictureHash(tab, index) {
  return tab.evaluate((which) => {
    const video = [...document.querySelectorAll(".tile:not(.own).picture video")][which];
    if (!video || video.readyState < 2) return 0;
    const canvas = document.createElement("canvas");
    canvas.width = 64;
    canvas.height = 48;
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0, 64, 48);
    const { data } = context.getImageData(0, 0, 64, 48);
    // FNV-1a
    return data.reduce((hash, byte) => Math.imul(hash ^ byte, 16777619), 2166136261) >>> 0;
  }, index);
}

/** What a test of the line to the node says, in a page that is open and has not joined. */
export function testLine(tab, scope, token) {
  return tab.evaluate(
    async (options) => {
      const { Strait } = await import("./strait.js");
      return Strait.testConnectivity(options);
    },
    { scope, token },
  );
}

/** For `Tab.first`: connections that gather no candidates but those of TURN servers. */
export function turnAlone() {
  const Real = globalThis.RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Real {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: "relay" });
    }
  };
}
