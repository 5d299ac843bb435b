// Runs beside each other: one metric, and what they have in common and what not.

import { attr, fill, h, keyed, show, text } from "../dom.js";
import { count, counted, duration, metric, notCompared, ofSites } from "../format.js";
import { get, of } from "../api.js";
import { chart } from "../chart.js";
import { command, lesson, panel, state } from "../panel.js";
import { Live } from "../live.js";
import { shown } from "../parts/settings.js";
import { named } from "../said.js";
import { runOf } from "../words.js";

const MOST = 8;
const AGAIN_MS = 2000;
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [4, 4], [12, 4], [1, 4], [6, 2, 1, 2]];
const TONES = ["--first", "--second", "--ink", "--soft"];

export function open(shell, _, query) {
  shell.title("Compare");
  let chosen = (query.get("runs") ?? "").split(",").filter(Boolean).slice(0, MOST);
  let name = query.get("metric") ?? "";
  let lacking = ""; // a metric that was asked for, and that no run has yet
  let all = [];
  let found = [];
  let offered = [];
  let asked = 0;
  let seen = "";
  let timer = 0;
  const pick = h("div", { class: "choices wrap", role: "group", "aria-label": "Runs to compare" });
  const choose = h("select", { "aria-label": "Metric", on: { change: () => ((name = choose.value), (lacking = ""), address(), read()) } });
  const log = h("input", { type: "checkbox", on: { change: () => plot.log(log.checked) } });
  const reset = h("button", { type: "button", hidden: true, on: { click: () => plot.reset() } }, "All rounds");
  const part = panel("Metric", { name: "model" });
  part.tools.append(choose, h("label", { class: "check" }, log, "log axis"), reset);
  const line = h("p", { class: "pointed" });
  const legend = h("p", { class: "legend" });
  const axis = h("p", { class: "axis", role: "status", hidden: true });
  const plot = chart({ zoomed: (is) => show(reset, is), told, lacks: (words) => (text(axis, words), show(axis, words)) });
  part.body.append(plot.node, h("div", { class: "under" }, line, legend), axis);
  const table = panel("What is the same, and what is not", { name: "differences" });
  const empty = h("div", {});
  const node = h("div", { class: "page" }, h("h1", {}, "Compare runs"), pick, empty, part.node, table.node);
  show(part.node, false);
  show(table.node, false);

  /** What changes when a round of a chosen run closes, or the run ends. */
  const standing = (runs) => chosen.map((run) => [runs[run]?.state, runs[run]?.round, runs[run]?.round_state, runs[run]?.value].join()).join(";");

  const live = new Live(null, {
    document(runs) {
      const stands = `${chosen} ${standing(runs)}`;
      if (seen.startsWith(`${chosen} `) && stands !== seen) later();
      seen = stands;
      const names = Object.keys(runs).sort();
      const now = names.join("\n");
      if (now === all.join("\n")) return;
      all = names;
      buttons();
    },
    state: (told) => shell.state(told),
  });

  function buttons() {
    keyed(pick, all, (run) => run, (run) => {
      const node = h("button", { type: "button", on: { click: () => toggle(run) } }, run); // kept: it may have the focus
      return { node, update: () => attr(node, "aria-pressed", String(chosen.includes(run))) };
    });
    teach();
  }

  function toggle(run) {
    chosen = chosen.includes(run) ? chosen.filter((each) => each !== run) : [...chosen, run].slice(-MOST);
    offered = [];
    address();
    buttons();
    read();
  }

  function address() {
    const asked = new URLSearchParams({ runs: chosen.join(",") });
    if (name) asked.set("metric", name);
    history.replaceState(null, "", `/compare?${asked}`);
  }

  function teach() {
    fill(empty, chosen.length ? [] : lesson(all.length > 1 ? "Choose two runs or more" : all.length ? "There is no other run to compare" : "There is no run to compare yet", all.length > 1 ? "Their curves are drawn over each other, and their settings stand side by side." : all.length ? "This page knows one run. `flavor ui` shows all runs of one Redis server: give local runs the same `flavor run --redis-url`." : "", all.length ? [] : command("flavor demo")));
  }

  /** Reads again what has changed, at most once in two seconds. */
  function later() {
    timer ||= setTimeout(() => {
      timer = 0;
      read();
    }, AGAIN_MS);
  }

  async function read() {
    const mine = chosen.slice();
    const turn = ++asked;
    const curve = (run) => get(of(run, "curves"), { ...(name ? { metric: name } : {}), sites: "," }).catch(() => null);
    const answers = await Promise.allSettled(mine.map(async (run) => ({ run, doc: await get(of(run)), settings: await get(of(run, "settings")).catch(() => ({})), curve: await curve(run) })));
    const runs = answers.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
    const missing = answers.flatMap((each, i) => (each.status === "rejected" ? [`${mine[i]}: ${each.reason.message}`] : []));
    // those of all rounds: the newest one may lack the metric
    const names = [...new Set([...offered, ...runs.flatMap(({ doc, curve }) => [doc.metric, ...Object.keys(doc.last_round?.metrics ?? {}), ...(curve?.metrics ?? [])])])].filter(Boolean);
    if (turn !== asked) return;
    offered = names;
    if (name && names.length && !names.includes(name)) lacking = name;
    const other = names.includes(lacking) ? lacking : name && name !== lacking ? name : (names[0] ?? "");
    if (other === lacking) lacking = "";
    if (lacking) missing.push(`No run here has the metric ${named(lacking)}: the page shows ${named(other)}.`);
    if (names.join() !== [...choose.options].map((option) => option.value).join()) fill(choose, names.map((word) => h("option", { value: word }, named(word))));
    if (other !== name) {
      name = other;
      for (const each of runs) each.curve = name ? await curve(each.run) : null;
      if (turn !== asked) return; // another choice of runs or of the metric
    }
    choose.value = name;
    show(choose, names.length > 1);
    found = runs;
    draw(missing);
  }

  function draw(missing) {
    show(part.node, found.length);
    show(table.node, found.length);
    part.say(named(name));
    const curves = found.filter((each) => each.curve?.rounds.length);
    const rounds = [...new Set(curves.flatMap(({ curve }) => curve.rounds))].sort((a, b) => a - b);
    const styles = curves.map((_, i) => ({ tone: TONES[i % TONES.length], dash: DASHES[i % DASHES.length], wide: 2 }));
    plot.set(
      curves.map(({ run }, i) => ({ label: run, ...styles[i] })),
      [rounds, ...curves.map(({ curve }) => {
        const by = new Map(curve.rounds.map((round, i) => [round, curve.weighted[i]]));
        return rounds.map((round) => by.get(round) ?? null);
      })],
    );
    show(plot.node, rounds.length);
    attr(plot.node, "role", "img");
    attr(plot.node, "aria-label", `${named(name)} of ${curves.map(({ run }) => run).join(", ")}`);
    fill(legend, curves.map(({ run }, i) => h("span", { class: "key" }, sample(styles[i]), run)));
    told(null);
    fill(table.body, missing.map((words) => h("p", { class: "care" }, words)), compared());
    table.command("flavor status --watch");
  }

  function told(index) {
    const curves = found.filter((each) => each.curve?.rounds.length);
    if (!curves.length) {
      text(line, "No run here has this metric yet.");
      return;
    }
    if (!Number.isInteger(index)) {
      const last = ({ run, curve }) => [run, curve.weighted.findLastIndex((value) => value !== null), curve];
      text(line, curves.map(last).map(([run, at, curve]) => `${run} ${metric(curve.weighted[at])}${at < 0 ? "" : ` in round ${count(curve.rounds[at])}`}`).join(" · "));
      return;
    }
    const rounds = [...new Set(curves.flatMap(({ curve }) => curve.rounds))].sort((a, b) => a - b);
    const round = rounds[index];
    text(line, [`round ${round}`, ...curves.map(({ run, curve }) => `${run} ${metric(curve.weighted[curve.rounds.indexOf(round)])}`)].join(" · "));
  }

  function compared() {
    const rows = [
      ["State", ({ doc }) => state(runOf(doc.state, doc.run)), ({ doc }) => doc.state],
      ["Round", ({ doc }) => `${doc.round} of ${doc.rounds}`],
      [`Best ${named(name)}`, ({ curve }) => (curve?.best ? `${metric(curve.best.value)}${ofSites(curve.best.sites, curve.best.contributors)}, reported in round ${count(curve.best.round)}${notCompared(curve.best) && `; ${notCompared(curve.best)}`}` : "–")],
      ["Model of the best", ({ curve }) => (!curve?.best ? "–" : curve.best.round > 1 ? `that of round ${count(curve.best.round - 1)}` : "the first")],
      [`Last ${named(name)}`, ({ curve }) => metric(curve?.weighted.findLast((value) => value !== null))],
      ["Took", ({ doc }) => (doc.ended_ms ? duration(doc.took_s) : "–")],
      ["Sites", ({ doc }) => counted(Object.keys(doc.clients ?? {}).length, "site")],
    ];
    const values = found.map(({ settings }) => Object.fromEntries((settings.settings ?? []).map((each) => [each.name, each.value])));
    const keys = [...new Set(values.flatMap((each) => Object.keys(each)))];
    const differ = keys.filter((key) => new Set(values.map((each) => shown(each[key]))).size > 1);
    const same = keys.filter((key) => !differ.includes(key));
    const line = (head, cells, css = "") => h("tr", { class: css }, h("th", { scope: "row" }, head), cells.map((cell) => h("td", { class: "text" }, cell)));
    return h(
      "div",
      { class: "tablebox" },
      h(
        "table",
        { class: "plain compare" },
        h("thead", {}, h("tr", {}, h("th", {}), found.map(({ run }) => h("th", { scope: "col", class: "text" }, h("a", { href: `/run/${encodeURIComponent(run)}` }, run))))),
        h("tbody", {}, rows.map(([head, cell]) => line(head, found.map(cell)))),
        differ.length ? h("tbody", {}, h("tr", {}, h("th", { class: "sub", colspan: found.length + 1, scope: "rowgroup" }, "Settings that differ")), differ.map((key) => line(key, values.map((each) => shown(each[key] ?? null)), "differs"))) : [],
        same.length && found.length > 1 ? h("tbody", {}, h("tr", {}, h("th", { class: "sub", colspan: found.length + 1, scope: "rowgroup" }, `The runs have the same ${differ.length ? "value" : "values"} of ${counted(same.length, differ.length ? "further setting" : "setting")}`))) : [],
      ),
    );
  }

  if (chosen.length) read();
  teach();
  return {
    node,
    close() {
      asked++;
      clearTimeout(timer);
      live.close();
      plot.close();
    },
  };
}

function sample({ tone, dash }) {
  const node = h("i", { class: "line", "aria-hidden": "true" });
  node.style.borderTopColor = `var(${tone})`;
  node.style.borderTopStyle = dash.length ? (dash[0] <= 3 ? "dotted" : "dashed") : "solid";
  return node;
}
