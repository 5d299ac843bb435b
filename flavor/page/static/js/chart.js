// Curves by uPlot: colours of the page, zoom by drag, a log axis, and a line that says in words what is pointed at.

import { framed, h } from "./dom.js";
import { count, counted, metric } from "./format.js";

const loaded = new Promise((done) => {
  if (window.uPlot) done();
  else document.getElementById("uplot")?.addEventListener("load", () => done());
});

/** The value of a colour or size of page.css. */
export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * `{node, set(series, data), log(is), reset(), close()}`. The first array of `data` is that of the rounds. A series has
 * `label`, `tone` (a variable of page.css), `wide`, `dash` and `fill`. `told(index, nearest)` hears what is pointed at, `zoomed(is)`
 * whether a part is shown, and `lacks(words)` what a log axis leaves out, '' for nothing. `mark()` returns `{x, y, words}` of what is
 * marked, or null: of `words`, the longest first, the first that fits is written above the curves.
 */
export function chart({ told, zoomed, mark, lacks }) {
  const node = h("div", { class: "chart" });
  let plot = null;
  let series = [];
  let data = [[]];
  let isLog = false;
  let shape = "";
  let range = null;
  let shut = false;

  const size = () => ({ width: Math.max(240, node.clientWidth), height: parseFloat(getComputedStyle(node).getPropertyValue("--high")) || 344 });

  /** The size of letters, in px, as that of the page's small text. */
  const small = () => 0.86 * parseFloat(getComputedStyle(document.documentElement).fontSize);

  function make() {
    plot?.destroy();
    const axis = { stroke: css("--soft"), grid: { stroke: css("--hair"), width: 1 }, ticks: { stroke: css("--hair"), width: 1, size: 4 }, font: `${small()}px ${css("--font")}` };
    const options = {
      ...size(),
      padding: [(mark ? 2 : 1) * small(), null, null, null],
      legend: { show: false },
      focus: { alpha: 0.25 },
      cursor: { focus: { prox: 12 }, drag: { x: true, y: false, uni: 20 }, points: { size: 6 } },
      scales: { x: { time: false, range: range ? () => range : (_, low, high) => (low === high ? [low - 0.5, high + 0.5] : [low, high]) }, y: { distr: isLog ? 3 : 1, log: 10 } },
      axes: [
        { ...axis, space: 4 * small(), size: 2.4 * small(), values: (_, splits) => splits.map((value) => (Number.isInteger(value) ? String(value) : "")) },
        { ...axis, size: 5 * small(), values: (_, splits) => splits.map((value) => (value === null ? "" : metric(value))) },
      ],
      series: [{}, ...series.map(drawn)],
      hooks: { draw: [marked], setSelect: [selected], setCursor: [(u) => told?.(u.cursor.idx, focused)], setSeries: [(u, index) => (focused = index)] },
    };
    plot = new uPlot(options, shown(), node);
    plot.over.addEventListener("dblclick", () => zoom(null));
    plot.over.addEventListener("mouseleave", () => told?.(null, null));
  }

  let focused = null;

  const drawn = (each) => ({
    label: each.label,
    stroke: css(each.tone),
    width: each.wide ?? 1,
    dash: each.dash ?? [],
    alpha: each.alpha ?? 1,
    points: { show: true, filter: (u, at) => (data[0].length < 2 || (each.wide > 1 && data[0].length <= 30) ? null : alone(u.data[at])), size: 5, fill: css(each.tone) },
    spanGaps: false, // a value that is missing is not drawn as if it were there
  });

  /** Where a value has none beside it, to which a line would lead. */
  const alone = (values) => values.flatMap((value, i) => (known(value) && !known(values[i - 1]) && !known(values[i + 1]) ? [i] : []));
  const known = (value) => Number.isFinite(value);

  /** A log axis has no zero: what is not above it is left out. */
  const shown = () => (isLog ? data.map((values, i) => (i ? values.map((value) => (value > 0 ? value : null)) : values)) : data);

  /** Says what a log axis leaves out, in words. */
  function lacking() {
    if (!isLog) return "";
    const values = data.slice(1).flat().filter((value) => Number.isFinite(value));
    const out = values.filter((value) => value <= 0).length;
    if (!out) return "";
    const axis = "a log axis shows only values above zero";
    return out === values.length ? `No value is drawn: ${axis}, and there are none.` : `${counted(out, "value")} of ${count(values.length)} ${out === 1 ? "is" : "are"} not drawn: ${axis}.`;
  }

  function marked(u) {
    const found = mark?.();
    if (!found || !Number.isFinite(found.y) || (isLog && found.y <= 0)) return;
    const [x, y] = [u.valToPos(found.x, "x", true), u.valToPos(found.y, "y", true)];
    const { left, top, width, height } = u.bbox;
    if (x < left - 1 || x > left + width + 1) return;
    const ctx = u.ctx;
    const dot = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = css("--ink");
    ctx.lineWidth = dot;
    ctx.setLineDash([2 * dot, 3 * dot]);
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.lineWidth = 2 * dot;
    ctx.beginPath();
    ctx.arc(x, y, 5 * dot, 0, 7);
    ctx.fillStyle = css("--paper");
    ctx.fill();
    ctx.stroke();
    ctx.fillStyle = css("--ink");
    ctx.font = `600 ${small() * dot}px ${css("--font")}`;
    const long = (words) => ctx.measureText(words).width;
    const words = found.words.find((each) => long(each) <= width) ?? found.words.at(-1);
    ctx.textAlign = "left";
    ctx.fillText(words, Math.max(left, Math.min(x - long(words) / 2, left + width - long(words))), top - 0.5 * small() * dot);
    ctx.restore();
  }

  function selected(u) {
    if (u.select.width < 4) return;
    const [low, high] = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
    u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    zoom([low, high]);
  }

  function zoom(to) {
    range = to;
    zoomed?.(Boolean(to));
    anew();
  }

  const anew = framed(() => {
    if (shut || !window.uPlot || !node.clientWidth || !data[0].length) return;
    make();
  });

  const sizes = new ResizeObserver(() => {
    if (!plot) anew();
    else if (plot.width !== size().width || plot.height !== size().height) plot.setSize(size());
  });
  sizes.observe(node);
  const themes = matchMedia("(prefers-color-scheme: dark)");
  themes.addEventListener("change", anew);
  loaded.then(anew);

  return {
    node,
    set(next, values) {
      series = next;
      data = values;
      lacks?.(lacking());
      const now = JSON.stringify([next, data[0].length <= 30]);
      if (plot && now === shape && data[0].length > 1) plot.setData(shown(), range === null);
      else anew();
      shape = now;
    },
    log(is) {
      isLog = is;
      lacks?.(lacking());
      anew();
    },
    reset: () => zoom(null),
    /** Shows the part before or after, or a closer or wider one: for keys. */
    move(by, closer) {
      const all = [data[0][0], data[0].at(-1)];
      const [low, high] = range ?? all;
      const wide = Math.min(all[1] - all[0], (high - low) * closer);
      const middle = Math.max(all[0] + wide / 2, Math.min(all[1] - wide / 2, (low + high) / 2 + by * (high - low)));
      zoom(wide >= all[1] - all[0] ? null : [middle - wide / 2, middle + wide / 2]);
    },
    close() {
      shut = true;
      sizes.disconnect();
      themes.removeEventListener("change", anew);
      plot?.destroy();
    },
  };
}
