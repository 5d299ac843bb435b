// Drawings of what sites report of a model: tables, bars, heatmaps, plots and images. Each is a figure whose values a
// reader without eyes has as well. A value is told by place, number and mark, and by colour beside these.

import { h, show, text } from "./dom.js";
import { count, counted, metric } from "./format.js";
import { lines } from "./lines.js";
import { named } from "./said.js";

const ROWS = 100; // at first
const MORE = 500; // with each click
const NARROW = 7; // columns of a heatmap that takes no more room than other figures

/** What the kinds of result.json are called. */
export const KINDS = { tables: "table", bars: "bars", heatmaps: "heatmap", plots: "plot", images: "image" };

/**
 * `draw(kind, entry, {of, image, isBeside})`: a figure. `of` says whose it is, `image(entry)` is the address of an image. Beside
 * those of other sites, it is titled by its site.
 */
export function draw(kind, entry, { of = "", image, isBeside = false } = {}) {
  const [body, note] = { tables: table, bars, heatmaps: heatmap, plots: plot, images: picture }[kind](entry, { of, image });
  const words = [isBeside ? "" : of || whose(entry), note].filter(Boolean).join(" · ");
  const isWide = kind === "heatmaps" && entry["x-labels"].length > NARROW;
  return h("figure", { class: `figure ${kind}${isWide ? " wide" : ""}` }, h("figcaption", {}, h("h4", {}, isBeside ? of : titleOf(kind, entry)), words ? h("p", { class: "quiet" }, words) : null), body);
}

export const titleOf = (kind, entry) => (entry.title.trim() ? named(entry.title) : `${KINDS[kind]} without a title`);

/** `the mean of 3 sites`, of a merged entry. */
function whose({ sites, all_sites: number, merge }) {
  if (!sites) return "";
  return number === 1 ? `of ${sites[0]} alone` : `the ${merge} of ${counted(number, "site")}`;
}

/** ` of 2 of 3 sites`, where some sites lack a merged value. */
const few = (entry, at, across = null) => {
  const has = across === null ? entry.counts?.[at] : entry.counts?.[at]?.[across];
  return has > 0 && has < entry.all_sites ? ` of ${count(has)} of ${counted(entry.all_sites, "site")}` : "";
};

const label = (words) => (words.trim() ? named(words) : "–");

/** A label in a few lines of a table's head; all of it on hover. */
const short = (words) => h("span", { class: "short", title: words.length > 24 ? label(words) : null }, label(words));

/** A table body that begins with its first rows, and a button that adds more. */
function growing(number, row, head, name, whole) {
  const body = h("tbody", {});
  const more = h("button", { type: "button", on: { click: () => grow(MORE) } });
  const left = h("p", { class: "quiet" });
  let drawn = 0;
  function grow(by) {
    const until = Math.min(number, drawn + by);
    body.append(...Array.from({ length: until - drawn }, (_, i) => row(drawn + i)));
    drawn = until;
    show(more, drawn < number);
    text(more, `Show ${count(Math.min(MORE, number - drawn))} more of ${count(number)} rows`);
  }
  grow(ROWS);
  text(left, whole > number ? `${counted(whole - number, "more row")} not shown here: the command below has all.` : number ? "" : "There are no values.");
  show(left, left.textContent);
  return h("div", {}, h("div", { class: "tablebox", tabindex: "0", role: "group", "aria-label": name }, h("table", { class: "plain" }, head, body)), more, left);
}

function table(entry) {
  const row = (at) => h("tr", {}, h("th", { scope: "row" }, short(entry.labels[at])), h("td", {}, metric(entry.values[at]), few(entry, at)));
  return [growing(entry.labels.length, row, null, `Values of ${titleOf("tables", entry)}`, entry.whole), ""];
}

function bars(entry) {
  const known = entry.values.filter(Number.isFinite);
  const [low, high] = [Math.min(0, ...known), Math.max(0, ...known)];
  const part = (value) => `${(100 * value) / (high - low || 1)}%`;
  const row = (at) => {
    const value = entry.values[at];
    const fill = h("span", { class: value < 0 ? "below" : "" });
    if (Number.isFinite(value)) {
      fill.style.left = part(Math.min(0, value) - low);
      fill.style.width = part(Math.abs(value));
    }
    return h("tr", {}, h("th", { scope: "row" }, short(entry.labels[at])), h("td", { class: "track" }, h("span", { class: "rail", "aria-hidden": "true" }, fill)), h("td", {}, metric(value), few(entry, at)));
  };
  return [growing(entry.labels.length, row, null, `Bars of ${titleOf("bars", entry)}`, entry.whole), entry["y-axis"] ? label(entry["y-axis"]) : ""];
}

