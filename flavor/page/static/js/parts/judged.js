// The evaluations of a run: a curve of a metric of its global models, and what each site has measured of the newest one.
// These are no metrics of training scripts, which the panel "Model" has.

import { fill, h, show, text } from "../dom.js";
import { count, counted, metric } from "../format.js";
import { get, of } from "../api.js";
import { failed } from "../panel.js";
import { named } from "../said.js";
import { curves } from "./curves.js";

const MOST = 6; // metrics in the table
const AGAIN_MS = 2000;
const MERGED = [
  ["pooled", "pooled", "Of the examples of all sites together."],
  ["plain mean", "plain_mean", "Each site counts the same."],
  ["weighted mean", "weighted_mean", "Each site counts by its number of examples."],
  ["lowest", "lowest", "The lowest value of a site."],
  ["highest", "highest", "The highest value of a site."],
];

export function judged(name) {
  const curve = curves(name, { judged: true });
  const heading = h("h3", {});
  const notes = h("p", { class: "quiet" });
  const box = h("div", { class: "tablebox" });
  curve.body.append(heading, notes, box);
  let wanted = null; // the evaluation that the document tells of
  let shown = "";
  let isAsking = false;
  let isClosed = false;
  show(curve.node, false);

  const keyOf = (each) => `${each.round} ${each.evaluation} ${each.closed_ms}`;

  /** Reads the newest evaluation, at most once in two seconds. */
  async function ask() {
    if (isAsking || isClosed || !wanted || keyOf(wanted) === shown) return;
    isAsking = true;
    try {
      const found = await get(of(name, "evaluation"));
      draw(found);
      shown = keyOf(found);
    } catch (error) {
      if (!shown) failed(box, error);
    }
    setTimeout(() => {
      isAsking = false;
      ask();
    }, AGAIN_MS);
  }

  function draw(found) {
    const all = Object.keys(found.metrics);
    const names = [...all].sort((one, other) => Number(other === found.metric) - Number(one === found.metric)).slice(0, MOST);
    const cells = (make) => names.map((each) => make(found.metrics[each], each));
    const head = h("tr", {}, h("th", {}, "site"), h("th", {}, "examples"), names.map((each) => h("th", {}, named(each))));
    const sites = Object.entries(found.sites).map(([site, own]) =>
      h("tr", {}, h("td", { class: "text" }, site), h("td", {}, count(own.examples)), cells((of, each) => h("td", {}, metric(own.metrics[each]), of.worst === site ? " (worst)" : ""))),
    );
    const missing = Object.entries(found.missing).map(([site, why]) =>
      h("tr", {}, h("td", { class: "text" }, site), h("td", { class: "text quiet", colspan: names.length + 1 }, `no result: ${why}`)),
    );
    const merged = MERGED.filter(([, key]) => names.some((each) => Number.isFinite(found.metrics[each][key]))).map(([word, key, tip]) =>
      h("tr", { class: "merged" }, h("th", { scope: "row", "data-tip": tip }, word), h("td", {}, key === "pooled" ? count(found.examples) : ""), cells((of) => h("td", {}, metric(of[key]), key === "pooled" && Number.isFinite(of.pooled_bound) ? ` ± ${metric(of.pooled_bound)}` : ""))),
    );
    fill(box, h("table", { class: "plain" }, h("thead", {}, head), h("tbody", {}, sites, missing, merged)));
    const by = found.expected.length > Object.keys(found.sites).length + found.left_out ? `${count(Object.keys(found.sites).length)} of ${counted(found.expected.length, "site")}` : counted(found.expected.length, "site");
    text(heading, `${found.round ? `The model of round ${count(found.round)}` : "A model of no round"}, judged by ${by}, ${counted(found.examples, "example")}`);
    const more = [];
    if (found.skipped.length) more.push(`Without an evaluator: ${found.skipped.slice(0, 20).join(", ")}.`);
    if (all.length > MOST) more.push(`${counted(all.length - MOST, "further metric")} below, in a terminal.`);
    if (found.left_out) more.push(`${counted(found.left_out, "more site")} not shown.`);
    text(notes, more.join(" "));
    show(notes, more.length);
  }

  return {
    node: curve.node,
    update(doc) {
      wanted = doc.evaluation ?? null;
      show(curve.node, wanted);
      if (!wanted) return;
      curve.update(doc);
      ask();
    },
    close() {
      isClosed = true;
      curve.close();
    },
  };
}
