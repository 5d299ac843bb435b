// The table of sites: those that need attention first. Rows keep their places while one reads; numbers change in place.

import { attr, framed, h, keyed, show, text } from "../dom.js";
import { byName, bytes, called, count, counted, duration, full, hasFolder, lap, metric, moved } from "../format.js";
import { openFor, since } from "../clock.js";
import { List } from "../list.js";
import { filter, panel, restate, state } from "../panel.js";
import { named, said } from "../said.js";
import { spark } from "../spark.js";
import { meaningOf, phaseOf } from "../words.js";
import { details } from "./site.js";

const IN_SIGHT = 12;
const IDLE_MS = 120_000; // a screen that nobody has touched for so long sorts itself again
const OVER = new Set(["finished", "failed", "stopped"]);
const MOVING = new Set(["downloading", "training", "uploading"]);
const TRANSFERS = new Set(["downloading", "uploading"]);

/** What a site is doing, in the finest word that is known. */
export const doingOf = (client) => phaseOf(MOVING.has(client.doing) && client.phase === "training" ? client.doing : client.phase);

const HEADS = [
  ["site", "Site", "", (a, b) => byName(a.name, b.name)],
  ["state", "State", "Those that need attention come first.", null],
  ["seen", "Seen", "How long ago its edge gave a sign of life.", (a, b) => (a.client.seen_ms ?? 0) - (b.client.seen_ms ?? 0)],
  ["time", "Round (usual)", "How long it has been in this round, or took, and the median over its rounds. The time for which the run had ended does not count.", (a, b) => (b.client.median_s ?? b.client.last_s ?? 0) - (a.client.median_s ?? a.client.last_s ?? 0)],
  ["examples", "Examples", "The examples that its last accepted update was trained with.", (a, b) => (b.client.samples ?? 0) - (a.client.samples ?? 0)],
  ["moved", "Up / down", "What its edges have sent and received in this run, as they say: since the site joined it, flavor recover rebuilt it, or the site joined again after it was revoked.", (a, b) => (b.client.sent_bytes ?? 0) - (a.client.sent_bytes ?? 0)],
  ["metric", "Metric", "What it reported last, and its course. A value of an earlier round than others' names its round.", null],
];

