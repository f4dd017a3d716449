import assert from "node:assert/strict";
import { test } from "node:test";
import { Coalescer } from "../sdk/coalescer.js";
import { FakeTimers } from "./faketimers.js";

test("changes within the window share one run", async () => {
  const timers = new FakeTimers();
  let runs = 0;
  const coalescer = new Coalescer(async () => void (runs += 1), 30, timers);
  const all = [coalescer.schedule(), coalescer.schedule(), coalescer.schedule()];
  await timers.pass(29);
  assert.equal(runs, 0);
  await timers.pass(1);
  await Promise.all(all);
  assert.equal(runs, 1);
});

test("one run at a time: what comes meanwhile waits for the next", async () => {
  const timers = new FakeTimers();
  const finish: (() => void)[] = [];
  const run = () => new Promise<void>((resolve) => finish.push(resolve));
  const coalescer = new Coalescer(run, 30, timers);
  void coalescer.schedule();
  await timers.pass(30);
  let second = false;
  void coalescer.schedule().then(() => (second = true));
  await timers.pass(100);
  assert.equal(finish.length, 1);
  finish[0]?.();
  await timers.pass(30);
  assert.equal(finish.length, 2);
  assert.equal(second, false);
  finish[1]?.();
  await timers.pass(0);
  assert.equal(second, true);
});

test("who is in a hurry cuts the window short for all", async () => {
  const timers = new FakeTimers();
  let runs = 0;
  const coalescer = new Coalescer(async () => void (runs += 1), 30, timers);
  const patient = coalescer.schedule();
  const hurried = coalescer.schedule(0);
  await timers.pass(0);
  await Promise.all([patient, hurried]);
  await timers.pass(100);
  assert.equal(runs, 1);
});

test("a run that fails tells its callers, and the next one runs", async () => {
  const timers = new FakeTimers();
  let fail = true;
  const coalescer = new Coalescer(
    async () => {
      if (fail) throw new Error("refused");
    },
    30,
    timers,
  );
  const refused = assert.rejects(coalescer.schedule(), /refused/);
  await timers.pass(30);
  await refused;
  fail = false;
  const taken = coalescer.schedule();
  await timers.pass(30);
  await taken;
});

test("close releases who waits and runs nothing more", async () => {
  const timers = new FakeTimers();
  let runs = 0;
  const coalescer = new Coalescer(async () => void (runs += 1), 30, timers);
  const waiting = coalescer.schedule();
  coalescer.close();
  await waiting;
  await timers.pass(100);
  assert.equal(runs, 0);
});
