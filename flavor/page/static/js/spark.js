// A small curve of the last values: a picture beside a number, which says the same in words.

import { svg } from "./dom.js";

/** `{node, update(values)}`; the values are the oldest first, and null where there is none. */
export function spark(wide = 96, high = 24) {
  const line = svg("polyline", { fill: "none", "vector-effect": "non-scaling-stroke" });
  const dot = svg("circle", { r: 2 });
  const node = svg("svg", { class: "spark", viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, "aria-hidden": "true" }, line, dot);
  let last = null;
  return {
    node,
    update(values) {
      const known = (values ?? []).map((value, i) => [i, value]).filter(([, value]) => Number.isFinite(value));
      const drawn = known.length > 1 ? known : [];
      const lowest = Math.min(...drawn.map(([, value]) => value));
      const range = Math.max(...drawn.map(([, value]) => value)) - lowest || 1;
      const step = (wide - 6) / Math.max(1, values.length - 1);
      const points = drawn.map(([i, value]) => [3 + i * step, high - 3 - ((value - lowest) / range) * (high - 6)]);
      const path = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
      if (path === last) return;
      last = path;
      line.setAttribute("points", path);
      dot.setAttribute("visibility", points.length ? "visible" : "hidden");
      if (points.length) {
        dot.setAttribute("cx", points.at(-1)[0]);
        dot.setAttribute("cy", points.at(-1)[1]);
      }
    },
  };
}
