// What sites report of a model beside metrics, in result.json: by site, and merged where titles and labels agree.

import { attr, fill, h, show, text } from "../dom.js";
import { called, count, counted, hasFolder, quoted, some } from "../format.js";
import { get, of } from "../api.js";
import { KINDS, draw, titleOf } from "../figures.js";
import { failed, lesson, panel } from "../panel.js";
import { CENTRAL } from "../words.js";
import { nameOf, optionsOf } from "./evaluations.js";

const SOON_MS = 200;
const AGAIN_MS = 30_000; // a store that does not answer is asked again
const BESIDE = 4; // sites whose entries are drawn side by side without a click
const MOST_BESIDE = 12;
const MERGED = "";
const NEVER = new Set(["plots", "images"]); // are merged

const keyOf = ({ round, evaluation, closed_ms }) => `${round} ${evaluation} ${closed_ms}`;
const isSame = (one, two) => one.round === two.round && one.evaluation === two.evaluation;

/** `choose(row)` is called with the evaluation that a reader chooses, null for the newest one. */
export function reports(name, { choose }) {
  let each = null; // the evaluation
  let store = ""; // its URL, once a report is read
  const command = () => `flavor results ${called(name)}${each ? optionsOf(each) : ""} --json${hasFolder(name) ? "" : ` --store ${store ? quoted(store) : "STORE"}`}`;
  const part = panel("Reports", { name: "reports", command });
  const which = h("select", { "aria-label": "Evaluation", on: { change: () => choose(rows.find((row) => keyOf(row) === which.value) ?? null) } });
  const whose = h("select", { "aria-label": "Whose report", on: { change: () => look() } });
  part.tools.append(which, whose);
  const about = h("p", { class: "quiet" });
  const figures = h("div", { class: "figures" });
  const apart = h("div", { class: "apart" });
  part.body.append(about, figures, apart);
  let rows = [];
  let found = null;
  let sites = new Map(); // by site: what it reports, or a promise of it
  let isSeen = false;
  let isClosed = false;
  let turn = 0;
  let timer = 0;
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    isSeen = true;
    read();
  }, { rootMargin: "200px" });
  seen.observe(part.node);

  const place = () => ({ round: String(each.round), evaluation: String(each.evaluation) });

  /** Reads an evaluation's report, a part at a time where the store is slow. */
  async function read() {
    if (!isSeen || !each || isClosed) return;
    const now = ++turn;
    clearTimeout(timer);
    try {
      const answer = await get(of(name, "reports"), place());
      if (now !== turn || isClosed) return;
      found = answer;
      store = answer.store || store;
      part.command(command());
      told();
      if (!found.is_complete) timer = setTimeout(read, found.silent ? AGAIN_MS : SOON_MS);
      else look();
    } catch (error) {
      if (now !== turn || isClosed) return;
      fill(apart);
      failed(figures, error);
      timer = setTimeout(read, AGAIN_MS);
    }
  }

  function told() {
    const far = found.is_complete ? "" : `${count(found.read)} of ${counted(found.of, "result")} read so far …`;
    part.say(`${nameOf(each)}${far ? `: ${far}` : ""}`);
    const parts = [];
    if (found.is_complete && found.of) parts.push(found.sites.length ? `${count(found.sites.length)} of ${counted(found.of, "site")} ${found.sites.length === 1 ? "has" : "have"} reported tables, plots or images.` : "");
    if (found.signed_by) parts.push(`The evaluation is signed by the aggregator with key ${found.signed_by}.`);
    else if (found.unsigned) parts.push(`Who has signed the evaluation cannot be read: ${found.unsigned}.`);
    const missing = Object.entries(found.missing);
    if (missing.length) parts.push(`Not shown: ${missing.slice(0, 5).map(([site, why]) => `${site} (${why})`).join("; ")}${missing.length > 5 ? `; and ${count(missing.length - 5)} more` : ""}.`);
    text(about, parts.filter(Boolean).join(" "));
    const before = whose.value;
    const names = found.is_complete ? found.sites : [];
    fill(whose, h("option", { value: MERGED }, "all sites, merged"), names.map((site) => h("option", { value: site }, site)));
    whose.value = names.includes(before) ? before : MERGED;
    show(whose, names.length);
    if (found.silent) fill(figures, lesson(found.silent, "Reports lie in the run's store: start `flavor ui` with --store where this machine reaches it by another address."));
    else if (found.is_complete && !found.sites.length) fill(figures, h("p", { class: "quiet" }, "No site has reported more than metrics. An evaluator draws tables, bars, heatmaps, plots and images here by writing $OUTPUT_PATH/result.json."));
    else if (!found.is_complete) fill(figures);
    if (found.silent || !found.sites.length) fill(apart);
  }

  async function look() {
    if (!found?.sites.length) return;
    const site = whose.value;
    const now = ++turn;
    if (site === MERGED) {
      const { merged, unmerged } = found;
      fill(apart, merged ? merged.apart.map(separate) : []);
      fill(figures, merged ? drawn(merged, "") : h("p", { class: "quiet" }, unmerged));
      return;
    }
    try {
      const { results } = await of_(site);
      if (now !== turn || isClosed) return;
      fill(apart);
      fill(figures, drawn(results, site));
    } catch (error) {
      if (now !== turn || isClosed) return;
      fill(apart);
      failed(figures, error);
    }
  }

  /** What one site reports, asked once. */
  function of_(site) {
    const asked = sites;
    if (!asked.has(site)) {
      const answer = get(of(name, "reports"), { ...place(), site });
      asked.set(site, answer);
      answer.catch(() => asked.delete(site));
    }
    return asked.get(site);
  }

  const imageOf = (site) => {
    const query = { ...place(), site };
    return (entry) => `/api/${of(name, "reports", "image")}?${new URLSearchParams({ ...query, digest: entry.digest })}`;
  };

  function drawn(results, site) {
    const all = Object.keys(KINDS).flatMap((kind) => (results[kind] ?? []).map((entry) => draw(kind, entry, { of: site, image: imageOf(site) })));
    const left = Object.entries(results.left_out ?? {}).map(([kind, number]) => counted(number, kind === "apart" ? "entry by site" : `more ${kind.replace(/s$/, "")}`).replace("entrys", "entries"));
    return [...all, left.length ? h("p", { class: "quiet" }, `Not drawn, because there is too much: ${left.join(", ")}. The command below has all.`) : null];
  }

  /** An entry that is not merged: those of the sites side by side. */
  function separate(entry) {
    const beside = h("div", { class: "figures" });
    const names = entry.sites.slice(0, MOST_BESIDE);
    const more = h("button", { type: "button", on: { click: open } }, `Side by side: ${some(names, 3)}`);
    async function open() {
      more.disabled = true;
      const made = await Promise.all(names.map((site) => of_(site).then(({ results }) => results[entry.kind].filter(({ title }) => title === entry.title).map((own) => draw(entry.kind, own, { of: site, image: imageOf(site), isBeside: true })), (error) => [h("p", { class: "quiet" }, `${site}: ${error.message}`)])));
      if (isClosed) return;
      fill(beside, made.flat());
      show(more, false);
    }
    if (entry.all_sites <= BESIDE) open();
    const rest = entry.all_sites > names.length ? ` The first ${count(names.length)} of ${counted(entry.all_sites, "site")}; choose another one above.` : "";
    return h("section", {}, h("h3", {}, titleOf(entry.kind, entry)), h("p", { class: "quiet" }, `${KINDS[entry.kind]} by site${NEVER.has(entry.kind) ? "" : `: ${entry.why}`}.${rest}`), more, beside);
  }

  return {
    node: part.node,
    /** Takes the evaluations that there are, the newest first. */
    choices(next) {
      rows = next.filter((row) => row.evaluation !== CENTRAL);
      fill(which, rows.map((row) => h("option", { value: keyOf(row) }, nameOf(row))));
      this.mark();
    },
    mark() {
      const row = each && rows.find((other) => isSame(other, each));
      which.value = row ? keyOf(row) : "";
      show(which, rows.length);
    },
    /** Shows the report of this evaluation. */
    of(next) {
      if (next.evaluation === CENTRAL || (each && keyOf(each) === keyOf(next))) return;
      each = { ...next }; // what the page follows is changed in place
      found = null;
      sites = new Map();
      this.mark();
      part.command(command());
      read();
    },
    /** Goes to the report. */
    show() {
      attr(part.node, "tabindex", "-1");
      part.node.scrollIntoView({ block: "start" });
      part.node.focus({ preventScroll: true });
    },
    close() {
      isClosed = true;
      seen.disconnect();
      clearTimeout(timer);
    },
  };
}
