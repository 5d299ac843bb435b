// The model: one metric over the rounds. Sites are thin lines, each mean has a colour and a stroke of its own, and the best
// round is marked. The thick line is the one that the best round is by: the weighted mean of what training scripts
// report, and the plain mean of evaluations, by which `--select accuracy:max` goes.

import { attr, h, show, text } from "../dom.js";
import { called, count, counted, meanOf, metric, notCompared, notMean, ofSites, reported } from "../format.js";
import { get, of } from "../api.js";
import { chart } from "../chart.js";
import { panel } from "../panel.js";
import { named } from "../said.js";

const NONE = ","; // of no site
/** What a merged line can be, as `metrics.png` draws it. Those that are no means have the words of `notMean`. */
const LINES = {
  weighted: { word: "weighted mean", tip: "Each site counts by its number of examples.", tone: "--first", sign: "weighted" },
  plain: { word: "plain mean", tip: "Each site counts the same.", tone: "--second", dash: [6, 4], sign: "plain" },
  pooled: { word: "pooled", tip: "Of the examples of all sites together.", tone: "--ink", sign: "pooled" },
  sum: { word: "sum", tip: "Of the counts of all sites.", tone: "--ink", dash: [2, 3], sign: "sum" },
  "own data": { word: "own data", tip: "Measured by an aggregator, on the operator's own data.", tone: "--ink", dash: [10, 3, 2, 3], sign: "own-data" },
};
const SITE = { word: "a site", tip: "What each site reports, also in rounds in which its update is refused.", sign: "site" };
const AGAIN_MS = 1000; // rounds may close 20 times a second
const LONGEST_MS = 30_000; // between two attempts where the server does not answer

