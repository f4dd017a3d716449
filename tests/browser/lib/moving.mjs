// What tests see of a call whose networks change.

/** Samples are taken so often. */
const SAMPLE_MS = 50;

/** Begins to note how many pictures and packets of sound of each peer came, and what the scope tells. */
export function watch(tab) {
  return tab.evaluate((everyMs) => {
    const { strait } = globalThis;
    const { media, link } = strait;
    const watched = { samples: [], told: [], connection: media.connection, session: link.sessionId };
    globalThis.watched = watched;
    const tell = (what) => watched.told.push({ at: Date.now(), what });
    for (const name of ["reconnecting", "reconnected", "closed", "connectiontype"]) {
      strait.on(name, (detail) => tell(`${name} ${JSON.stringify(detail)}`));
    }
    const state = () => tell(`media ${media.connection.connectionState}`);
    media.connection.addEventListener("connectionstatechange", state);
    for (const name of ["online", "offline"]) addEventListener(name, () => tell(name));
    navigator.connection?.addEventListener?.("change", () => tell("the network's estimate"));
    const figure = async (peer, source, name) => {
      const report = [...((await peer.find(source)?.receiver?.getStats())?.values() ?? [])];
      return report.find(({ type }) => type === "inbound-rtp")?.[name] ?? 0;
    };
    const take = async () => {
      const sample = { at: Date.now() };
      for (const peer of strait.peers.values()) {
        sample[`${peer.name}'s pictures`] = await figure(peer, "camera", "framesDecoded");
        sample[`${peer.name}'s sound`] = await figure(peer, "microphone", "packetsReceived");
      }
      watched.samples.push(sample);
    };
    const next = () => void take().catch(() => {}).finally(() => setTimeout(next, everyMs));
    next();
  }, SAMPLE_MS);
}

/** Waits until of all that is watched something came, and no pause was certain that is longer than `pauseMs`, for `steadyMs` after `since`. */
export function untilSteady(tab, what, { since, steadyMs, pauseMs, timeoutMs }) {
  const steady = ([names, from, lastingMs, longestMs]) => {
    const begin = Date.now() - lastingMs;
    const samples = globalThis.watched.samples.filter(({ at }) => at >= begin);
    const lacking = names.filter((name) => {
      let [first, longest] = [samples[0], 0];
      for (const sample of samples) {
        if (sample[name] !== first[name]) first = sample;
        longest = Math.max(longest, sample.at - first.at);
      }
      return longest > longestMs || !(first?.[name] > samples[0]?.[name]);
    });
    if (begin >= from && lacking.length === 0) return true;
    return `${lacking.join(", ")}; ${JSON.stringify(samples.at(-1))}`;
  };
  const argument = [what, since, steadyMs, pauseMs];
  return tab.until(`${what.join(", ")} without a pause`, steady, { timeoutMs, argument });
}

/** What was seen since then: how long it is certain that each thing stood still, at most, and what was told. */
export async function seen(tab, what, since) {
  const { samples, told } = await tab.evaluate((from) => {
    const late = (list) => list.filter(({ at }) => at >= from);
    return { samples: late(globalThis.watched.samples), told: late(globalThis.watched.told) };
  }, since);
  const stood = {};
  for (const name of what) {
    let [first, longest] = [samples[0], 0];
    for (const sample of samples) {
      if (sample[name] !== first[name]) first = sample;
      longest = Math.max(longest, sample.at - first.at);
    }
    stood[name] = longest;
  }
  return { stood, told: told.map(({ at, what }) => `${at - since}: ${what}`) };
}

/** Whether session and connection are those of the beginning. */
export const isSame = (tab) =>
  tab.evaluate(() => {
    const { watched, strait } = globalThis;
    const { media, link } = strait;
    return {
      session: watched.session === link.sessionId,
      connection: watched.connection === media.connection,
    };
  });

/** From where its media goes, as the browser says. */
export function localAddress(tab) {
  return tab.evaluate(async () => {
    const report = [...(await globalThis.strait.media.connection.getStats()).values()];
    const find = (wanted) => report.find(({ id }) => id === wanted);
    const pairs = report.filter(({ type }) => type === "candidate-pair");
    const transport = report.find(({ type }) => type === "transport");
    const pair = find(transport?.selectedCandidatePairId) ?? pairs.find(({ selected }) => selected);
    return find(pair?.localCandidateId)?.address ?? null;
  });
}
