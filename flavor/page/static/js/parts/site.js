// What a row of the table opens into: all that is known of one site.

import { fill, h, show, text } from "../dom.js";
import { bytes, called, clock, count, counted, duration, earlier, hasFolder, inFolder, isCount, lap, metric, quoted } from "../format.js";
import { get, of } from "../api.js";
import { since } from "../clock.js";
import { facts } from "../panel.js";
import { named, said, term } from "../said.js";
import { meaningOf } from "../words.js";

const AGAIN_MS = 5000;

export function details(run, site) {
  const meaning = h("p", { class: "meaning" });
  const reason = h("p", { class: "reason", tabindex: "0" });
  const shared = h("p", { class: "reason shared", tabindex: "0" });
  const table = h("div", {});
  const rounds = h("div", {});
  const log = h("pre", { class: "log", tabindex: "0", "aria-label": `Last output of the script of ${site}` });
  const logHead = h("h4", {}, "Last output of its script");
  const node = h("div", { class: "details", role: "row" }, h("div", { role: "cell" }, meaning, reason, shared, h("div", { class: "columns" }, table, rounds), logHead, log, h("p", { class: "foot" }, "In a terminal: ", h("code", {}, `flavor log ${called(run)} --client ${quoted(site)}`))));
  let last = 0;
  let key = "";
  let asking = false;

  async function ask() {
    if (asking) return;
    asking = true;
    last = Date.now();
    try {
      told(await get(of(run, "clients", site)));
    } catch (error) {
      fill(rounds, h("p", { class: "quiet" }, error.message));
    }
    asking = false;
  }

  function told(found) {
    const rows = found.rounds.slice(0, 8).map((row) => {
      const begun = row.phases[0]?.[1];
      const end = row.phases.at(-1)?.[2];
      const took = begun && end ? (end - begun) / 1000 : null;
      const { outcome } = row;
      const words = [outcome === "refused" ? `refused: ${row.reason}` : Object.entries(row.metrics).filter(([name]) => !isCount(name)).slice(0, 3).map(([name, value]) => `${named(name)} ${metric(value)}`).join(", "), row.staleness ? earlier(row) : ""].filter(Boolean);
      return h("tr", {}, h("td", {}, count(row.round)), h("td", {}, outcome === "refused" ? "✕" : outcome === "accepted" ? "✓" : "–"), h("td", {}, lap(took)), h("td", {}, count(row.examples)), h("td", { class: outcome === "refused" ? "text todo" : "text" }, words.join(" · ")));
    });
    const refusals = found.events.filter((entry) => entry.event === "update.refused").slice(-5).reverse();
    fill(
      rounds,
      rows.length ? h("table", { class: "plain" }, h("caption", {}, "Its last rounds"), h("thead", {}, h("tr", {}, ["Round", "", "Took", "Examples", ""].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, rows)) : h("p", { class: "quiet" }, "No round of it is kept yet."),
      refusals.length ? [h("h4", {}, "Its last refusals"), h("ul", { class: "refusals" }, refusals.map((each) => h("li", {}, `${clock(each.time_ms)}, round ${count(each.round)}: ${each.reason}`)))] : [],
    );
    const words = found.log.join("\n");
    const atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 8;
    text(log, words || (hasFolder(run) ? `Its script has printed nothing yet, or its output is in ${inFolder(run, `clients/${site}/logs`)} alone.` : "The site shares no output. `flavor-fl --share-log 200` shares the last 200 lines."));
    log.classList.toggle("quiet", !words);
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  return {
    node,
    update(client, doc) {
      text(meaning, meaningOf(client.phase, run, site));
      text(reason, (client.phase === "done" ? "" : client.reason) || client.staleness);
      show(reason, reason.textContent);
      text(shared, client.report ? `It shares: ${said(client.report)}` : "");
      show(shared, client.report);
      const load = client.load;
      const gpus = load?.gpus;
      const seen = since(client.seen_ms);
      const isOver = ["finished", "failed", "stopped"].includes(doc.state);
      const rows = [
        ["State", isOver && ["joined", "ready"].includes(client.state) ? null : `${client.state}${client.alive !== false || isOver ? "" : ", without a sign of life"}`],
        ["Last seen", seen === null || isOver ? null : `${duration(seen)} ago`],
        ["Host", client.host],
        ["Versions", client.version],
        ["Round time", Number.isFinite(client.median_s) ? `${lap(client.median_s)} (median)${Number.isFinite(client.last_s) ? `, ${lap(client.last_s)} (last)` : ""}` : null],
        ["Sent / received", Number.isFinite(client.sent_bytes) ? `${bytes(client.sent_bytes)} / ${bytes(client.received_bytes)}${client.moved_since_ms ? ` since ${clock(client.moved_since_ms)}` : ""}` : null],
        ["Last update", Number.isFinite(client.update_bytes) ? bytes(client.update_bytes) : null],
        ["Examples", Number.isFinite(client.samples) ? count(client.samples) : null],
        ["CPU", load ? `${Math.round(load.cpu_percent)} %` : null],
        ["Memory", load ? `${bytes(load.used_bytes)} of ${bytes(load.total_bytes)}` : null],
        ["GPUs", gpus ? `${counted(gpus.number, "GPU")}, ${Math.round(gpus.percent)} %, ${bytes(gpus.used_bytes)} of ${bytes(gpus.total_bytes)}` : null],
        ["Its script says", client.reported ? saying(client.reported) : null],
        ["Last report", client.reported && client.reported_ms && !isOver ? `${duration(since(client.reported_ms))} ago` : null],
        ["Refused in a row", client.refused_in_a_row || null],
        ["Failure", term(client.failure)],
        ...Object.entries(client.metrics ?? {}).slice(0, 20).map(([name, value]) => [named(name), metric(value)]),
      ];
      const now = JSON.stringify(rows);
      if (now !== key) {
        key = now;
        fill(table, facts(rows));
      }
      if (node.isConnected && Date.now() - last > AGAIN_MS) ask();
    },
  };
}

function saying(reported) {
  const metrics = Object.entries(reported.metrics ?? {}).map(([name, value]) => `${term(name)} ${metric(value)}`);
  const done = reported.total ? `${reported.done} of ${reported.total}` : `${reported.done}`;
  return [done, ...metrics, said(reported.message)].filter(Boolean).join(", ");
}
