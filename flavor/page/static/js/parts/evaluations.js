// The evaluations of a run as a table, the newest first: of which model, who has judged it, and one metric merged.

import { attr, fill, h, show, text } from "../dom.js";
import { bounded, clock, count, counted, full, measured, metric, ofSites } from "../format.js";
import { get, of } from "../api.js";
import { tablebox } from "../panel.js";
import { named } from "../said.js";
import { CENTRAL, modelOf } from "../words.js";

export const OWN_DATA = "the operator's own data";
const AGAIN_MS = 2000;
const LONGEST_MS = 30_000; // between two attempts where the server does not answer

/** An evaluation's name: `round 7`, `round 7, own data`, `the update of site-1 in round 7, asked for (2)`. */
export const nameOf = ({ round, evaluation, subject }) => `${round ? `round ${count(round)}` : modelOf({ round, subject })}${evaluation === CENTRAL ? ", own data" : evaluation ? `, asked for (${count(evaluation)})` : ""}`;

/** The options by which `flavor results` names an evaluation: ` --round 7 --evaluation 2`. */
export const optionsOf = ({ round, evaluation }) => `${round ? ` --round ${round}` : ""}${evaluation === CENTRAL ? " --evaluation central" : evaluation || !round ? ` --evaluation ${evaluation}` : ""}`;

const isSame = (one, two) => one.round === two.round && one.evaluation === two.evaluation;

/**
 * `choose(row)` is called with the evaluation that a reader chooses, and `report(row)` where its report is wanted; `heard(rows)`
 * with all that are known.
 */
