import assert from "node:assert/strict";
import { test } from "node:test";
import { Api, Refused, type Stream, type UsageRow, search } from "../dashboard/api.js";
import {
  bytes,
  duration,
  fromField,
  minutes,
  rate,
  tick,
  toField,
  utcTime,
} from "../dashboard/format.js";
import { stepsOf } from "../dashboard/pages/timeline.js";
import { months } from "../dashboard/pages/invoices.js";
import { byApplication, stacked, together } from "../dashboard/pages/usage.js";
import { address, parse } from "../dashboard/route.js";
import { linePath, niceMost, periods } from "../dashboard/scale.js";

interface Asked {
  url: string;
  request: RequestInit;
}

/** An API whose server answers that, and what it was asked. */
function api(status: number, body: string): { api: Api; asked: Asked[] } {
  const asked: Asked[] = [];
  const ask = (async (url: string, request: RequestInit) => {
    asked.push({ url, request });
    return new Response(status === 204 ? null : body, { status });
  }) as typeof fetch;
  return { api: new Api("secret-token", ask), asked };
}

test("the token goes in a header, what is asked for in the address", async () => {
  const { api: one, asked } = api(200, '{"items":[]}');
  await one.get("/sessions", { scope: "a&b", live: false, from: 0, user: "", cursor: null });
  assert.equal(asked[0]?.url, "../api/v1/sessions?scope=a%26b&live=false&from=0");
  assert.equal(new Headers(asked[0]?.request.headers).get("authorization"), "Bearer secret-token");
  assert.equal(search({}), "");
});

test("a list is read to its last page", async () => {
  const pages = ['{"items":[1,2],"next":"b &"}', '{"items":[3],"next":null}'];
  const asked: string[] = [];
  const one = new Api("t", ((url: string) => {
    asked.push(url);
    return Promise.resolve(new Response(pages.shift()));
  }) as typeof fetch);
  assert.deepEqual(await one.all("/applications"), [1, 2, 3]);
  assert.deepEqual(asked, [
    "../api/v1/applications?limit=200",
    "../api/v1/applications?limit=200&cursor=b+%26",
  ]);
});

test("a refusal says what to do", async () => {
  const said = '{"error":"forbidden","reason":"No.","remedy":"Ask an operator."}';
  await assert.rejects(api(403, said).api.get("/nodes"), (error: unknown) => {
    assert.ok(error instanceof Refused);
    assert.deepEqual([error.status, error.reason, error.remedy], [403, "No.", "Ask an operator."]);
    return true;
  });
  // A server without the API answers with a page, or with something else.
  for (const [status, body] of [
    [404, "<p>not found"],
    [200, "<p>page"],
    [502, '{"error":3}'],
  ] as const) {
    await assert.rejects(api(status, body).api.get("/me"), /which is no answer of the API/);
  }
  assert.equal(await api(204, "").api.send("DELETE", "/applications/a"), undefined);
});

test("a server that is away is told, a page that was left is not", async () => {
  const away = new Api("t", () => Promise.reject(new TypeError("failed")));
  await assert.rejects(away.get("/me"), (error) => error instanceof Refused && error.status === 0);
  const left = new AbortController();
  left.abort();
  await assert.rejects(away.get("/me", {}, left.signal), TypeError);
});

test("addresses say which page it is, whatever names are in them", () => {
  const id = `a/b?c#d <img src="x">&`;
  const route = parse(address("session", { stream: "x&y", page: 2 }, id));
  assert.deepEqual([route.page, route.id], ["session", id]);
  assert.deepEqual([route.query.get("stream"), route.query.get("page")], ["x&y", "2"]);
  assert.deepEqual(
    [parse("").page, parse("#/").page, parse("#/usage").page],
    ["live", "live", "usage"],
  );
  assert.equal(parse("#/sessions").id, undefined);
  assert.equal(parse("#/session/%E0%A4%A").id, "%E0%A4%A", "no valid encoding");
});

test("figures as people read them", () => {
  assert.deepEqual([0, 59.6, 200, 3_900, 200_000].map(duration), [
    "0 s",
    "1 min 00 s",
    "3 min 20 s",
    "1 h 05 min",
    "2 d 7 h",
  ]);
  assert.deepEqual([0, 999, 1_000, 9_940, 9_960, 999_600, 5.2e12].map(bytes), [
    "0 B",
    "999 B",
    "1.0 kB",
    "9.9 kB",
    "10 kB",
    "1.0 MB",
    "5.2 TB",
  ]);
  assert.deepEqual([0, 1, 60, 61, 60_000_000].map(minutes), ["0", "1", "1", "2", "1,000,000"]);
  assert.equal(utcTime(0), "1970-01-01 00:00:00 UTC");
  assert.equal(
    fromField(toField(1_800_000_000_000 - (1_800_000_000_000 % 60_000))),
    1_800_000_000_000,
  );
  assert.deepEqual([fromField(""), fromField("never")], [undefined, undefined]);
});

