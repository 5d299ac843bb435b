// All runs: one row each, with the sentence that says how it stands.

import { attr, fill, framed, h, keyed, show, text } from "../dom.js";
import { count, counted, duration, full, isIn, metric, notCompared, ofSites } from "../format.js";
import { since } from "../clock.js";
import { Live } from "../live.js";
import { command, filter, lesson, restate, state } from "../panel.js";
import { named } from "../said.js";
import { spark } from "../spark.js";
import { isBroken, isOver as hasEnded, needs, runOf, stateOf } from "../words.js";

const rank = (run) => (isBroken(run) ? 0 : needs(run) ? 1 : run.state === "running" ? 2 : run.state === "waiting" ? 3 : run.state === "failed" ? 4 : 5);
const order = (a, b) => rank(a) - rank(b) || (b.ended_ms ?? b.created_ms ?? 0) - (a.ended_ms ?? a.created_ms ?? 0) || a.run.localeCompare(b.run);

export function open(shell) {
  const heading = h("h1", {}, "Runs");
  const sum = h("p", { class: "sum", "aria-live": "polite" });
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const chosen = new Set();
  const compare = h("a", { class: "button", href: "/compare", hidden: true });
  const find = filter("Filter runs", (words) => {
    wanted = words;
    draw();
  });
  const list = h("ul", { class: "runs" });
  const empty = h("div", { hidden: true });
  const node = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, heading, sum, h("div", { class: "tools" }, find, compare)),
    problem,
    list,
    empty,
    h("p", { class: "foot" }, "In a terminal: ", h("code", {}, "flavor status")),
  );
  let runs = null;
  let wanted = "";
  let kept = [];
  let had = false; // whether this page has shown runs

  /** The order is that of the first look: a row stays where it is, and new runs come first. */
  function ordered() {
    const all = Object.values(runs);
    const names = new Set(all.map((run) => run.run));
    const known = new Set(kept);
    kept = [...all.filter((run) => !known.has(run.run)).sort(order).map((run) => run.run), ...kept.filter((name) => names.has(name))];
    return kept.map((name) => runs[name]);
  }

  const draw = framed(() => {
    if (runs === null) return;
    const all = ordered();
    const seen = all.filter((run) => !wanted || `${run.run} ${run.state} ${run.sentence ?? ""}`.toLowerCase().includes(wanted));
    keyed(list, seen, (run) => run.run, (run) => row(run, chosen, chose));
    const going = all.filter((run) => run.state === "running" || run.state === "waiting");
    const held = all.filter(needs);
    const parts = [`${counted(going.length, "run")} in progress`, `${count(all.filter(hasEnded).length)} ended`];
    for (const word of ["damaged", "lost"]) {
      const number = all.filter((run) => run.state === word).length;
      if (number) parts.push(`${count(number)} ${word}`);
    }
    if (held.length) parts.unshift(`${counted(held.length, "run")} ${held.length === 1 ? "needs" : "need"} attention`);
    text(sum, all.length ? parts.join(" · ") : "");
    show(empty, !seen.length);
    if (!all.length) teach(empty, had);
    else if (!seen.length) fill(empty, lesson("No run has these words", "Esc empties the filter."));
    had ||= all.length > 0;
    show(find, all.length > 1);
    list.classList.toggle("one", all.length < 2);
  });

  function chose() {
    const names = [...chosen];
    show(compare, names.length > 1);
    text(compare, `Compare ${names.length} runs`);
    attr(compare, "href", `/compare?runs=${names.map(encodeURIComponent).join(",")}`);
  }

  const live = new Live(null, {
    document(found) {
      runs = { ...(found.runs ?? found) };
      for (const [name, run] of Object.entries(runs)) {
        if (run === null || typeof run !== "object") delete runs[name];
        else run.run ??= name;
        if (run?.folder) isIn(name, run.folder);
      }
      draw();
    },
    problem(line) {
      show(problem, line);
      text(problem, line ? `! ${line}. The page goes on by itself once Redis is back; what it shows is from before.` : "");
    },
    state: (told) => shell.state(told),
  });
  return { node, tick: draw, close: () => live.close() };
}

