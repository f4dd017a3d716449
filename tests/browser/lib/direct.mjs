// What tests see of browsers that go directly.
import assert from "node:assert/strict";

/** Media goes by this way. */
export const untilWay = (tab, type, timeoutMs = 20_000) =>
  tab.until(`going by ${type}`, (wanted) => globalThis.strait.connectionType === wanted, {
    argument: type,
    timeoutMs,
  });

/** All that a tab sends goes directly, and it shows all that it gets directly. */
export const untilWhole = (tab, timeoutMs = 30_000) =>
  tab.until("everything going directly", () => {
    const { publications, peers } = globalThis.strait;
    const got = [...peers.values()].flatMap((peer) => [...peer.publications.values()]);
    return (
      publications.length === 2 && publications.every(({ directly }) => directly) &&
      got.length === 2 && got.every(({ directly }) => directly)
    );
  }, { timeoutMs });

/**
 * Notes when there is another picture of what is shown of a peer, whether its tab is the one in front or not: what was
 * shown, where it came from, and when that was seen first and last.
 */
export const watchFrames = (tab, name) =>
  tab.evaluate((wanted) => {
    globalThis.frames_ = [];
    const read = async () => {
      const peer = [...globalThis.strait.peers.values()].find((each) => each.name === wanted);
      const camera = peer?.find("camera");
      const way = camera?.directly ? "direct" : "relay";
      const report = await camera?.receiver?.getStats();
      const entry = [...(report?.values() ?? [])].find(({ type }) => type === "inbound-rtp");
      return entry && `${way} ${entry.ssrc} ${entry.framesDecoded}`;
    };
    const look = async () => {
      const shown = await read().catch(() => undefined);
      const [now, last] = [Date.now(), globalThis.frames_.at(-1)];
      if (shown === undefined || shown === last?.shown) {
        if (last) last.to = now;
      } else {
        globalThis.frames_.push({ shown, from: now, to: now });
      }
      setTimeout(look, 20);
    };
    void look();
  }, name);

/** The longest time since then in which it is certain that there was no other picture, and what was shown around it. */
const standstill = (tab, since) =>
  tab.evaluate((from) => {
    const shown = globalThis.frames_.filter(({ to }) => to > from);
    if (shown.length === 0) return { ms: Date.now() - from, around: "none at all" };
    const lasted = shown.map((each) => each.to - Math.max(from, each.from));
    const ms = Math.max(...lasted);
    const at = lasted.indexOf(ms);
    const looks = shown.slice(1).map((each, index) => each.from - shown[index].to);
    const around = shown.slice(Math.max(0, at - 2), at + 3).map((each, index, all) => {
      const next = all[index + 1];
      return `${each.shown}: ${each.from - from}…${each.to - from}${next ? "" : " ms"}`;
    });
    return { ms, around: `${around.join(", ")}; slowest look ${Math.max(0, ...looks)} ms` };
  }, since);

/** Whether the picture stood still for longer than it may; what was seen is said in any case. */
export async function assertMoved(tabs, since, msMax, when) {
  for (const [name, tab] of Object.entries(tabs)) {
    const { ms, around } = await standstill(tab, since);
    const what = `${name}: at most ${ms} ms without another picture ${when} (${around})`;
    console.log(`# ${what}`);
    assert.ok(ms <= msMax, what);
  }
}

/** Where the direct connections of a tab's camera end. */
export const ends = (tab) =>
  tab.evaluate(async () => {
    const camera = globalThis.strait.publications.find(({ kind }) => kind === "video");
    const report = [...(await camera.directly.getStats()).values()];
    const by = (id) => report.find((entry) => entry.id === id);
    const pair =
      by(report.find(({ type }) => type === "transport")?.selectedCandidatePairId) ??
      report.find(({ type, nominated }) => type === "candidate-pair" && nominated);
    const at = (id) => {
      const { address, port, candidateType } = by(id) ?? {};
      return { address, port, candidateType };
    };
    return { local: at(pair?.localCandidateId), remote: at(pair?.remoteCandidateId) };
  });
