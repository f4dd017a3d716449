import { SLOTS_MAX, SLOTS_SPARE } from "./limits.js";
import type { Kind } from "./protocol.js";

/** A receive slot as the plan sees it. */
export interface SlotState<Item> {
  kind: Kind;
  /** What it shows now; undefined when it is free. */
  bound: Item | undefined;
}

/** What must change so that the slots show what is wanted. */
export interface SlotPlan<Item, Slot> {
  /** Slots to bind (anew). */
  bind: { slot: Slot; item: Item }[];
  /** Slots that show what nobody wants any more and that nothing else needs. */
  free: Slot[];
  /** Slots to add, of each kind: those missing and a few spare ones, or none. */
  add: Record<Kind, number>;
  /** Wanted items that no slot can be had for: the limit is reached. */
  unplaced: Item[];
}

/**
 * Compares slots with what is wanted. A binding that is still wanted stays where it is: moving a
 * stream costs a key frame. Free slots are taken first, then those about to be freed.
 */
export function planSlots<Item extends { kind: Kind }, Slot extends SlotState<Item>>(
  slots: readonly Slot[],
  wanted: Iterable<Item>,
): SlotPlan<Item, Slot> {
  const plan: SlotPlan<Item, Slot> = {
    bind: [],
    free: [],
    add: { audio: 0, video: 0 },
    unplaced: [],
  };
  const wantedItems = new Set(wanted);
  for (const kind of ["audio", "video"] as const) {
    const own = slots.filter((slot) => slot.kind === kind);
    const shown = new Set(own.map((slot) => slot.bound));
    const missing = [...wantedItems].filter((item) => item.kind === kind && !shown.has(item));
    const idle = own.filter((slot) => slot.bound === undefined);
    const stale = own.filter((slot) => slot.bound !== undefined && !wantedItems.has(slot.bound));
    const usable = [...idle, ...stale];
    const taken = new Set<Slot>();
    for (const item of missing.splice(0, usable.length)) {
      const slot = usable.shift();
      if (!slot) break;
      taken.add(slot);
      plan.bind.push({ slot, item });
    }
    plan.free.push(...stale.filter((slot) => !taken.has(slot)));
    if (missing.length > 0) {
      const room = Math.max(0, SLOTS_MAX - own.length);
      plan.add[kind] = Math.min(room, missing.length + SLOTS_SPARE);
      plan.unplaced.push(...missing.slice(plan.add[kind]));
    }
  }
  return plan;
}