/** Of what training scripts report; with `judged`, of what evaluators measure of the global model of each round. */
export function curves(name, { heard, judged = false } = {}) {
  const part = judged
    ? panel("Judged models", { name: "judged", command: () => `flavor results ${called(name)}` })
    : panel("Model", { name: "model", command: () => `flavor export ${called(name)} --to csv metrics.csv` });
  const path = of(name, judged ? "judged" : "curves");
  /** Where a value is from. */
  const where = (round) => (judged ? `the model of round ${count(round)}` : reported(round));
  const whereShort = (round) => (judged ? `the model of round ${count(round)}` : `reported in round ${count(round)}`);
  const choose = h("select", { "aria-label": "Metric", on: { change: () => pick(choose.value) } });
  const log = h("input", { type: "checkbox", on: { change: () => plot.log(log.checked) } });
  const reset = h("button", { type: "button", hidden: true, on: { click: () => plot.reset() } }, "Whole run");
  part.tools.append(choose, h("label", { class: "check" }, log, "log axis"), reset);
  const line = h("p", { class: "pointed", "aria-live": "off" });
  const keys = Object.fromEntries(
    Object.entries({ ...LINES, site: SITE }).map(([kind, { word, tip, sign }]) => [kind, h("span", { class: "key", "data-tip": tip }, h("i", { class: `line ${sign}`, "aria-hidden": "true" }), word)]),
  );
  const legend = h("p", { class: "legend" }, Object.values(keys));
  const empty = h("p", { class: "quiet" });
  const axis = h("p", { class: "axis", role: "status", hidden: true });
  const plot = chart({ told, zoomed: (is) => show(reset, is), mark, lacks: (words) => (text(axis, words), show(axis, words)) });
  attr(plot.node, "tabindex", "0");
  attr(plot.node, "role", "img");
  attr(plot.node, "aria-label", "Curve");
  plot.node.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-0.25, 1], ArrowRight: [0.25, 1], "+": [0, 0.5], "-": [0, 2], Escape: null }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    if (move) plot.move(...move);
    else plot.reset();
  });
  part.body.append(plot.node, h("div", { class: "under" }, line, legend), axis, empty);
  let found = null;
  let chosen = "";
  let names = [];
  let sites = [];
  let asking = false;
  let stale = false;
  let last = 0;
  let timer = 0;
  let had = 0; // known values of sites
  let pause = AGAIN_MS;
  let isClosed = false;
  let isJudged = false; // whether models of the run are judged

  function pick(word) {
    chosen = word;
    found = null;
    had = 0;
    ask();
  }

  async function ask() {
    if (!chosen) return;
    if (asking) {
      stale = true;
      return;
    }
    asking = true;
    const wanted = chosen;
    try {
      let answer = await get(path, found ? { metric: wanted, after: found.rounds.at(-1) } : { metric: wanted, sites: NONE });
      if (wanted === chosen) tell(judged ? { ...answer, isWhole: true } : answer);
      if (wanted === chosen && found && !found.isWhole) {
        answer = await get(path, { metric: wanted }); // of all sites: it takes the longest
        if (wanted === chosen) {
          found = null;
          const known = Object.values(answer.sites).flat().filter((value) => value !== null).length;
          const isMore = answer.is_complete === false && known > had; // a slow store is read a part at a time
          had = known;
          tell({ ...answer, isWhole: !isMore });
          if (isMore) stale = true;
        }
      }
      pause = AGAIN_MS;
    } catch (error) {
      if (!found) say(error.message);
      pause = Math.min(LONGEST_MS, 2 * pause);
      stale = true; // nothing else may ask again: the run may have ended
    }
    asking = false;
    last = Date.now();
    if (stale) later();
  }

  function tell(answer) {
    found = found ? joined(found, answer) : answer;
    take(answer.metrics);
    draw();
    heard?.(found);
  }

  /** Asks again, at most once a second, and more rarely where that fails. */
  function later() {
    if (isClosed) return;
    stale = true;
    timer ||= setTimeout(() => {
      timer = 0;
      stale = false;
      ask();
    }, Math.max(0, last + pause - Date.now()));
  }

  function take(words) {
    if (!Array.isArray(words) || !words.length) return;
    for (const word of words) {
      if (names.includes(word)) continue;
      names.push(word);
      choose.append(h("option", { value: word }, named(word)));
    }
    if (!chosen) {
      chosen = names[0];
      later();
    }
    if (choose.value !== chosen) choose.value = chosen;
    show(choose, names.length > 1);
  }

  /** The kinds of the merged lines, the thick one first. */
  const kinds = () => (notMean(chosen) ? [notMean(chosen)] : judged ? ["plain", "weighted"] : ["weighted", "plain"]);

  /** The values of a kind; of what is no mean, both have the same. */
  const merged = (kind) => (kind === "plain" ? found.plain : found.weighted);

  const main = () => merged(kinds()[0]);

  function draw() {
    const has = found.rounds.length > 0;
    show(plot.node, has);
    show(legend, has);
    sites = Object.keys(found.sites ?? {});
    const isSame = found.plain.every((value, i) => value === found.weighted[i]);
    const many = sites.length > 12;
    const series = sites.map((site) => ({ label: site, tone: "--site", wide: 1, alpha: many ? 0.55 : 0.9 }));
    const data = sites.map((site) => found.sites[site]);
    if (!sites.length && found.lowest.some((value) => value !== null)) {
      series.push({ label: "lowest site", tone: "--site", wide: 1 }, { label: "highest site", tone: "--site", wide: 1 });
      data.push(found.lowest, found.highest);
    }
    const lines = isSame ? kinds().slice(0, 1) : kinds();
    for (const kind of [...lines].reverse()) {
      const { word, tone, dash } = LINES[kind];
      series.push({ label: word, tone, dash, wide: kind === lines[0] ? 3 : 2 });
      data.push(merged(kind));
    }
    for (const [kind, key] of Object.entries(keys)) {
      show(key, kind === "site" || lines.includes(kind));
      key.firstChild.classList.toggle("main", kind === lines[0]);
    }
    const at = main().findLastIndex((value) => value !== null);
    const words = at < 0 ? "" : `${named(chosen)} ${metric(main()[at])}${mean(at)}${few(at)} ${judged ? `of the model of round ${count(found.rounds[at])}` : `in round ${count(found.rounds[at])}`}`;
    const best = top();
    attr(plot.node, "aria-label", `Curve of ${words || named(chosen)}${best ? `, best ${best}, ${whereShort(found.best.round)}` : ""}`);
    part.say(words);
    const notes = [];
    if (found.left_out) notes.push(`${counted(found.left_out, "more site")} ${found.left_out === 1 ? "is" : "are"} not drawn`);
    if (found.is_complete === false) notes.push(found.isWhole === false ? "more values of sites are being read from the store" : "the values of some sites are no longer kept, or cannot be read");
    if (notCompared(found.best)) notes.push(`for the best round, ${notCompared(found.best).replace("report it", `report ${chosen}`)}`);
    say(!has ? (judged ? "No model has been judged yet." : "No round has closed yet.") : notes.map((note) => `${note.charAt(0).toUpperCase() + note.slice(1)}.`).join(" "));
    plot.set(series, [found.rounds, ...data]);
    told(null);
  }

  function say(words) {
    text(empty, words && words.charAt(0).toUpperCase() + words.slice(1));
    show(empty, words);
  }

  function mark() {
    const best = top();
    return best ? { x: found.best.round, y: found.best.value, words: [`best ${best}, ${where(found.best.round)}`, `best ${best}, ${whereShort(found.best.round)}`, `best ${best}`] } : null;
  }

  /** The best value, and of which sites it is; "" for none. */
  const top = () => (found?.best ? `${metric(found.best.value)}${ofSites(found.best.sites, found.best.contributors)}` : "");

  /** Says which mean a value is, where another one is shown as well: of the models that are judged. */
  const mean = (at) => (judged || isJudged ? meanOf(chosen, found.contributors?.[at], kinds()[0]) : "");

  /** Says of how many sites the value of a round is, where that is not all. */
  const few = (at) => ofSites(found.reporting?.[at] ?? Infinity, found.contributors?.[at]);

  function told(index, focused) {
    if (!found?.rounds.length) return;
    const at = index ?? found.rounds.length - 1;
    const values = sites.map((site) => [site, found.sites[site][at]]).filter(([, value]) => Number.isFinite(value)).sort((a, b) => a[1] - b[1]);
    const [first, second] = kinds();
    const parts = [`${judged ? "model of round" : "round"} ${count(found.rounds[at])}`, `${first} ${metric(main()[at])}${few(at)}`];
    if (second) parts.push(`${second} ${metric(merged(second)[at])}`);
    const near = focused > 0 && focused <= sites.length ? sites[focused - 1] : null;
    if (near && index !== null) parts.push(`${near} ${metric(found.sites[near][at])}`);
    else if (Number.isFinite(found.lowest?.[at]) && found.lowest[at] !== found.highest[at]) parts.push(`lowest ${whose(values, found.lowest[at])}`, `highest ${whose(values, found.highest[at])}`);
    text(line, parts.join(" · "));
  }

  /** A value of a round's contributors, after the site that has it. Sites that were refused, or are not drawn, are none. */
  function whose(values, value) {
    const site = values.find(([, own]) => own === value)?.[0];
    return `${site ? `${site} ` : ""}${metric(value)}`;
  }

  return {
    node: part.node,
    body: part.body,
    /** Names of metrics, as they become known. */
    names: take,
    update(doc) {
      const isNew = isJudged !== Boolean(doc.evaluation);
      isJudged = Boolean(doc.evaluation);
      if (isNew && found) draw();
      if (doc.metric && !judged) take([doc.metric]);
      take(judged ? judgedNames(doc) : Object.keys(doc.last_round?.metrics ?? {}));
      const closed = judged ? Math.max(doc.evaluation?.closed_ms ?? 0, doc.central?.closed_ms ?? 0) : (doc.last_round?.round ?? 0);
      if (closed !== this.closed) {
        this.closed = closed;
        later();
      }
      if (!names.length) {
        show(plot.node, false);
        show(legend, false);
        show(choose, false);
        if (judged) say("No model has been judged yet.");
        else say(doc.round > 1 ? "The sites report no metrics. SaveInfoJson({…, \"metrics\": {\"loss\": 0.3}}) in the training script makes a curve." : "A curve begins with the first closed round.");
      }
    },
    closed: null,
    values: (site) => (found?.sites && Object.hasOwn(found.sites, site) ? found.sites[site] : undefined),
    metric: () => chosen,
    close() {
      isClosed = true;
      clearTimeout(timer);
      plot.close();
    },
  };
}

