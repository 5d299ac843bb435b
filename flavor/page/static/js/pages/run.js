// One run: how it stands in sentences, and below them its rounds, sites, model and events.

import { fill, framed, h, show } from "../dom.js";
import { get, of } from "../api.js";
import { isIn } from "../format.js";
import { Live } from "../live.js";
import { command, lesson } from "../panel.js";
import { contributions } from "../parts/contributions.js";
import { curves } from "../parts/curves.js";
import { events } from "../parts/events.js";
import { judged } from "../parts/judged.js";
import { provenance } from "../parts/provenance.js";
import { sentence } from "../parts/sentence.js";
import { settings } from "../parts/settings.js";
import { sites } from "../parts/sites.js";
import { strip } from "../parts/strip.js";
import { workers } from "../parts/workers.js";

export function open(shell, name) {
  const head = sentence(name);
  const rounds = strip(name);
  const model = curves(name, { heard: () => table.curved() });
  const table = sites(name, { curve: model });
  const results = judged(name);
  const log = events(name);
  const more = h("div", { class: "more-panels" });
  const parts = h("div", { class: "panels" }, rounds.node, table.node, model.node, log.node, more);
  const absent = h("div", { hidden: true });
  const node = h("div", { class: "page run-page" }, head.node, absent, parts);
  let doc = null;
  let how = { live: false, since: null, missing: "", asOf: null };
  let unread = false; // whether Redis answers, and this run alone cannot be read
  let closed = 0;
  let asking = false;
  let queue = null;
  let timer = 0;
  let isClosed = false;
  let shown = false; // for benchmarks: when the run is on the page
  show(head.node, false);
  show(parts, false);

  /** Writes the commands below the panels anew: the run is called otherwise, or a panel has come. */
  const again = () => node.querySelectorAll("footer.foot code").forEach((code) => code.again?.());

  const draw = framed(() => {
    if (!doc || isClosed) return;
    show(head.node, true);
    show(absent, false);
    show(parts, true);
    if (!shown) performance.mark("flavor-shown");
    shown = true;
    head.update(doc);
    rounds.update(doc);
    table.update(doc);
    model.update(doc);
    const isJudged = doc.evaluation || doc.central || doc.evaluating_central?.length || doc.not_judged?.length;
    if (isJudged && !results.nodes[0].isConnected) {
      log.node.after(...results.nodes);
      again();
    }
    results.update(doc);
    shell.title(`${doc.round ? `${doc.round}/${doc.rounds} ` : ""}${name}`);
    const newest = doc.round - (doc.round_state === "closed" ? 0 : 1);
    if (newest > closed) catchUp();
    if (!queue) rest();
    queue.update(doc);
  });

  /** Reads the rounds that have closed since, at most once a second. */
  async function catchUp() {
    if (asking) return;
    asking = true;
    try {
      const found = await get(of(name, "rounds"), { after: closed || "" });
      const rows = Array.isArray(found) ? found : found.rounds;
      if (rows.length) rounds.add(rows);
      closed = Math.max(closed, rounds.newest());
      model.names([...new Set(rows.slice(-20).flatMap((row) => Object.keys(row.metrics ?? {})))].map((word) => word.replace(/ \(weighted\)$/, "")).filter((word) => !/confusion/i.test(word)));
    } catch {
      // the stream says why, and the next change asks again
    }
    timer = setTimeout(() => {
      asking = false;
      draw();
    }, 1000);
  }

  /** What lies below the fold is read once it is near. */
  function rest() {
    queue = workers(name);
    const below = [contributions(name), settings(name), provenance(name)];
    more.append(queue.node, ...below.map((part) => part.node));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        below.find((part) => part.node === entry.target)?.open();
        seen.unobserve(entry.target);
      }
    }, { rootMargin: "200px" });
    for (const part of below) seen.observe(part.node);
  }

  const live = new Live(name, {
    document(found) {
      if (doc && found.run_id !== doc.run_id) location.reload(); // another run has this name now
      doc = found;
      if (isIn(name, found.folder ?? "")) again();
      draw();
    },
    log: (entries) => log.add(entries),
    problem(line, isAway) {
      head.problem(line, { isAway });
      unread = Boolean(line) && !isAway;
      shell.state({ ...how, unread });
      show(head.node, true);
    },
    state(told) {
      how = { ...told, over: Boolean(doc?.ended_ms) };
      shell.state({ ...how, unread });
      if (!told.live && !doc) why();
      else if (told.missing) head.problem(told.missing);
    },
  });

  /** A stream that does not begin says no more than that: the document says why. */
  async function why() {
    try {
      await get(of(name));
    } catch (error) {
      if (isClosed || doc || !error.status) return;
      show(absent, true);
      const isLost = error.status === 404 && error.message.startsWith("Redis has lost");
      const why = error.status !== 404 ? (error.hint ?? "") : isLost ? error.message : "It has another name, was removed with `flavor rm`, or is on another Redis. A run that begins appears here by itself.";
      fill(absent, lesson(error.status === 404 ? `There is no run ${name}` : error.message, why, command("flavor status"), h("p", {}, h("a", { href: "/" }, "All runs"))));
    }
  }

  return {
    node,
    tick() {
      head.tick();
      rounds.tick();
      table.tick();
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
      live.close();
      for (const part of [rounds, table, model, results, queue]) part?.close();
    },
  };
}