export function sites(name, { curve }) {
  const part = panel("Sites", { name: "sites", command: () => `flavor status ${called(name)}` });
  const find = filter("Filter sites", (words) => {
    wanted = words;
    arrange();
  });
  const again = h("button", { type: "button", class: "again", hidden: true, on: { click: () => sort() } });
  part.tools.append(again, find);
  const groups = h("div", { class: "choices", role: "group", "aria-label": "Show" });
  const heads = HEADS.map(([key, word, tip, by]) => {
    const button = by || key === "state" ? h("button", { type: "button", "data-tip": tip || null, on: { click: () => order(key) } }, word) : h("span", { "data-tip": tip || null }, word);
    return h("div", { class: `cell ${key}`, role: "columnheader" }, button);
  });
  const header = h("div", { class: "row heads", role: "row" }, heads);
  const list = new List({ key: (item) => item, make: row, label: "Sites", role: "table" });
  const table = h("div", { class: "table", role: "table", "aria-label": "Sites" }, h("div", { role: "rowgroup", class: "headgroup" }, header), list.node);
  const empty = h("div", { class: "lesson" });
  part.body.append(groups, table, empty);
  const shownMetric = heads[6].firstChild;
  let doc = null;
  let places = []; // names in the order shown
  let lay = new Set(); // those that needed attention when they were sorted
  let wanted = "";
  let group = "";
  let by = "state";
  let touched = Date.now();
  let metricName = "";
  let newest = 0; // the newest round of which a value of the metric is shown
  const opened = new Map();
  for (const event of ["pointermove", "keydown", "wheel", "touchstart"]) document.addEventListener(event, touch, { passive: true });
  function touch() {
    touched = Date.now();
  }

  const isOver = () => OVER.has(doc.state);
  const rank = (client) => {
    const { rank } = phaseOf(client.phase);
    return rank + (client.phase === "training" && isSlow(client) ? -2 : 0);
  };
  const isSlow = (client) => Number.isFinite(client.median_s) && (openFor(doc) ?? 0) > 1.5 * client.median_s;
  const needs = (client) => !isOver() && phaseOf(client.phase).rank <= 3;

  function compare(a, b) {
    const head = HEADS.find(([key]) => key === by);
    const one = { name: a, client: doc.clients[a] };
    const two = { name: b, client: doc.clients[b] };
    return (head[3]?.(one, two) ?? rank(one.client) - rank(two.client)) || byName(a, b);
  }

  function order(key) {
    by = key;
    heads.forEach((head, i) => attr(head, "aria-sort", HEADS[i][0] === key ? "ascending" : null));
    sort();
  }

  function sort() {
    places = Object.keys(doc?.clients ?? {}).sort(compare);
    lay = new Set(places.filter((site) => needs(doc.clients[site])));
    show(again, false);
    list.node.scrollTop = 0;
    arrange();
  }

  const arrange = framed(() => {
    if (!doc) return;
    newest = Object.values(doc.clients).reduce((most, client) => (Number.isFinite(client.metrics?.[metricName]) ? Math.max(most, client.metrics_round ?? 0) : most), 0);
    const matches = (site) => {
      const client = doc.clients[site];
      if (!client || (group && !(group === "need attention" ? needs(client) : doingOf(client).word === group))) return false;
      return !wanted || `${site} ${client.host ?? ""} ${doingOf(client).word} ${client.reason ?? ""} ${client.staleness ?? ""} ${client.version ?? ""}`.toLowerCase().includes(wanted);
    };
    const seen = wanted || group ? places.filter(matches) : places;
    attr(table, "aria-rowcount", seen.length + 1);
    list.node.classList.toggle("few", seen.length <= 12);
    list.node.style.setProperty("--rows", seen.length);
    list.set(seen);
    show(table, places.length);
    const none = !seen.length;
    show(empty, none);
    if (none) text(empty, places.length ? "No site matches. Esc empties the filter, and “all” shows all sites." : hasFolder(doc.run) ? "No site has joined yet: `flavor run` starts them." : "No site has joined yet. A site joins with `flavor-fl --join @FILE -m \"python main.py\"`; `flavor enroll` makes the token in FILE.");
  });

  function row(site) {
    const name = h("span", { class: "label", title: site.length > 12 ? site : null }, site);
    const toggle = h("button", { type: "button", class: "toggle", "aria-expanded": "false", on: { click: () => open(!opened.has(site)) } }, h("span", { class: "arrow", "aria-hidden": "true" }, "▸"), name);
    const stands = state(phaseOf(null));
    const since_ = h("span", { class: "lasts" });
    const bar = h("span", {});
    const track = h("span", { class: "bar", "aria-hidden": "true" }, bar);
    const why = h("span", { class: "why" });
    const cells = Object.fromEntries(HEADS.map(([key]) => [key, h("div", { class: `cell ${key}`, role: "cell", "data-head": HEADS.find(([k]) => k === key)[1] })]));
    const value = h("span", {});
    const of = h("span", { class: "of", hidden: true });
    const course = spark(72, 24);
    cells.site.append(toggle);
    cells.state.append(h("div", { class: "line" }, stands, since_, track), why);
    cells.metric.append(h("span", { class: "value" }, value, of), course.node);
    const line = h("div", { class: "row site" }, ...HEADS.map(([key]) => cells[key]));
    attr(line, "role", "row");
    const node = h("div", { class: "item", role: "presentation" }, line);
    const open = (is) => {
      attr(toggle, "aria-expanded", String(is));
      node.classList.toggle("opened", is);
      if (is && !node.details) {
        const part = opened.get(site) ?? details(doc.run, site);
        opened.set(site, part);
        node.details = part;
        node.append(part.node);
        part.update(doc.clients[site], doc);
        list.open(site, part.node);
      } else if (!is) {
        opened.get(site)?.node.remove();
        opened.delete(site);
        node.details = null;
        list.open(site, null);
      }
    };
    node.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && opened.has(site)) {
        open(false);
        toggle.focus();
      }
    });
    return {
      node,
      line,
      update() {
        const client = doc.clients[site];
        if (!client) return;
        if (opened.has(site) && !node.details) open(true);
        const over = isOver();
        const doing = doingOf(client);
        const tone = over && doc.state !== "failed" && doing.tone === "todo" && client.phase === "gone" ? "quiet" : doing.tone;
        const times = client.refused_in_a_row > 1 ? ` (${client.refused_in_a_row} times)` : "";
        restate(stands, { ...doing, tone, tip: doing.word === "failed" ? meaningOf(client.phase, doc.run, site) : doing.tip }, times);
        const part = shareOf(client);
        const lasts = over ? null : since(client.doing_ms);
        const silent_ = over || !part.isReport ? null : since(client.reported_ms);
        text(since_, [part.words, silent_ >= 10 ? `reported ${duration(silent_)} ago` : "", lasts >= 5 && doing.word !== "accepted" ? (part.words ? `began ${duration(lasts)} ago` : `for ${duration(lasts)}`) : ""].filter(Boolean).join(", "));
        attr(since_, "title", over ? null : full(client.doing_ms));
        show(track, part.share !== null);
        bar.style.width = `${100 * (part.share ?? 0)}%`;
        const reason = client.phase === "done" ? "" : (client.reason ?? "");
        const words = reason || client.staleness || said(client.reported?.message) || (client.warning ?? "");
        text(why, words);
        attr(why, "title", words.length > 60 ? words.slice(0, 1000) : null);
        const silent = since(client.seen_ms);
        text(cells.seen, over ? "–" : silent === null ? (client.alive ? "now" : "–") : silent < 2 ? "now" : duration(silent));
        attr(cells.seen, "title", full(client.seen_ms));
        const inRound = !over && doc.round_state === "open" && client.this_round === "pending";
        const took = inRound ? openFor(doc) : client.last_s;
        const usual = Number.isFinite(client.median_s) ? ` (${lap(client.median_s)})` : "";
        text(cells.time, Number.isFinite(took) ? lap(took) + usual : "–");
        cells.time.classList.toggle("care", inRound && isSlow(client));
        attr(cells.time, "data-tip", inRound && isSlow(client) ? "It takes more than one and a half times as long as usual." : null);
        text(cells.examples, count(client.samples));
        const [up, down] = [client.sent_bytes || client.update_bytes, client.received_bytes || null];
        text(cells.moved, Number.isFinite(down) ? `${bytes(up)} / ${bytes(down)}` : bytes(up));
        attr(cells.moved, "title", client.sent_bytes && client.moved_since_ms ? `since ${full(client.moved_since_ms)}` : null);
        const shown = client.metrics?.[metricName];
        text(value, metric(shown));
        const isOlder = Number.isFinite(shown) && client.metrics_round < newest;
        text(of, isOlder ? `round ${count(client.metrics_round)}` : "");
        show(of, isOlder);
        const past = curve.values(site);
        show(course.node, past);
        if (past) course.update(past.slice(-40));
        node.classList.toggle("needs", needs(client));
        node.details?.update(client, doc);
      },
    };
  }

  /** How many are in which state, as buttons that narrow the table. */
  function tally() {
    const counts = new Map([["", 0]]);
    let urgent = 0;
    for (const client of Object.values(doc.clients)) {
      counts.set("", counts.get("") + 1);
      const { word } = doingOf(client);
      counts.set(word, (counts.get(word) ?? 0) + 1);
      if (needs(client)) urgent++;
    }
    if (urgent) counts.set("need attention", urgent);
    if (group && !counts.has(group)) {
      counts.set(group, 0);
    }
    const words = [...counts].sort(([a], [b]) => Number(b === "") - Number(a === "") || Number(b === "need attention") - Number(a === "need attention") || a.localeCompare(b));
    show(groups, counts.get("") > 1);
    keyed(groups, words, ([word]) => word, ([word]) => {
      const node = h("button", { type: "button", on: { click: () => ((group = word === group ? "" : word), tally(), arrange()) } });
      return {
        node,
        update([, number]) {
          text(node, `${word || "all"} ${count(number)}`);
          attr(node, "aria-pressed", String(word === group));
          node.className = word === "need attention" ? "todo" : "";
        },
      };
    });
    const clients = Object.values(doc.clients);
    const alive = clients.filter((client) => client.alive).length;
    const isKnown = clients.every((client) => typeof client.alive === "boolean");
    const [up, down] = ["sent_bytes", "received_bytes"].map((way) => clients.reduce((sum, client) => sum + (client[way] ?? 0), 0));
    const all = isOver() || !isKnown ? counted(counts.get(""), "site") : `${count(alive)} of ${counted(counts.get(""), "site")} alive`;
    const since = doc.recovered_ms ? " since the run was rebuilt" : "";
    part.say(up || down ? `${all} · ${bytes(up)} up, ${bytes(down)} down in all${since}, as the sites say` : all);
    return urgent;
  }

  return {
    node: part.node,
    update(next) {
      const isFirst = doc === null;
      doc = next;
      doc.clients ??= {};
      metricName = curve.metric() || doc.metric || "";
      text(shownMetric, metricName ? named(metricName) : "Metric");
      const names = Object.keys(doc.clients);
      if (isFirst) {
        places = names.sort(compare);
        lay = new Set(places.filter((site) => needs(doc.clients[site])));
      } else {
        const known = new Set(places);
        const fresh = names.filter((site) => !known.has(site));
        if (fresh.length || places.length > names.length) places = [...places.filter((site) => Object.hasOwn(doc.clients, site)), ...fresh.sort(compare)];
      }
      tally();
      const urgent = places.filter((site, i) => i >= IN_SIGHT && needs(doc.clients[site]) && !lay.has(site)).length;
      const reads = !document.hidden && Date.now() - touched < IDLE_MS;
      if (urgent && by === "state" && !reads && !opened.size) sort();
      else {
        show(again, urgent);
        if (urgent) text(again, `↑ ${counted(urgent, "site")} below ${urgent === 1 ? "needs" : "need"} attention: sort again`);
      }
      arrange();
    },
    /** Draws the metric's course anew. */
    curved() {
      if (!doc) return;
      metricName = curve.metric() || doc.metric || "";
      text(shownMetric, metricName ? named(metricName) : "Metric");
      arrange();
    },
    tick: () => list.draw(),
    close() {
      for (const event of ["pointermove", "keydown", "wheel", "touchstart"]) document.removeEventListener(event, touch);
      list.close();
    },
  };
}

/** How far a site is, from what moves or what its script reports: a share from 0 to 1, and words. */
export function shareOf(client) {
  const transfer = client.transfer;
  if (transfer?.total_bytes) {
    const speed = Number.isFinite(transfer.bytes_s) ? `, ${bytes(transfer.bytes_s)}/s` : "";
    return { share: Math.min(1, transfer.done_bytes / transfer.total_bytes), words: `${moved(transfer.done_bytes, transfer.total_bytes)}${speed}` };
  }
  const reported = client.reported;
  const trains = ["training", "starting"].includes(client.phase) && !TRANSFERS.has(client.doing);
  if (!reported || !trains) return { share: null, words: "" };
  if (!reported.total) return { share: null, words: String(reported.done), isReport: true };
  const share = Math.min(1, reported.done / reported.total);
  return { share, isReport: true, words: `${Math.floor(100 * share)} % ${+reported.done.toPrecision(6)}/${+reported.total.toPrecision(6)}` };
}
