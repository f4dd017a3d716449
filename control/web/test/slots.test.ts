import assert from "node:assert/strict";
import { test } from "node:test";
import { SLOTS_MAX, SLOTS_SPARE } from "../sdk/limits.js";
import type { Kind } from "../sdk/protocol.js";
import { planSlots } from "../sdk/slots.js";

interface Item {
  kind: Kind;
  name: string;
}
interface Slot {
  kind: Kind;
  bound: Item | undefined;
}
const item = (name: string, kind: Kind = "video"): Item => ({ name, kind });
const slot = (bound?: Item, kind: Kind = "video"): Slot => ({ kind, bound });

test("free slots are bound without asking for more", () => {
  const slots = [slot(), slot()];
  const a = item("a");
  const plan = planSlots(slots, [a]);
  assert.deepEqual(plan.bind, [{ slot: slots[0], item: a }]);
  assert.deepEqual(plan.add, { audio: 0, video: 0 });
});

test("what is shown and wanted stays where it is", () => {
  const a = item("a");
  const b = item("b");
  const slots = [slot(), slot(a)];
  const plan = planSlots(slots, [b, a]);
  assert.deepEqual(plan.bind, [{ slot: slots[0], item: b }]);
  assert.deepEqual(plan.free, []);
});

test("a slot of the other kind is no slot", () => {
  const plan = planSlots([slot(undefined, "audio")], [item("a")]);
  assert.deepEqual(plan.bind, []);
  assert.equal(plan.add.video, 1 + SLOTS_SPARE);
  assert.equal(plan.add.audio, 0);
});

test("missing slots are asked for with a few spare ones", () => {
  const plan = planSlots<Item, Slot>([], [item("a"), item("b"), item("c", "audio")]);
  assert.deepEqual(plan.add, { audio: 1 + SLOTS_SPARE, video: 2 + SLOTS_SPARE });
  assert.deepEqual(plan.unplaced, []);
});

test("what nobody wants is freed, or replaced at once", () => {
  const a = item("a");
  const b = item("b");
  const c = item("c");
  const slots = [slot(a), slot(b)];
  assert.deepEqual(planSlots(slots, [b]).free, [slots[0]]);
  const plan = planSlots(slots, [b, c]);
  assert.deepEqual(plan.bind, [{ slot: slots[0], item: c }]);
  assert.deepEqual(plan.free, []);
});

test("slots are bounded and what finds no place is named", () => {
  const items = Array.from({ length: SLOTS_MAX + 2 }, (_, index) => item(String(index)));
  const plan = planSlots<Item, Slot>([], items);
  assert.equal(plan.add.video, SLOTS_MAX);
  assert.equal(plan.unplaced.length, 2);
});

test("25 people who come one by one cost the first few offers", () => {
  const slots: Slot[] = Array.from({ length: 4 }, () => slot());
  const wanted: Item[] = [];
  let offers = 0;
  for (let joiner = 0; joiner < 24; joiner += 1) {
    wanted.push(item(String(joiner)));
    let plan = planSlots(slots, wanted);
    if (plan.add.video > 0) {
      offers += 1;
      for (let count = 0; count < plan.add.video; count += 1) slots.push(slot());
      plan = planSlots(slots, wanted);
    }
    for (const { slot: taken, item: bound } of plan.bind) taken.bound = bound;
  }
  assert.equal(slots.filter((each) => each.bound).length, 24);
  assert.ok(offers <= 5, `${offers} offers`);
});
