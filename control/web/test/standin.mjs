// A stand-in for strait-control, for tests of the dashboard alone: it serves the built pages as control does, and answers
// the API from data that it makes up. Each question and each answer is held against control/src/api/openapi.json.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const web = join(dirname(fileURLToPath(import.meta.url)), "..");
const openapi = JSON.parse(readFileSync(join(web, "..", "src", "api", "openapi.json"), "utf8"));

export const OPERATOR = "operator-token";
export const ADMIN = "admin-token-of-shop";
/** Names that would be elements, were they taken for HTML. */
export const HOSTILE = `<img src=x onerror="globalThis.hacked=1">`;
const PROBLEMS = ["loss_in", "loss_out", "freezes", "lowered", "paused", "round_trip", "queue"];
const [MINUTE, HOUR, DAY] = [60_000, 3_600_000, 86_400_000];

/** Made-up history of `count` sessions of 30 days before `now`, the same for each call. */
function history(count, now) {
  let state = 2026;
  const random = () => (state = (state * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31;
  const applications = ["shop", "school", "clinic", "games", "studio", "radio", "bank", HOSTILE];
  return Array.from({ length: count }, (_, index) => {
    const live = index < 120;
    const createdAt = now - (live ? index * 20_000 : HOUR) - Math.floor((index * 30 * DAY) / count);
    const stays = 2 + Math.floor(random() * 8);
    const seconds = 120 + Math.floor(random() * 3_000);
    const some = index % 7 === 0 ? [PROBLEMS[index % PROBLEMS.length]] : [];
    return {
      session: `s${String(index).padStart(6, "0")}`,
      application: applications[index % applications.length],
      scope: index % 50 === 0 ? `${HOSTILE}${index}` : `room-${index % 400}`,
      node: `node-${index % 3}`,
      createdAt,
      endedAt: live ? null : createdAt + seconds * 1_000,
      live,
      stays,
      present: live ? stays : 0,
      participantSeconds: stays * seconds,
      bytesIn: stays * seconds * 60_000,
      bytesOut: stays * seconds * 150_000,
      score: some.length ? 40 + random() * 40 : 85 + random() * 15,
      problems: some,
    };
  });
}

function staysOf(session, now) {
  const until = session.endedAt ?? now;
  return Array.from({ length: session.stays }, (_, index) => {
    const joinedAt = session.createdAt + Math.floor(((until - session.createdAt) * index) / 12);
    const left = !session.live || index === 1;
    return {
      stay: `${session.session}-${index}`,
      peer: `peer-${index}`,
      name: index === 0 ? HOSTILE : `Peer ${index}`,
      user: index % 2 ? `user-${index}` : "",
      client: ["conference", "native", "whip", "whep"][index % 4],
      node: session.node,
      joinedAt,
      until: left ? Math.max(joinedAt, until - index * 15_000) : until,
      left,
      reason: left ? "left" : null,
      participantSeconds: (until - joinedAt) / 1_000,
      bytesIn: 1_000_000 * index,
      bytesOut: 3_000_000 * index,
      score: index === 2 ? 45 : 95,
      problems: index === 2 ? ["loss_in"] : [],
    };
  });
}

function timelineOf(session, now) {
  const begin = Math.floor(session.createdAt / MINUTE) * MINUTE;
  const end = session.endedAt ?? now;
  const streams = staysOf(session, now).flatMap((stay, index) =>
    ["in", "out"].map((direction) => ({
      stay: stay.stay,
      peer: stay.peer,
      name: stay.name,
      direction,
      stream: direction === "in" ? `camera-${index}` : "",
      points: Array.from(
        { length: Math.min(1_440, Math.ceil((end - begin) / MINUTE)) },
        (_, minute) => ({
          at: begin + minute * MINUTE,
          seconds: 60,
          packets: 6_000,
          bytes: 7_500_000 + 500_000 * Math.sin(minute / 3 + index),
          score: 90,
          lossFraction: direction === "in" ? 0.01 + 0.01 * Math.sin(minute / 5) : 0.002,
          roundTripSeconds: minute === 3 ? null : 0.04 + 0.01 * Math.cos(minute / 4),
          jitterSeconds: 0.004,
          queueDelaySeconds: 0.015 + 0.015 * Math.abs(Math.sin(minute / 7)),
          frozenSeconds: 0,
          lowered: 0,
          paused: 0,
          problems: [],
        }),
      ),
    })),
  );
  return { session: session.session, stepSeconds: 60, streams, truncated: false };
}

function invoiceOf(application, month, number, issuedAt) {
  const line = (kind, of, minutes, amount) => ({
    kind,
    month: of,
    minutes,
    perThousandMinutes: "3.99",
    amount,
  });
  return {
    state: number === null ? "draft" : "issued",
    number,
    issuedAt,
    application,
    month,
    issuer: `${HOSTILE}\nStreet 1`,
    currency: "EUR",
    decimals: 2,
    minutes: 12_352,
    total: "49.29",
    lines: [line("usage", month, 12_345, "49.26"), line("correction", "2026-01", 7, "0.03")],
  };
}

/** What the stand-in answers, by the API's own names of its operations. */
class Answers {
  constructor(sessions, now) {
    this.sessions = sessions;
    this.now = now;
    this.stored = [...new Set(sessions.map(({ application }) => application))].map(
      (application) => ({
        application,
        concatenated: false,
        changesKeys: false,
        keys: [{ key: "first", kind: "secret", enabled: true, createdAt: now - DAY }],
      }),
    );
    this.fleet = [0, 1, 2].map((index) => ({
      node: `node-${index}`,
      state: ["ready", "full", "away"][index],
      region: index ? null : "eu",
      address: `192.0.2.${index}:8443`,
      scopes: 40,
      peers: 200,
      headroom: [0.62, 0.04, null][index],
      version: "0.1.0",
      host: [
        {
          cpu: 0.93,
          memoryBytes: 8e9,
          memoryFreeBytes: 3e9,
          diskBytes: 100e9,
          diskFreeBytes: 5e9,
          receivedBitsPerSecond: 345_600_000,
          sentBitsPerSecond: 1_234_000_000,
          droppedPerSecond: 3,
        },
        {
          cpu: null,
          memoryBytes: null,
          memoryFreeBytes: null,
          diskBytes: 100e9,
          diskFreeBytes: 50e9,
          receivedBitsPerSecond: null,
          sentBitsPerSecond: null,
          droppedPerSecond: null,
        },
        null,
      ][index],
      self: index === 0,
    }));
    this.priced = [null, "shop"].map((application) => ({
      application,
      from: "2026-01",
      currency: "EUR",
      decimals: 2,
      perThousandMinutes: "3.99",
      issuer: `${HOSTILE}\nStreet 1`,
    }));
    this.issued = this.stored
      .map(({ application }, index) => invoiceOf(application, "2026-02", index + 1, now - DAY))
      .reverse();
    this.entries = Array.from({ length: 120 }, (_, index) => ({
      id: `d${index}`,
      kind: ["reports", "devices", "logs"][index % 3],
      application: "shop",
      scope: "room-0",
      session: "s000000",
      peer: index ? "peer-1" : HOSTILE,
      user: "user-1",
      address: "192.0.2.9",
      at: now - index * MINUTE,
      bytes: 1_200,
    }));
  }

  visible(me, { application }) {
    const only = me.application ?? application;
    return this.sessions.filter((each) => !only || each.application === only);
  }

  time({ from, to }, back) {
    const end = to ? Number(to) : this.now;
    return { from: from ? Number(from) : end - back, to: end };
  }

  me(me) {
    return me;
  }

  scopes(me, query) {
    return {
      items: this.visible(me, query)
        .filter(({ live }) => live)
        .slice(0, 1_000),
    };
  }

  sessionsOf(me, query) {
    const found = this.visible(me, query).filter(
      (each) =>
        each.createdAt >= Number(query.from ?? 0) &&
        each.createdAt <= Number(query.to ?? this.now) &&
        (!query.scope || each.scope === query.scope) &&
        (!query.live || String(each.live) === query.live) &&
        (!query.problem || each.problems.includes(query.problem)),
    );
    const start = Number(query.cursor ?? 0);
    const end = start + Number(query.limit ?? 50);
    return { items: found.slice(start, end), next: end < found.length ? String(end) : null };
  }

  session(me, _, { session }) {
    const found = this.visible(me, {}).find((each) => each.session === session);
    return found && { ...found, peers: staysOf(found, this.now), truncated: false };
  }

  timeline(me, _, { session }) {
    const found = this.visible(me, {}).find((each) => each.session === session);
    return found && timelineOf(found, this.now);
  }

  usage(me, query) {
    const by = query.by ?? "day";
    const time = this.time(query, { hour: 7 * DAY, day: 31 * DAY, month: 365 * DAY }[by]);
    const rows = new Map();
    const sum = (application, at) => ({
      at,
      application,
      participantSeconds: 0,
      participantMinutes: 0,
      stays: 0,
      sessions: 0,
      bytesIn: 0,
      bytesOut: 0,
    });
    const add = (row, each) => {
      row.sessions += 1;
      for (const name of ["participantSeconds", "stays", "bytesIn", "bytesOut"])
        row[name] += each[name];
      row.participantMinutes = Math.ceil(row.participantSeconds / 60);
    };
    const total = sum(null, time.from);
    for (const each of this.visible(me, query)) {
      if (each.createdAt < time.from || each.createdAt > time.to) continue;
      const date = new Date(each.createdAt);
      const at =
        by === "month"
          ? Date.UTC(date.getUTCFullYear(), date.getUTCMonth())
          : Math.floor(each.createdAt / (by === "day" ? DAY : HOUR)) * (by === "day" ? DAY : HOUR);
      const application = query.each ? each.application : null;
      const key = `${at} ${application}`;
      if (!rows.has(key)) rows.set(key, sum(application, at));
      add(rows.get(key), each);
      add(total, each);
    }
    return { by, ...time, rows: [...rows.values()].sort((a, b) => a.at - b.at), total };
  }

  quality(_, query) {
    const by = query.by ?? "hour";
    const time = this.time(query, 7 * DAY);
    const step = by === "day" ? DAY : HOUR;
    const rows = Array.from(
      { length: Math.floor((time.to - time.from) / step) },
      (_each, index) => ({
        at: Math.floor(time.from / step) * step + index * step,
        measured: 600,
        score: 90 + 6 * Math.sin(index / 5),
        lossFraction: 0.004 + 0.003 * Math.sin(index / 9),
        roundTripSeconds: 0.05,
        frozenSeconds: 3,
        problems: { loss_in: 2 },
      }),
    );
    return { by, ...time, rows };
  }

  problems(_, query) {
    const problems = ["loss_in", "freezes", "round_trip"].map((problem, index) => ({
      problem,
      meaning: `What ${problem} means.`,
      remedy: "Look at the line of who sends: a wire or another network helps.",
      minutes: 900 - index * 300,
      share: 0.09 - index * 0.03,
      sessions: ["s000000", "s000007"],
    }));
    return { ...this.time(query, DAY), measured: 10_000, problems };
  }

  availability(_, query) {
    const time = this.time(query, 30 * DAY);
    const days = Array.from({ length: 30 }, (_each, index) => ({
      at: Math.floor(time.from / DAY) * DAY + index * DAY,
      minutes: 1_440,
      minutesDown: index === 12 ? 9 : index === 20 ? 2 : 0,
    }));
    return {
      ...time,
      promised: 0.9995,
      minutes: 43_200,
      minutesDown: 11,
      availability: 1 - 11 / 43_200,
      budgetSeconds: 1_296,
      spentSeconds: 660,
      nodes: [0, 1, 2].map((index) => ({
        node: `node-${index}`,
        minutes: 43_200,
        minutesDown: index * 4,
      })),
      days,
      incidents: [
        {
          from: days[12].at + HOUR,
          to: days[12].at + HOUR + 9 * MINUTE,
          reason: "the relay did not answer",
        },
      ],
    };
  }

  applications(me) {
    return {
      items: this.stored.filter(
        ({ application }) => !me.application || application === me.application,
      ),
      next: null,
    };
  }

  application(me, _, { application }) {
    return this.applications(me).items.find((each) => each.application === application);
  }

  changeApplication(me, _, parts, body) {
    const found = this.application(me, _, parts);
    return found && Object.assign(found, body);
  }

  removeApplication(_, _query, { application }) {
    this.stored = this.stored.filter((each) => each.application !== application);
  }

  addApplication(_, _query, _parts, { application }) {
    if (this.stored.some((each) => each.application === application)) {
      throw new Refusal(
        409,
        "conflict",
        "There is an application of this name.",
        "Choose another name.",
      );
    }
    const key = { key: "first", kind: "secret", enabled: true, createdAt: this.now };
    const added = { application, concatenated: false, changesKeys: false, keys: [key] };
    this.stored.push(added);
    return { application: added, key: { ...key, secret: "made-up-secret-1" } };
  }

  addKey(me, _, parts, { key, publicKey }) {
    const added = { key, kind: publicKey ? "es256" : "secret", enabled: true, createdAt: this.now };
    this.application(me, _, parts).keys.push(added);
    return { ...added, secret: publicKey ? null : "made-up-secret-2" };
  }

  changeKey(me, _, parts, { enabled }) {
    const found = this.application(me, _, parts);
    found.keys.find(({ key }) => key === parts.key).enabled = enabled;
    return found;
  }

  revokeKey(me, _, parts) {
    const found = this.application(me, _, parts);
    found.keys = found.keys.filter(({ key }) => key !== parts.key);
  }

  prices() {
    return { items: this.priced };
  }

  setPrice(_, _query, _parts, { application = null, from, decimals = 2, issuer = "", ...rest }) {
    const price = { application, from, decimals, issuer, ...rest };
    this.priced.push(price);
    return price;
  }

  removePrice(_, { application = null, from }) {
    this.priced = this.priced.filter(
      (each) => each.application !== application || each.from !== from,
    );
  }

  invoices(me, query) {
    const found = this.issued
      .map(({ lines, ...summary }) => summary)
      .filter(
        (each) =>
          (!me.application || each.application === me.application) &&
          (!query.application || each.application === query.application) &&
          (!query.month || each.month === query.month),
      );
    const start = Number(query.cursor ?? 0);
    const end = start + Number(query.limit ?? 50);
    return { items: found.slice(start, end), next: end < found.length ? String(end) : null };
  }

  due(me) {
    const items = this.stored.map(({ application }) => ({
      application,
      month: new Date(this.now).toISOString().slice(0, 7),
      minutes: 12_345,
      over: false,
    }));
    return {
      items: items.filter((each) => !me.application || each.application === me.application),
      truncated: false,
    };
  }

  invoice(me, _, { application, month }) {
    if (me.application && me.application !== application) return undefined;
    const is = (each) => each.application === application && each.month === month;
    return this.issued.find(is) ?? invoiceOf(application, month, null, null);
  }

  issue(me, _, parts) {
    const { application, month } = parts;
    const number = this.issued.length + 1;
    this.issued.unshift(invoiceOf(application, month, number, this.now));
    return this.issued[0];
  }

  nodes() {
    return { items: this.fleet };
  }

  drain(_, _query, { node }) {
    return Object.assign(
      this.fleet.find((each) => each.node === node),
      { state: "draining" },
    );
  }

  undrain(_, _query, { node }) {
    return Object.assign(
      this.fleet.find((each) => each.node === node),
      { state: "ready" },
    );
  }

  diagnostics(_, query) {
    const found = this.entries.filter(
      (each) =>
        (!query.kind || each.kind === query.kind) &&
        (!query.session || each.session === query.session),
    );
    const start = Number(query.cursor ?? 0);
    const end = start + Number(query.limit ?? 50);
    return { items: found.slice(start, end), next: end < found.length ? String(end) : null };
  }

  entry(_, _query, { id }) {
    const found = this.entries.find((each) => each.id === id);
    return found && { ...found, body: { text: HOSTILE, devices: ["camera", "microphone"] } };
  }
}

/** Operations whose names are those of other things here. */
const METHODS = {
  "GET /sessions": "sessionsOf",
  "GET /diagnostics": "diagnostics",
  "GET /diagnostics/{id}": "entry",
  "DELETE /applications/{application}": "removeApplication",
  "POST /applications/{application}/keys": "addKey",
  "PATCH /applications/{application}/keys/{key}": "changeKey",
  "DELETE /applications/{application}/keys/{key}": "revokeKey",
  "POST /nodes/{node}/drain": "drain",
  "POST /nodes/{node}/undrain": "undrain",
};

class Refusal extends Error {
  constructor(status, error, reason, remedy) {
    super(reason);
    this.status = status;
    this.body = { error, reason, remedy };
  }
}

export class StandIn {
  /** Serves on a free port of loopback. */
  static async start({ sessions = 10_000, now = Date.now() } = {}) {
    const standIn = new StandIn();
    standIn.answers = new Answers(history(sessions, now), now);
    /** What a question or an answer had that the API does not. */
    standIn.mistakes = [];
    /** The next questions of the API are not answered. */
    standIn.isDown = false;
    standIn.server = createServer((request, response) => void standIn.serve(request, response));
    await new Promise((resolve) => standIn.server.listen(0, "127.0.0.1", resolve));
    return standIn;
  }

  get address() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  async serve(request, response) {
    const url = new URL(request.url, this.address);
    if (!url.pathname.startsWith("/api/v1/")) return file(url.pathname, response);
    if (this.isDown) return response.destroy();
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    let status = 200;
    let body;
    try {
      ({ status, body } = this.answer(request, url, text ? JSON.parse(text) : undefined));
    } catch (error) {
      if (!(error instanceof Refusal)) this.mistakes.push(String(error.stack));
      status = error.status ?? 500;
      body = error.body ?? {
        error: "internal",
        reason: String(error),
        remedy: "Mend the stand-in.",
      };
    }
    response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
    response.end(body === undefined ? undefined : JSON.stringify(body));
  }

  answer(request, url, given) {
    const asked = url.pathname.slice("/api/v1".length);
    const found = Object.entries(openapi.paths)
      .map(([path, operations]) => ({ path, operation: operations[request.method.toLowerCase()] }))
      .map((each) => ({
        ...each,
        match: new RegExp(`^${each.path.replace(/\{(\w+)\}/g, "(?<$1>[^/]+)")}$`).exec(asked),
      }))
      .find(({ operation, match }) => operation && match);
    if (!found) throw new Error(`${request.method} ${asked} is no call of the API`);
    const { path, operation, match } = found;
    const token = /^Bearer (.*)$/.exec(request.headers.authorization ?? "")?.[1];
    const me = {
      [OPERATOR]: { role: "operator", application: null },
      [ADMIN]: { role: "application", application: "shop" },
    }[token];
    if (!me)
      throw new Refusal(401, "unauthorized", "The token is not known.", "Use one of api.tokens.");
    if (operation["x-who"] === "operator" && me.role !== "operator") {
      throw new Refusal(
        403,
        "forbidden",
        "Operators alone may do this.",
        "Use an operator's token.",
      );
    }
    const query = Object.fromEntries(url.searchParams);
    this.checkQuery(asked, operation, query);
    const parts = Object.fromEntries(
      Object.entries(match.groups ?? {}).map(([name, value]) => [name, decodeURIComponent(value)]),
    );
    const method = METHODS[`${request.method} ${path}`] ?? operation.operationId;
    const body = this.answers[method](me, query, parts, given);
    const status = Number(Object.keys(operation.responses).find((each) => each !== "default"));
    const schema = operation.responses[status].content?.["application/json"].schema;
    if (schema && body === undefined)
      throw new Refusal(404, "not_found", "There is no such thing.", "Look at the list.");
    if (schema) this.checkAnswer(`${request.method} ${asked}`, schema, body);
    return { status, body };
  }

  checkQuery(asked, { parameters = [] }, query) {
    for (const [name, value] of Object.entries(query)) {
      const schema = parameters.find((each) => each.in === "query" && each.name === name)?.schema;
      const isRight =
        schema &&
        (schema.type !== "integer" || /^\d+$/.test(value)) &&
        (!schema.enum || schema.enum.includes(value));
      if (!isRight) this.mistakes.push(`${asked}: ${name}=${value} is no parameter`);
    }
  }

  checkAnswer(where, schema, value) {
    if (schema.$ref)
      return this.checkAnswer(
        where,
        openapi.components.schemas[schema.$ref.split("/").at(-1)],
        value,
      );
    for (const each of schema.allOf ?? []) this.checkAnswer(where, each, value);
    const types = [schema.type ?? []].flat();
    const is = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
    const isRight =
      types.length === 0 || types.includes(is) || (is === "number" && types.includes("integer"));
    if (!isRight || (schema.enum && !schema.enum.includes(value)))
      this.mistakes.push(`${where}: ${JSON.stringify(value)} is no ${types}`);
    if (is === "array" && schema.items)
      value.slice(0, 20).forEach((each) => this.checkAnswer(where, schema.items, each));
    if (is !== "object") return;
    for (const name of schema.required ?? [])
      if (!(name in value)) this.mistakes.push(`${where}: no ${name}`);
    for (const [name, of] of Object.entries(schema.properties ?? {}))
      if (name in value) this.checkAnswer(`${where} ${name}`, of, value[name]);
  }
}

const KINDS = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};
/** As control says it (control/src/http/page.rs). */
const POLICY =
  "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; media-src 'self' blob: mediastream:; " +
  "style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

function file(path, response) {
  const name = normalize(path.endsWith("/") ? `${path}index.html` : path);
  try {
    const bytes = readFileSync(join(web, "dist", name));
    response.writeHead(200, {
      "content-type": KINDS[extname(name)] ?? "application/octet-stream",
      "content-security-policy": POLICY,
      "cache-control": "no-cache",
    });
    response.end(bytes);
  } catch {
    response.writeHead(404).end();
  }
}
