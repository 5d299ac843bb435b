// The evaluations of a run: a curve of a metric of its global models, all evaluations, what each site has measured of the
// newest one or of a chosen one, and the operator's own data. These are no metrics of training scripts, which the panel
// "Model" has.

import { fill, h, show, text } from "../dom.js";
import { bounded, called, clock, count, counted, full, measured, metric, ofSites, quoted, some } from "../format.js";
import { get, of } from "../api.js";
import { failed, tablebox } from "../panel.js";
import { named } from "../said.js";
import { CENTRAL, byAsked, modelOf } from "../words.js";
import { curves } from "./curves.js";
import { OWN_DATA, evaluations, optionsOf } from "./evaluations.js";
import { reports } from "./reports.js";

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
  const curve = curves(name, { judged: true, heard: () => all.metric(curve.metric()) });
  const heading = h("h3", {});
  const newest = h("button", { type: "button", hidden: true, on: { click: () => pick(null) } }, "Show the newest");
  const notes = h("p", { class: "quiet" });
  const { table, box, nodes } = tablebox("What each site has measured");
  const own = h("p", { class: "own" });
  const drawings = reports(name, { choose: pick });
  const all = evaluations(name, {
    choose: pick,
    report(row) {
      pick(row);
      drawings.show();
    },
    heard: (rows) => drawings.choices(rows),
  });
  curve.body.append(own, h("div", { class: "both" }, h("div", { class: "of-sites" }, h("div", { class: "under" }, heading, newest), notes, nodes), all.node));
  let doc = null;
  let chosen = null; // by the reader; null for the newest one
  let shown = "";
  let isAsking = false;
  let isClosed = false;
  let signed = { key: "", words: "" }; // who has judged the newest model on the operator's own data
  show(curve.node, false);
  show(drawings.node, false);

  /** The evaluation to show. */
  const wanted = () => chosen ?? doc?.evaluation ?? (doc?.central ? { ...doc.central, evaluation: CENTRAL } : null);
  const keyOf = (each) => `${each.round} ${each.evaluation} ${each.closed_ms}`;

  function pick(each) {
    chosen = each;
    show(newest, chosen);
    follow();
  }

  function follow() {
    const each = wanted();
    if (!each) return;
    all.mark(each);
    drawings.of(each);
    ask();
  }

  /** Reads an evaluation: the newest one at most once in two seconds, a chosen one at once. */
  async function ask() {
    const each = wanted();
    const key = keyOf(each) + (doc.central?.round === each.round ? doc.central.closed_ms : "");
    if (isClosed || key === shown || (isAsking && !chosen)) return;
    isAsking = true;
    try {
      const found = await get(of(name, "evaluation"), { round: String(each.round), evaluation: String(each.evaluation) });
      if (keyOf(wanted()) === keyOf(each)) {
        draw(found);
        shown = key;
      }
    } catch (error) {
      if (!shown) failed(box, error);
    }
    setTimeout(() => {
      isAsking = false;
      if (!isClosed) ask();
    }, AGAIN_MS);
  }

  function draw(found) {
    const isOwn = found.evaluation === CENTRAL;
    const every = Object.keys(found.metrics);
    const names = [...every].sort((one, other) => Number(other === found.metric) - Number(one === found.metric)).slice(0, MOST);
    const had = Object.keys(found.sites).length;
    const all = had + (found.left_out ?? 0);
    const beside = (of, key) => {
      if (!Number.isFinite(of[key])) return "";
      if (key === "pooled") return ofSites(of.pooled_sites, all);
      return key.endsWith("_mean") ? ofSites(of.sites, all) : "";
    };
    const cells = (make) => names.map((each) => make(found.metrics[each], each));
    const head = h("tr", {}, h("th", { scope: "col" }, "site"), h("th", { scope: "col" }, "examples"), names.map((each) => h("th", { scope: "col" }, named(each))));
    const sites = Object.entries(found.sites).map(([site, own]) =>
      h("tr", {}, h("td", { class: "text" }, site), h("td", {}, count(own.examples)), cells((of, each) => h("td", {}, (own.cut || own.words_cut) && own.metrics[each] === undefined && !own.not_finite?.[each] ? "?" : measured(own.metrics[each], own.not_finite?.[each]), of.worst === site ? " (worst)" : ""))),
    );
    const missing = Object.entries(found.missing).map(([site, why]) =>
      h("tr", {}, h("td", { class: "text" }, site), h("td", { class: "text quiet", colspan: names.length + 1 }, `no result: ${why}`)),
    );
    const merged = MERGED.filter(([, key]) => !isOwn && names.some((each) => Number.isFinite(found.metrics[each][key]))).map(([word, key, tip]) =>
      h("tr", { class: "merged" }, h("th", { scope: "row", "data-tip": tip }, word), h("td", {}, key === "pooled" && names.every((each) => (found.metrics[each].pooled_sites ?? all) === all) ? count(found.examples) : ""), cells((of) => h("td", {}, bounded(of[key], key === "pooled" ? of.pooled_bound : null), beside(of, key)))),
    );
    const central = found.central && h("tr", { class: "merged own-row" }, h("th", { scope: "row" }, OWN_DATA), h("td", {}, count(found.central.examples)), names.map((each) => h("td", {}, ownValue(found.central.metrics, each))));
    table(h("table", { class: "plain" }, h("thead", {}, head), h("tbody", {}, sites, missing, merged, central)));
    const by = isOwn ? `on ${OWN_DATA}` : `by ${found.expected.length > had + found.left_out ? `${count(had)} of ` : ""}${counted(found.expected.length, "site")}${byAsked(found)}`;
    const model = modelOf(found);
    text(heading, `${model.charAt(0).toUpperCase()}${model.slice(1)}, judged ${by}, ${counted(found.examples, "example")}`);
    const more = [];
    if (found.skipped.length) more.push(`Without an evaluator: ${found.skipped.slice(0, 20).join(", ")}.`);
    const unread = Object.keys(found.unread);
    const cut = Object.entries(found.sites).filter(([, own]) => own.cut || own.words_cut).map(([site]) => site);
    if (cut.length) more.push(`${some(cut, 5)} ${cut.length === 1 ? "has" : "have"} more metrics than Redis keeps: flavor results shows them from the store.`);
    if (unread.length) more.push(`The values of ${some(unread, 20)} cannot be read: only what is merged has them.`);
    if (every.length > MOST) more.push(...further(every.filter((each) => !names.includes(each)), found));
    if (found.left_out) more.push(`${counted(found.left_out, "more site")} not shown.`);
    fill(notes, more.flatMap((words) => [words, " "]));
    show(notes, more.length);
  }

  /** `5 further metrics: f1, precision and 3 more. flavor results FOLDER --metric f1 shows one.` */
  function further(names, found) {
    const command = `flavor results ${called(name)}${chosen ? optionsOf(found) : ""} --metric ${quoted(names[0])}`;
    return [`${counted(names.length, "further metric")}: ${some(names.map(named))}. In a terminal:`, h("code", {}, command)];
  }

  /** Asks once, for each new result on the operator's own data, which aggregator has signed it. */
  async function askWho() {
    const { central } = doc;
    const key = central ? `${central.round} ${central.closed_ms}` : "";
    if (!key || key === signed.key) return;
    signed = { key, words: "" };
    try {
      const found = await get(of(name, "reports"), { round: String(central.round), evaluation: String(CENTRAL) });
      const why = found.unsigned || found.silent;
      if (key === signed.key) signed.words = found.signed_by ? `by the aggregator with key ${found.signed_by}` : why && `its signed record cannot be read: ${why}`;
    } catch (error) {
      if (key === signed.key) signed.words = `its signed record cannot be read: ${error.message}`;
    }
    if (!isClosed) text(own, central_());
  }

  /** `On the operator's own data: accuracy 0.91 of the model of round 7, …. The model of round 8 is being judged there.` */
  function central_() {
    const now = doc.evaluating_central ?? [];
    const is = now.length && `The model${now.length === 1 ? "" : "s"} of round${now.length === 1 ? "" : "s"} ${some(now.map(count))} ${now.length === 1 ? "is" : "are"} being judged ${doc.central ? "there" : `on ${OWN_DATA}`} now.`;
    const { central } = doc;
    if (!central) return is || "";
    const values = Object.entries(central.metrics).slice(0, MOST).map(([word, value]) => `${named(word.replace(/^central\//, ""))} ${metric(value)}`);
    const facts = [counted(central.examples, "example"), `at ${clock(central.closed_ms)}`, signed.words].filter(Boolean);
    return [`On ${OWN_DATA}: ${values.join(", ") || "no metrics"}, the model of round ${count(central.round)} (${facts.join(", ")}).`, is].filter(Boolean).join(" ");
  }

  return {
    nodes: [curve.node, drawings.node],
    update(next) {
      doc = next;
      const has = Boolean(doc.evaluation || doc.central || doc.not_judged?.length);
      show(curve.node, has || doc.evaluating_central?.length);
      show(drawings.node, doc.evaluation);
      text(own, central_());
      show(own, own.textContent);
      own.title = doc.central ? full(doc.central.closed_ms) : "";
      if (!has) return;
      curve.update(doc);
      all.update(doc);
      follow();
      askWho();
    },
    close() {
      isClosed = true;
      for (const part of [curve, all, drawings]) part.close();
    },
  };
}

/** The value of a metric on the operator's own data; that of its examples' counts where it is computed of them. */
function ownValue(metrics, name) {
  const own = [name, `central/${name}`, `central/pooled/${name}`].find((each) => Number.isFinite(metrics[each]));
  return bounded(metrics[own], metrics[`${own}_bound`]);
}