/** The merged metrics of evaluations by their names in the curves, the one first that the newest one by sites is shown by. */
function judgedNames({ evaluation, central }) {
  const all = Object.entries(evaluation?.metrics ?? {}).sort(([one], [other]) => Number(other === evaluation.metric) - Number(one === evaluation.metric));
  return [...all.flatMap(([base, of]) => [...(Number.isFinite(of.plain_mean) ? [base] : []), ...(Number.isFinite(of.pooled) ? [`pooled/${base}`] : [])]), ...Object.keys(central?.metrics ?? {})];
}

/** Curves with those of the rounds since. A site may come or go: where it has no value, it has null. */
function joined(old, added) {
  const whole = { ...added, isWhole: old.isWhole, rounds: [...old.rounds, ...added.rounds], sites: {} };
  for (const name of ["plain", "weighted", "lowest", "highest", "reporting", "contributors"]) whole[name] = [...old[name], ...added[name]];
  for (const site of new Set([...Object.keys(old.sites), ...Object.keys(added.sites)])) {
    const [before, after] = [old.sites[site] ?? old.rounds.map(() => null), added.sites[site] ?? added.rounds.map(() => null)];
    Object.defineProperty(whole.sites, site, { value: [...before, ...after], enumerable: true });
  }
  return whole;
}