function teach(node, had) {
  if (node.firstChild?.dataset?.teaches === String(had)) return;
  const taught = lesson(
    had ? "The runs that were here are not on this Redis any more" : "No run has begun on this Redis",
    "A run on this machine, with three sites and your own training script:",
    command('flavor run -m "python main.py" --edges 3 --rounds 5'),
    "Or see it with handwritten digits:",
    command("flavor demo --ui"),
    "Or a run for sites elsewhere, with an aggregator beside it:",
    command("flavor serve --run mammo --rounds 50 --min-clients 3 --store s3://models/fl\nflavor-agg --store s3://models/fl"),
    "A run appears here by itself.",
  );
  taught.dataset.teaches = String(had);
  fill(node, taught);
}

function row(first, chosen, chose) {
  const name = first.run;
  const box = h("input", { type: "checkbox", "aria-label": `Compare ${name}`, on: { change: () => (box.checked ? chosen.add(name) : chosen.delete(name), chose()) } });
  const said = state(runOf(first.state));
  const link = h("a", { class: "name", href: `/run/${encodeURIComponent(name)}` }, name);
  const round = h("span", { class: "round" });
  const done = h("span", {});
  const bar = h("span", { class: "bar", "aria-hidden": "true" }, done);
  const sites = h("span", { class: "sites" });
  const value = h("span", { class: "value" });
  const best = h("span", { class: "best" });
  const curve = spark(120, 28);
  const age = h("time", { class: "age" });
  const sentence = h("p", { class: "sentence" });
  const node = h(
    "li",
    { class: "run" },
    h("div", { class: "who" }, box, link, said),
    h("div", { class: "progress" }, round, bar),
    sites,
    h("div", { class: "metric" }, h("span", {}, value, best), curve.node),
    age,
    sentence,
  );
  return {
    node,
    update(run) {
      const isOver = Boolean(run.ended_ms);
      node.className = needs(run) || run.state === "failed" ? "run needs" : "run";
      restate(said, stateOf(run));
      text(round, run.round ? `round ${count(run.round)} of ${count(run.rounds)}` : run.rounds ? `${counted(run.rounds, "round")} to come` : "");
      const closed = isOver && run.state === "finished" ? run.round : Math.max(0, (run.round ?? 0) - (run.round_state === "closed" ? 0 : 1));
      done.style.width = `${run.rounds ? (100 * closed) / run.rounds : 0}%`;
      text(sites, siteWords(run, isOver));
      text(value, run.metric && Number.isFinite(run.value) ? `${named(run.metric)} ${metric(run.value)}${ofSites(...(run.value_of ?? []))}` : "");
      const top = typeof run.best === "object" ? run.best?.value : run.best;
      text(best, Number.isFinite(top) ? `best ${metric(top)}${ofSites(run.best.sites, run.best.contributors)}` : "");
      attr(best, "title", notCompared(run.best) || null);
      curve.update(run.spark ?? []);
      const ago = since(isOver ? run.ended_ms : run.created_ms);
      text(age, ago === null ? "" : isOver ? `ended ${duration(ago)} ago, took ${duration(run.took_s)}` : `began ${duration(ago)} ago`);
      attr(age, "title", full(isOver ? run.ended_ms : run.created_ms));
      const waited = since(run.since_ms);
      const lines = [...(isOver ? [] : (run.absent ?? [])), run.sentence];
      text(sentence, lines.filter((line, i) => line && lines.indexOf(line) === i).join(" · ") + (waited > 5 && !isOver ? `, for ${duration(waited)}` : ""));
      attr(sentence, "title", run.sentence?.length > 160 ? run.sentence : null);
    },
  };
}

function siteWords(run, isOver) {
  const number = typeof run.clients === "object" ? Object.keys(run.clients ?? {}).length : run.clients;
  if (!Number.isFinite(number)) return "";
  const parts = [isOver || run.alive === number || !Number.isFinite(run.alive) ? counted(number, "site") : `${count(run.alive)} of ${counted(number, "site")} alive`];
  if (run.refused) parts.push(`${count(run.refused)} refused`);
  if (run.quarantined) parts.push(`${count(run.quarantined)} quarantined`);
  return parts.join(", ");
}

