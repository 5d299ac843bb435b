// Above the fold: how the run stands, in sentences. What it waits for is the sentence of the log and `flavor status`.

import { attr, h, keyed, show, text } from "../dom.js";
import { called, clock, count, counted, duration, full, lap, meanOf, metric, notCompared, ofSites, reported, some } from "../format.js";
import { now, openFor, since } from "../clock.js";
import { restate, state } from "../panel.js";
import { named } from "../said.js";
import { byAsked, goesOn, modelOf, phaseOf, runOf, stateOf } from "../words.js";
import { shareOf } from "./sites.js";

const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** What a site is doing in the round, in the words of a sentence. */
const DOING = {
  downloading: "to fetch the global model",
  training: "to finish training",
  uploading: "to send its update",
  starting: "to start",
};

const MANY = 5; // more sites than these, the sentence does not name each
const LOST = new Set(["failed", "gone", "stopped", "quarantined"]);

export function sentence(name) {
  const said = state(runOf(null));
  const round = h("span", { class: "round" });
  const bar = h("span", {});
  const times = h("span", { class: "times" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const todo = h("ul", { class: "todo" });
  const waits = h("p", { class: "waits", "aria-live": "polite" });
  const lasts = h("span", { class: "lasts" });
  const says = h("div", { class: "says" }, waits, lasts);
  const more = h("p", { class: "more" });
  const gains = h("p", { class: "more gains" });
  const judged = h("p", { class: "more judged-line" });
  const node = h(
    "header",
    { class: "stand" },
    h("div", { class: "title" }, h("h1", {}, name), said, round, times),
    h("span", { class: "bar wide", "aria-hidden": "true" }, bar),
    problem,
    todo,
    says,
    more,
    gains,
    judged,
  );
  let doc = null;

  function tick() {
    if (doc === null) return;
    const over = Boolean(doc.ended_ms) || ["finished", "failed", "stopped"].includes(doc.state);
    const begun = since(doc.created_ms);
    const left = Number.isFinite(doc.ends_ms) && !(now() > doc.holds_ms) ? Math.max((doc.ends_ms - now()) / 1000, doc.later_s ?? 0) : null;
    const parts = [];
    if (over && doc.ended_ms) parts.push(`took ${duration(doc.took_s)}`, `ended ${duration(since(doc.ended_ms))} ago`);
    else if (begun !== null) parts.push(`began ${duration(begun)} ago`);
    if (!over && left >= 1) parts.push(`about ${duration(left)} left`);
    text(times, parts.join(" · "));
    attr(times, "title", [full(doc.created_ms), full(doc.ended_ms)].filter(Boolean).join(" – "));
    const waited = over ? null : since(doc.since_ms);
    text(lasts, waits.textContent ? (waited >= 5 ? `, for ${duration(waited)}.` : /[.!?…]$/.test(waits.textContent) ? "" : ".") : "");
    attr(lasts, "title", over ? null : full(doc.since_ms));
    text(more, over ? again(doc) : [slowest(doc), closes(doc), without(doc)].filter(Boolean).join(" "));
    show(more, more.textContent);
  }

  return {
    node,
    tick,
    /** Says why there is nothing newer: Redis is away, or what Redis has of this run cannot be read. */
    problem(line, { isAway = true } = {}) {
      const below = doc === null ? "" : "; what it shows below is from before";
      show(problem, line);
      text(problem, line ? `! ${capital(line)}. The page goes on by itself once ${isAway ? "it is back" : "the run can be read"}${below}.` : "");
      if (doc === null) restate(said, runOf(line && !isAway ? "damaged" : null));
    },
    update(next) {
      doc = next;
      const over = ["finished", "failed", "stopped"].includes(doc.state);
      restate(said, stateOf(doc));
      text(round, doc.round ? `round ${count(doc.round)} of ${count(doc.rounds)}` : `${counted(doc.rounds, "round")} to come`);
      const closed = Math.max(0, doc.round - (doc.round_state === "closed" ? 0 : 1));
      bar.style.width = `${doc.rounds ? (100 * closed) / doc.rounds : 0}%`;
      const missing = over ? [] : (doc.absent ?? []);
      const lines = missing.filter((line) => line !== doc.waits_for);
      says.classList.toggle("lacking", (!over && Boolean(doc.held)) || missing.length > lines.length);
      lines.push(...(doc.not_judged ?? []).map((each) => each.sentence));
      keyed(todo, lines, (line) => line, (line) => ({ node: h("li", {}, h("span", { class: "mark", "aria-hidden": "true" }, "! "), capital(line)) }));
      const main = over ? doc.reason || `the run ${doc.state === "failed" ? "has failed" : `is ${doc.state}`}` : doc.waits_for || "";
      const where = !over && doc.round && doc.round_state !== "closed" ? `Round ${doc.round}: ${main}` : capital(main);
      text(waits, main ? where.replace(/\.$/, "") : "");
      text(gains, model(doc, over));
      show(gains, gains.textContent);
      text(judged, evaluations(doc));
      show(judged, judged.textContent);
      tick();
    },
  };
}

/** `Waiting for site-3 to finish training (61 %; it usually takes 9 min, now 14).` */
function slowest(doc) {
  if (doc.round_state !== "open") return "";
  const awaited = Object.entries(doc.clients ?? {}).filter(([, client]) => client.this_round === "pending" && client.alive);
  if (!awaited.length || awaited.length === Object.keys(doc.clients).length) return "";
  const late = ([, client]) => 1 / (client.median_s || Infinity); // the one with the shortest usual time is the latest
  const [name, client] = awaited.reduce((one, two) => (late(two) > late(one) ? two : one));
  const doing = client.doing ?? client.phase;
  if (awaited.length === 1) return `Waiting for ${name} ${DOING[doing] ?? "to hand in"} ${usual(doc, client)}.`;
  const who = awaited.length > 3 ? `${count(awaited.length)} sites` : some(awaited.map(([each]) => each));
  const at = openFor(doc);
  if (!(at > client.median_s)) return `Waiting for ${who} (now ${lap(at)}).`; // none is late
  return `Waiting for ${who}; latest by its own measure is ${name}, ${phaseOf(doing).word} ${usual(doc, client)}.`;
}

/** `Without site-5 (gone).`: the sites that are lost to the run and that what it waits for does not name. */
function without(doc) {
  const named = new Set((doc.waits_for ?? "").split(/[^\w.-]+/).map((word) => word.replace(/[.-]+$/, "")));
  const all = Object.entries(doc.clients ?? {}).filter(([, client]) => LOST.has(client.phase));
  const lost = all.filter(([name]) => !named.has(name));
  if (all.length > MANY && lost.length < all.length) return ""; // the sentence names some, and says how many they are
  return lost.length ? `Without ${some(lost.map(([name, client]) => `${name} (${phaseOf(client.phase).word})`))}.` : "";
}

function usual(doc, client) {
  const at = openFor(doc);
  const part = shareOf(client).share;
  const share = part === null ? "" : `${Math.floor(100 * part)} %, `;
  return Number.isFinite(client.median_s) ? `(${share}it usually takes ${lap(client.median_s)}, now ${lap(at)})` : `(${share}now ${lap(at)})`;
}

/** `Model: val_auc 0.941, reported in round 11; the best was 0.945, reported in round 9, which began from the model of round 8 (…).` */
function model(doc, over) {
  const { best, last_round: last, metric: name } = doc;
  const value = last?.metrics?.[name];
  if (!name || !Number.isFinite(value)) return "";
  const mean = doc.evaluation ? meanOf(name, last.sites?.[name] ?? last.contributors, "weighted") : "";
  const said = `Model: ${named(name)} ${metric(value)}${mean}${ofSites(last.sites?.[name], last.contributors)}`;
  if (!best || best.metric !== name) return `${said}, reported in round ${count(last.round)}.`;
  const get = best.round > 1 ? ` (flavor get ${called(doc.run)} --round ${best.round - 1})` : "";
  const where = `${reported(best.round)}${get}`;
  const few = best.rounds < last.round ? ` of the ${counted(best.rounds, "round")} that can be read` : "";
  const lacks = notCompared(best) && `; ${notCompared(best)}`;
  if (best.round === last.round) return `${said}, ${few ? `the best${few}` : over ? "the best of all rounds" : "the best so far"}, ${where}${lacks}.`;
  return `${said}, reported in round ${count(last.round)}; the best${few} was ${metric(best.value)}${ofSites(best.sites, best.contributors)}, ${where}${lacks}.`;
}

/** `flavor run --resume FOLDER goes on with it.`, of a run that could go on. */
const again = (doc) => (["failed", "stopped"].includes(doc.state) ? `${goesOn(doc.run)} goes on with it.` : "");

/** `Judging the model of round 6: site-1 has handed in, site-2 is awaited. Judged: accuracy 0.91 …`: by the run itself, and then what a command has asked since. */
function evaluations(doc) {
  const parts = (doc.evaluating ?? []).map((each) => {
    const is = (names, one, several) => names.length && `${some(names)} ${names.length === 1 ? one : several}`;
    const told = each.merging ? "an aggregator merges the results" : [is(each.in, "has handed in", "have handed in"), is(each.awaited, "is awaited", "are awaited")].filter(Boolean).join(", ");
    return `Judging ${modelOf(each)}: ${told}.`;
  });
  const now = doc.evaluating_central ?? [];
  if (now.length) parts.push(`Judging ${now.length === 1 ? modelOf({ round: now[0] }) : `the models of rounds ${some(now.map(count))}`} on the operator's own data.`);
  parts.push(...[doc.automatic, doc.evaluation].filter(Boolean).map(judged));
  const own = doc.central;
  const value = Object.entries(own?.metrics ?? {})[0];
  if (own) parts.push(`On the operator's own data: ${value ? `${named(value[0].replace(/^central\//, ""))} ${metric(value[1])}` : "no metrics"}, ${modelOf(own)}.`);
  const best = doc.selected;
  if (best) parts.push(`Best model by --select: that of round ${count(best.round)}, ${named(best.metric)} ${metric(best.value)}${meanOf(best.metric, best.sites)}${best.metric.startsWith("central/") ? "" : ` by ${counted(best.sites, "site")}`} (flavor get ${called(doc.run)} --round best).`);
  return parts.join(" ");
}

/** `Judged: accuracy 0.91 (plain mean) by 3 of 4 sites, the model of round 5; without site-4.` */
function judged(found) {
  const of = found.metrics[found.metric];
  const isMean = Number.isFinite(of?.plain_mean);
  const word = isMean ? found.metric : `pooled/${found.metric}`;
  const value = of ? `${named(word)} ${metric(isMean ? of.plain_mean : of.pooled)}${meanOf(word, of.sites)}${ofSites(of.sites, found.sites)}` : "no metrics";
  const by = found.sites < found.expected ? `${count(found.sites)} of ${counted(found.expected, "site")}` : counted(found.sites, "site");
  const without = Object.keys(found.missing ?? {});
  return `Judged: ${value} by ${by}${byAsked(found)}, ${modelOf(found)}${without.length ? `; without ${some(without)}` : ""}.`;
}

/** `Closes with 3 of 4 sites at 13:20, or when all are in.`; of an asynchronous run `Closes with the first 3 updates of 4 sites; …` */
function closes(doc) {
  if (doc.round_state !== "open" || !Number.isFinite(doc.deadline_ms)) return "";
  const left = (doc.deadline_ms - now()) / 1000;
  const when = left > 0 ? `at ${clock(doc.deadline_ms, { seconds: left < 600 })} (in ${duration(left)})` : "now: its deadline has passed";
  const can = Object.values(doc.clients ?? {}).filter((client) => ["accepted", "submitted", "pending"].includes(client.this_round)).length;
  if (can < doc.needed) return ""; // it does not close with these
  if (doc.closes_early && doc.needed < doc.expected) return `Closes with the first ${counted(doc.needed, "update")} of ${counted(doc.expected, "site")}; the deadline is ${when}.`;
  const sites = `${count(doc.needed)} of ${counted(doc.expected, "site")}`;
  return doc.needed < doc.expected ? `Closes with ${sites} ${when}, or when all are in.` : `Closes when all ${counted(doc.expected, "site")} are in; the deadline is ${when}.`;
}