function heatmap(entry) {
  const across = entry["x-labels"];
  const most = Math.max(...entry.values.flat().filter(Number.isFinite).map(Math.abs), 0);
  const cell = (value, at, to) => {
    const made = h("td", { class: Number.isFinite(value) ? (value < 0 ? "heat below" : "heat") : "heat none" }, metric(value), few(entry, at, to));
    if (Number.isFinite(value)) made.style.setProperty("--share", `${most ? (50 * Math.abs(value)) / most : 0}%`);
    return made;
  };
  const axes = [entry["y-axis"] && `down: ${label(entry["y-axis"])}`, entry["x-axis"] && `across: ${label(entry["x-axis"])}`].filter(Boolean);
  if (!across.length || !entry["y-labels"].length) return [h("p", { class: "quiet" }, "There are no values."), ""];
  const head = h("thead", {}, h("tr", {}, h("td", {}), across.map((words) => h("th", { scope: "col" }, short(words)))));
  const rows = entry["y-labels"].map((words, at) => h("tr", {}, h("th", { scope: "row" }, short(words)), entry.values[at].map((value, to) => cell(value, at, to))));
  const name = `Values of ${titleOf("heatmaps", entry)}`;
  const body = h("div", { class: "tablebox", tabindex: "0", role: "group", "aria-label": name }, h("table", { class: "plain heats" }, head, h("tbody", {}, rows)));
  const cut = entry.whole ? h("p", { class: "quiet" }, `${count(rows.length)} × ${count(across.length)} of ${count(entry.whole[0])} × ${count(entry.whole[1])} cells: the command below has all.`) : null;
  return [h("div", {}, body, cut), axes.join(" · ")];
}

function plot(entry) {
  const name = titleOf("plots", entry);
  const given = entry.labels.map((words, at) => ({ label: label(words), x: entry["x-values"][at], y: entry["y-values"][at] }));
  const axes = [entry["x-axis"] && `across: ${label(entry["x-axis"])}`, entry["y-axis"] && `up: ${label(entry["y-axis"])}`].filter(Boolean);
  const left = entry.whole ? [entry.whole[0] > given.length ? `${counted(entry.whole[0] - given.length, "more line")} not drawn` : "", entry.whole[1] > Math.max(...given.map(({ x }) => x.length)) ? `of lines with up to ${count(entry.whole[1])} points, some points are left out evenly` : ""].filter(Boolean).join("; ") : "";
  const values = h("details", { class: "values" }, h("summary", {}, "Values"));
  values.addEventListener("toggle", () => {
    if (values.childElementCount > 1) return;
    const points = entry.labels.flatMap((words, line) => given[line].x.map((x, at) => [words, x, given[line].y[at]]));
    const row = (at) => h("tr", {}, h("th", { scope: "row" }, short(points[at][0])), h("td", {}, metric(points[at][1])), h("td", {}, metric(points[at][2])));
    const head = h("thead", {}, h("tr", {}, ["Line", entry["x-axis"] ? label(entry["x-axis"]) : "x", entry["y-axis"] ? label(entry["y-axis"]) : "y"].map((words) => h("th", { scope: "col" }, words))));
    values.append(growing(points.length, row, head, `Points of ${name}`, points.length));
  });
  return [h("div", {}, lines(name, given), left ? h("p", { class: "quiet" }, `${left}: the command below has all.`) : null, values), axes.join(" · ")];
}

function picture(entry, { of, image }) {
  const failed = h("p", { class: "quiet", hidden: true }, "The image cannot be read: it is no longer in the store, or was changed there.");
  const name = `${titleOf("images", entry)}${of ? ` of ${of}` : ""}`;
  const shown = h("img", { alt: name, src: image(entry), loading: "lazy", decoding: "async" });
  const link = h("a", { href: image(entry), target: "_blank", rel: "noopener", "aria-label": `Open the image ${name}` }, shown);
  shown.addEventListener("error", () => {
    show(link, false);
    show(failed, true);
  });
  return [h("div", {}, link, failed), ""];
}
