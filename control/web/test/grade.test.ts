import assert from "node:assert/strict";
import { test } from "node:test";
import { gradeOf, worst } from "../sdk/grade.js";

test("the worst figure decides, and what is not known does not count", () => {
  assert.equal(gradeOf({}), undefined);
  assert.equal(gradeOf({ lossRatio: undefined, jitterMs: 5 }), "fine");
  const fine = { lossRatio: 0.02, roundTripTimeMs: 200, jitterMs: 30, queueDelayMs: 100 };
  assert.equal(gradeOf({ ...fine, framesPerSecond: 8 }), "fine", "the bounds are fine");
  const average = { lossRatio: 0.1, roundTripTimeMs: 400, jitterMs: 60, queueDelayMs: 300 };
  for (const [name, value] of Object.entries(average)) {
    assert.equal(gradeOf({ ...fine, [name]: value }), "average", name);
    assert.equal(gradeOf({ ...fine, [name]: value * 1.01 }), "bad", name);
  }
  assert.equal(gradeOf({ ...fine, framesPerSecond: 7 }), "average");
  assert.equal(gradeOf({ ...fine, framesPerSecond: 3 }), "bad");
});

test("the worst of several", () => {
  assert.equal(worst([]), undefined);
  assert.equal(worst([undefined, "fine"]), "fine");
  assert.equal(worst(["fine", "bad", "average"]), "bad");
});
