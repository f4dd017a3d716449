/** A line through points, as the `d` of a path: with gaps where nothing is known, and dots alone. */
export function path(points: readonly (readonly [number, number] | undefined)[]): string {
  let drawing = false;
  const steps = points.map((point) => {
    if (point === undefined) {
      drawing = false;
      return "";
    }
    const to = `${round(point[0])} ${round(point[1])}`;
    // A single point is a line to itself: a dot, with round ends.
    const step = drawing ? `L${to}` : `M${to}L${to}`;
    drawing = true;
    return step;
  });
  return steps.join("");
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