export function evaluations(name, { choose, report, heard }) {
  const heading = h("h3", {}, "All evaluations");
  const note = h("p", { class: "quiet", role: "status" });
  const body = h("tbody", {});
  const merged = h("th", { scope: "col", colspan: 3 });
  const heads = [
    ["Pooled", "Of the examples of all sites together."],
    ["Plain mean", "Each site counts the same."],
    ["Worst", "The value of the site that is worst."],
  ];
  const head = h(
    "thead",
    {},
    h("tr", {}, h("th", { scope: "col", rowspan: 2 }, "Round"), merged, ["Judged by", "Model", "Judged at", "Report"].map((word) => h("th", { scope: "col", rowspan: 2 }, word))),
    h("tr", {}, heads.map(([word, tip]) => h("th", { scope: "col", "data-tip": tip, tabindex: "0" }, word))),
  );
  const { table, nodes } = tablebox("All evaluations");
  const older = h("button", { type: "button", hidden: true, on: { click: () => ask({ isOlder: true }) } }, "Older evaluations");
  const node = h("div", { class: "evaluations" }, heading, nodes, older, note);
  table(h("table", { class: "plain" }, head, body));
  let rows = [];
  let found = null;
  let chosen = null;
  let wanted = ""; // what the document tells of the newest ones
  let shown = "";
  let word = ""; // the metric, as the curve names it
  let isAsking = false;
  let wishes = [];
  let last = 0;
  let timer = 0;
  let pause = AGAIN_MS;
  let isClosed = false;
  let earlier = 0;

  /** Reads the newest rows, or those before the last one. What is wished for while it reads is read after that. */
  async function ask({ isOlder = false } = {}) {
    if (isClosed) return;
    if (isAsking) {
      wishes.push({ isOlder });
      return;
    }
    isAsking = true;
    const [asked, of_word] = [wanted, word];
    try {
      const answer = await get(of(name, "evaluations"), { metric: of_word, before: isOlder ? rows.at(-1)?.at : "" });
      if (of_word === word) {
        take(answer, isOlder);
        if (!isOlder) shown = `${asked} ${of_word}`;
        draw();
        heard(rows.filter((row) => !row.failed));
      }
      text(note, "");
      pause = AGAIN_MS;
    } catch (error) {
      pause = Math.min(LONGEST_MS, 2 * pause);
      text(note, `${error.message}${error.hint ? `: ${error.hint}` : ""}`);
    }
    show(note, note.textContent);
    isAsking = false;
    last = Date.now();
    if (wishes.length) ask(wishes.shift());
    else if (shown !== `${wanted} ${word}`) later();
  }

  /** Puts rows in their places: new ones before those that are known, older ones after them. */
  function take(answer, isOlder) {
    const first = answer.rows.at(-1)?.at ?? 0;
    const joins = found?.metric === answer.metric && rows.some((row) => row.at >= first);
    if (isOlder || !joins) earlier = answer.earlier;
    rows = isOlder ? [...rows, ...answer.rows] : [...answer.rows, ...(joins ? rows.filter((row) => row.at < first) : [])];
    found = answer;
  }

  /** Reads the newest rows, at most once in two seconds. */
  function later() {
    timer ||= setTimeout(() => {
      timer = 0;
      if (shown !== `${wanted} ${word}`) ask();
    }, Math.max(0, last + pause - Date.now()));
  }

  const isBest = (row) => found.best && row.round === found.best.round && (row.evaluation === CENTRAL ? found.best.metric.startsWith("central/") : row.evaluation === 0 && !found.best.metric.startsWith("central/"));

  function draw() {
    text(merged, found.metric ? named(found.metric) : "no metric");
    fill(body, rows.map(drawn));
    show(older, earlier > 0);
  }

  function drawn(row) {
    if (row.failed) {
      const none = h("td", { class: "text todo", colspan: 5 }, `no result: ${row.failed}`);
      return h("tr", {}, h("td", { class: "text" }, nameOf(row)), none, h("td", { title: full(row.closed_ms) }, clock(row.closed_ms)), h("td", {}, "–"));
    }
    const pick = h("button", { type: "button", "aria-pressed": String(isChosen(row)), on: { click: () => choose(row) } }, nameOf(row));
    pick.of = row;
    const best = isBest(row) ? h("span", { class: "best-mark", "data-tip": found.best.selected ? `The best model by --select, by ${named(found.best.metric)}.` : `The best value of ${named(found.best.metric)} among the evaluations by most sites.`, tabindex: "0" }, " ✓ best") : null;
    const model = h("td", { class: "mono", title: row.model || null }, row.model ? `${row.model.slice(0, 10)}…` : "–");
    const by = row.evaluation === CENTRAL ? h("td", { class: "text" }, OWN_DATA) : h("td", { class: "text" }, judges(row));
    return h("tr", { class: isChosen(row) ? "chosen" : "" }, h("td", {}, pick, best), values(row), by, model, h("td", { title: full(row.closed_ms) }, clock(row.closed_ms)), h("td", {}, row.evaluation === CENTRAL ? "–" : h("button", { type: "button", "aria-label": `Report of ${nameOf(row)}`, on: { click: () => report(row) } }, "Report")));
  }

  function values(row) {
    if (row.evaluation === CENTRAL) {
      const own = Object.entries(row.own).map(([word, value]) => `${named(word)} ${bounded(value, word.startsWith("central/pooled/") ? row.own_bound : null)}`);
      return h("td", { colspan: 3 }, own.join(", ") || "–");
    }
    const { pooled, pooled_bound: bound, pooled_sites: counted_at, plain_mean: plain, sites: reported_at, worst, worst_not_finite: word, unknown, better, lowest, highest } = row.merged ?? {};
    const part = (value, sites) => (Number.isFinite(value) ? ofSites(sites, row.sites) : "");
    const bad = better === "larger" ? lowest : better === "smaller" ? highest : null;
    return [h("td", {}, bounded(pooled, bound), part(pooled, counted_at)), h("td", {}, metric(plain), part(plain, reported_at)), h("td", {}, measured(word ? undefined : bad, word), worst ? ` ${worst}` : unknown ? " (site not known)" : "")];
  }

  /** `2 of 3 sites`, with those that are missing where there are any. */
  function judges(row) {
    const missing = Object.entries(row.missing);
    const said = `${row.sites < row.expected ? `${count(row.sites)} of ` : ""}${counted(row.expected, "site")}`;
    if (!missing.length && !row.all_skipped) return said;
    const lacking = row.expected - row.sites;
    const lines = [
      ...missing.map(([site, why]) => h("li", {}, `${site}: ${why}`)),
      lacking > missing.length ? h("li", {}, `${counted(lacking - missing.length, "more site")} without a result.`) : null,
      row.all_skipped ? h("li", {}, `Without an evaluator: ${row.skipped.join(", ")}${row.all_skipped > row.skipped.length ? ` and ${count(row.all_skipped - row.skipped.length)} more` : ""}.`) : null,
    ];
    const without = [lacking ? `${count(lacking)} refused or missing` : "", row.all_skipped ? `${count(row.all_skipped)} without an evaluator` : ""].filter(Boolean).join(", ");
    return h("details", {}, h("summary", {}, `${said} (${without})`), h("ul", {}, lines));
  }

  const isChosen = (row) => chosen !== null && isSame(row, chosen);

  return {
    node,
    /** Follows a run's document. */
    update(doc) {
      const failed = (doc.not_judged ?? []).map((each) => ({ ...each, closed_ms: each.over_ms }));
      wanted = [doc.evaluation, doc.central, ...failed].map((each) => (each ? `${each.round} ${each.evaluation ?? ""} ${each.closed_ms}` : "")).join(" ");
      if (shown !== `${wanted} ${word}`) later();
    },
    /** Shows another metric. */
    metric(next) {
      if (next === word) return;
      word = next;
      wishes = [];
      ask();
    },
    /** Marks the evaluation that is shown below. */
    mark(each) {
      chosen = each;
      for (const button of body.querySelectorAll("button[aria-pressed]")) {
        attr(button, "aria-pressed", String(isChosen(button.of)));
        button.closest("tr").classList.toggle("chosen", isChosen(button.of));
      }
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
    },
  };
}