test("scales end at round figures", () => {
  assert.deepEqual(
    [0.3, 0.7, 1, 54_000, 61]
      .map((most) => niceMost([0, most, null], 0))
      .map((each) => Number(each.toPrecision(6))),
    [0.3, 0.8, 1, 60_000, 80],
  );
  assert.equal(niceMost([1], 5), 6, "at least that");
  // And so do their halves.
  const halves = [1, 15, 20, 1_500].map((most) => tick(niceMost([most], 0) / 2));
  assert.deepEqual(halves, ["0.5", "7.5", "10", "750"]);
  assert.equal(niceMost([], 0), 1);
});

test("a line has gaps where nothing is known, and where minutes are missing", () => {
  assert.equal(linePath([0, 1, 2], [0, 5, 10], 10, 1), "M0 100L0 100L500 50L1000 0");
  assert.equal(linePath([0, 1, 4], [0, 10, 20], 10, 1), "M0 100L0 100L250 0M1000 0L1000 0");
  assert.equal(linePath([0, 1, 2], [0, null, 0], 10, 1), "M0 100L0 100M1000 100L1000 100");
  assert.equal(linePath([7], [10], 10, 1), "M0 0L0 0");
});

test("periods begin where the API's do", () => {
  const at = Date.UTC(2026, 0, 31, 5, 30);
  assert.deepEqual(periods("month", at, Date.UTC(2026, 2, 1)), [
    Date.UTC(2026, 0),
    Date.UTC(2026, 1),
  ]);
  assert.deepEqual(periods("day", at, at + 1), [Date.UTC(2026, 0, 31)]);
  assert.equal(periods("hour", at, at + 3_600_000).length, 2);
  assert.ok(periods("hour", 0, Number.MAX_SAFE_INTEGER).length <= 800, "whatever is asked for");
});

const row = (at: number, application: string, participantSeconds: number): UsageRow => ({
  at,
  application,
  participantSeconds,
  participantMinutes: 0,
  stays: 1,
  sessions: 1,
  bytesIn: 2,
  bytesOut: 3,
});

test("usage is summed by time and by application", () => {
  const rows = [row(2, "a", 60), row(1, "a", 60), row(1, "b", 600)];
  assert.deepEqual(
    together(rows).map((each) => [each.at, each.participantSeconds, each.bytesIn]),
    [
      [1, 660, 4],
      [2, 60, 2],
    ],
  );
  assert.deepEqual(
    byApplication(rows).map((each) => [each.application, each.participantSeconds, each.sessions]),
    [
      ["b", 600, 1],
      ["a", 120, 2],
    ],
  );
  assert.equal(rows[0]?.participantSeconds, 60, "what was told stays as it is");
  assert.deepEqual(stacked(rows, [0, 1, 2]), [
    { name: "b", values: [0, 10, 0] },
    { name: "a", values: [0, 1, 1] },
  ]);
  const many = Array.from({ length: 9 }, (_, index) => row(1, `app-${index}`, 60 * (index + 1)));
  const shown = stacked(many, [1]);
  assert.deepEqual(
    shown.map(({ name }) => name),
    ["app-8", "app-7", "app-6", "app-5", "app-4", "Others"],
  );
  assert.deepEqual(shown.at(-1)?.values, [1 + 2 + 3 + 4], "nothing is lost");
});

test("of a minute the worst counts, and bitrates add up", () => {
  const point = (at: number, bytes: number, loss: number | null) => ({
    at,
    seconds: 30,
    bytes,
    score: 1,
    lossFraction: loss,
    roundTripSeconds: null,
    queueDelaySeconds: 0.1,
  });
  const stream = (...points: ReturnType<typeof point>[]): Stream => ({
    stay: "",
    peer: "",
    name: "",
    direction: "in",
    stream: "",
    points,
  });
  const found = stepsOf([
    stream(point(0, 3_750, 0.1), point(60, 0, null)),
    stream(point(0, 3_750, null)),
  ]);
  assert.deepEqual(
    [...found],
    [
      [0, { loss: 0.1, queue: 0.1, bitrate: 2_000, roundTrip: null }],
      [60, { loss: null, queue: 0.1, bitrate: 0, roundTrip: null }],
    ],
  );
});

test("the months that can be chosen are those of a year", () => {
  const found = months(Date.UTC(2026, 0, 31, 23, 59)).map(([month]) => month);
  assert.deepEqual([found[0], found[1], found[12], found.length], ["2026-01", "2025-12", "2025-01", 13]);
  assert.deepEqual([0, 999, 1_234_000, 9e9].map(rate), ["0 bit/s", "999 bit/s", "1.2 Mbit/s", "9.0 Gbit/s"]);
});

test("what is no JSON is had as text, and its refusal as any other", async () => {
  const { api: one, asked } = api(200, "a,b\r\n");
  assert.equal(await one.text("/invoices/a/2026-01", { format: "csv" }), "a,b\r\n");
  assert.equal(asked[0]?.url, "../api/v1/invoices/a/2026-01?format=csv");
  const said = '{"error":"conflict","reason":"No price.","remedy":"Set one."}';
  await assert.rejects(api(409, said).api.text("/invoices/a/2026-01", {}), /No price/);
});
