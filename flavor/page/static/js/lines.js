// A plot of lines whose points may lie anywhere, such as a ROC curve. Lines differ in their dashes beside their colour.

import { h, svg } from "./dom.js";
import { count, counted, metric } from "./format.js";

const [WIDE, HIGH] = [340, 240];
const [RIGHT, TOP, BOTTOM] = [10, 8, 22];
const LETTER = 6.4; // how wide a letter of a number is, at most
const TONES = ["first", "second", "site"];
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];

const isPoint = ([x, y]) => Number.isFinite(x) && Number.isFinite(y);

/** How a line is drawn: of three tones and four kinds of dashes, so that twelve lines differ, and neighbours in both. */
const styleOf = (at) => ({ class: `stroke ${TONES[at % TONES.length]}`, "stroke-dasharray": DASHES[at % DASHES.length] || null });

/** About four round numbers from `low` to `high`. */
function ticks(low, high) {
  const rough = (high - low) / 4;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const step = ten * [1, 2, 5, 10].find((each) => each * ten >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** A number below the plot, within its width. */
function numberAt(x, words) {
  const half = (LETTER * words.length) / 2;
  return svg("text", { x: Math.max(half, Math.min(WIDE - half, x)), y: HIGH - 6, "text-anchor": "middle" }, words);
}

function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low > high) return [0, 1];
  const wide = Math.abs(low) * 1e-9 + 1e-300; // of all that are the same, and of those too close to be told apart
  return high - low > wide ? [low, high] : [low - (Math.abs(low) / 2 || 0.5), high + (Math.abs(high) / 2 || 0.5)];
}

/** `lines(name, [{label, x, y}])`: a picture with its legend. A value that is missing is a gap. */
export function lines(name, given) {
  const series = given.map(({ label, x, y }) => ({ label, points: x.map((value, at) => [value, y[at]]) }));
  const all = series.flatMap(({ points }) => points.filter(isPoint));
  if (!all.length) return h("p", { class: "quiet" }, "There are no values to draw.");
  const [across, up] = [range(all.map(([x]) => x)), range(all.map(([, y]) => y))];
  const longest = (values) => LETTER * Math.max(...values.map((value) => metric(value).length));
  const [right, upper] = [ticks(...across), ticks(...up)];
  const left = 12 + longest(upper);
  const toX = (x) => left + ((x - across[0]) / (across[1] - across[0])) * (WIDE - left - RIGHT);
  const toY = (y) => HIGH - BOTTOM - ((y - up[0]) / (up[1] - up[0])) * (HIGH - TOP - BOTTOM);
  const place = ([x, y]) => `${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
  const every = Math.ceil((longest(right) + 8) / (toX(right[1] ?? WIDE) - toX(right[0] ?? 0))); // so that numbers do not overlap
  const grid = [
    ...right.map((x, at) => [svg("path", { class: "grid", d: `M${toX(x)} ${TOP}V${HIGH - BOTTOM}` }), at % every ? null : numberAt(toX(x), metric(x))]),
    ...upper.map((y) => [svg("path", { class: "grid", d: `M${left} ${toY(y)}H${WIDE - RIGHT}` }), svg("text", { x: left - 6, y: toY(y) + 4, "text-anchor": "end" }, metric(y))]),
  ];
  const drawn = series.map(({ points }, at) => {
    const parts = [];
    const alone = [];
    const first = points.findIndex(isPoint);
    const only = points.every((point) => !isPoint(point) || place(point) === place(points[first])) ? first : -1; // a line without length
    points.forEach((point, i) => {
      if (!isPoint(point)) return;
      const [before, after] = [points[i - 1], points[i + 1]].map((beside) => Boolean(beside && isPoint(beside)));
      parts.push(`${before ? "L" : "M"}${place(point)}`);
      if ((!before && !after) || i === only) alone.push(svg("circle", { class: `dot ${TONES[at % TONES.length]}`, cx: toX(point[0]), cy: toY(point[1]), r: 3 }));
    });
    return [svg("path", { ...styleOf(at), d: parts.join("") }), alone];
  });
  const extent = `, from ${metric(across[0])} to ${metric(across[1])} across and ${metric(up[0])} to ${metric(up[1])} up`;
  const words = `Plot of ${name}: ${series.map(({ label, points }) => `${label}, ${counted(points.length, "point")}`).slice(0, 6).join("; ")}${series.length > 6 ? `; and ${count(series.length - 6)} more` : ""}${extent}`;
  const picture = svg("svg", { class: "lines", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": words }, grid, svg("path", { class: "frame", d: `M${left} ${TOP}V${HIGH - BOTTOM}H${WIDE - RIGHT}` }), drawn);
  const keys = series.map(({ label }, at) => h("li", { class: "key" }, svg("svg", { class: "sample-line", viewBox: "0 0 28 6", "aria-hidden": "true" }, svg("path", { ...styleOf(at), d: "M0 3H28" })), h("span", {}, label)));
  return h("div", {}, picture, h("ul", { class: "legend" }, keys));
}
