// One round, opened: what each site did when. Rows are drawn in sight only, the refused and the slowest first.

import { attr, fill, framed, h, show, text } from "../dom.js";
import { bytes, clock, counted, earlier, full, isCount, lap, metric } from "../format.js";
import { get, of } from "../api.js";
import { now } from "../clock.js";
import { List } from "../list.js";
import { failed } from "../panel.js";
import { named } from "../said.js";
import { STEPS } from "../words.js";

const ENDED = "the run had ended";

export function timeline(name, { move, close }) {
  const heading = h("h3", { tabindex: "-1" });
  const before = h("button", { type: "button", "aria-label": "Round before", on: { click: () => move(-1) } }, "◂");
  const after = h("button", { type: "button", "aria-label": "Round after", on: { click: () => move(1) } }, "▸");
  const shut = h("button", { type: "button", "aria-label": "Close the round", on: { click: () => close() } }, "✕");
  const told = h("p", { class: "quiet" });
  const ended = h("span", { class: "key", hidden: true }, h("i", { class: "sample paused", "aria-hidden": "true" }), ENDED);
  const legend = h("p", { class: "legend" }, Object.entries(STEPS).map(([step, word]) => h("span", { class: "key" }, h("i", { class: `sample ${step}`, "aria-hidden": "true" }), word)), ended);
  const axis = h("div", { class: "axis", "aria-hidden": "true" }, [0, 1, 2, 3, 4].map(() => h("span", {})));
  const list = new List({ key: (item) => item.client, make: row, label: "What each site did in the round" });
  const body = h("div", {}, list.node);
  const node = h("div", { class: "timeline", hidden: true, on: { keydown: (event) => event.key === "Escape" && close() } }, h("div", { class: "head" }, h("div", { class: "tools" }, before, after), heading, h("div", { class: "tools end" }, shut)), h("div", { class: "under" }, told, legend), h("div", { class: "scale" }, h("span", {}), axis, h("span", {})), body);
  let round = null;
  let span = [0, 1];
  let found = null;
  let asked = 0;
  let over = 0;

  function row(client) {
    const who = h("span", { class: "who" }, client);
    const track = h("div", { class: "lane" });
    const verdict = h("span", { class: "verdict" });
    const node = h("div", { class: "row lanes", role: "listitem" }, who, track, verdict);
    return {
      node,
      update(item) {
        const spans = [...item.phases, ...item.pauses].map((phase) => {
          const [from, to] = [phase.start_ms, phase.end_ms ?? Math.max(phase.start_ms, Math.min(until(), span[1]))];
          const left = (100 * (from - span[0])) / (span[1] - span[0]);
          return [phase.word, Math.max(0, left), Math.max(0.15, Math.min(100 - left, (100 * (to - from)) / (span[1] - span[0]))), `${STEPS[phase.word] ?? (phase.word === "paused" ? ENDED : phase.word)}: ${lap((to - from) / 1000)}, from ${clock(from)}`];
        });
        while (track.children.length > spans.length) track.lastChild.remove();
        spans.forEach(([word, left, wide, tip], i) => {
          const piece = track.children[i] ?? track.appendChild(h("i", {}));
          const css = `piece ${word === "paused" || Object.hasOwn(STEPS, word) ? word : "other"}`;
          if (piece.className !== css) piece.className = css;
          piece.style.left = `${left}%`;
          piece.style.width = `${wide}%`;
          attr(piece, "data-tip", tip);
        });
        attr(track, "aria-label", spans.map(([, , , tip]) => tip).join("; ") || "nothing is known of it");
        attr(track, "role", "img");
        const isRefused = item.outcome === "refused";
        const isIn = item.outcome === "accepted";
        const isGoing = item.outcome === "trains_on";
        const isLost = !isRefused && !isIn && !isGoing && isClosed();
        const parts = isRefused ? [`refused${item.reason ? `: ${item.reason}` : ""}`] : isLost ? [item.expected ? "nothing handed in" : "left out"] : isGoing ? ["trains on"] : [];
        if (item.staleness) parts.push(earlier(item));
        if (item.refused_before) parts.push(`refused before: ${item.refused_before}`);
        if (Number.isFinite(item.seconds)) parts.push(lap(item.seconds));
        if (item.examples) parts.push(counted(item.examples, "example"));
        if (item.bytes) parts.push(bytes(item.bytes));
        const first = Object.entries(item.metrics).find(([name]) => !isCount(name));
        if (first) parts.push(`${named(first[0])} ${metric(first[1])}`);
        text(verdict, `${isRefused ? "✕ " : isIn ? "✓ " : isGoing ? "→ " : isLost ? "– " : ""}${parts.join(" · ")}`);
        attr(verdict, "title", isRefused ? item.reason : parts.join(" · ") || null);
        const css = isRefused ? "verdict todo" : "verdict";
        if (verdict.className !== css) verdict.className = css;
      },
    };
  }

  const isClosed = () => found?.row.closed_ms > 0;
  /** What goes on in the round goes on until now; in a run that has ended, until its end. */
  const until = () => over || now();

  const draw = framed(() => {
    if (!found) return;
    const rows = (found.clients ?? []).map((each) => normal(each, found.pauses ?? []));
    const begun = rows.flatMap((each) => each.phases.map((phase) => phase.start_ms));
    const from = found.row.opened_ms || Math.min(...begun, until());
    const last = isClosed() ? found.row.closed_ms : Math.max(until(), ...rows.map((each) => each.last_ms));
    span = [from, Math.max(from + 1, last)];
    rows.sort((a, b) => Number(b.outcome === "refused") - Number(a.outcome === "refused") || b.last_ms - a.last_ms || a.client.localeCompare(b.client));
    const lasts = (span[1] - span[0]) / 1000;
    [...axis.children].forEach((mark, i) => text(mark, i === 0 ? clock(span[0]) : `+${lap((lasts * i) / 4)}`));
    attr(axis, "title", full(span[0]));
    const paused = (found.pauses ?? []).map(([start, end]) => `the run had ended from ${clock(start)} to ${clock(end)}: these ${lap((end - start) / 1000)} are no time of the round`);
    show(ended, paused.length);
    const notes = [found.gone, ...paused, ...(found.notes ?? [])].filter(Boolean).map((note) => note.charAt(0).toUpperCase() + note.slice(1));
    text(told, notes.length ? `${notes.join(". ")}.` : rows.length ? "" : "What the sites did in this round is not kept.");
    show(axis.parentNode, rows.some((each) => each.phases.length));
    list.node.classList.toggle("few", rows.length <= 12);
    list.node.style.setProperty("--rows", rows.length);
    list.set(rows);
  });

  async function ask() {
    const mine = ++asked;
    try {
      const answer = await get(of(name, "rounds", round.round));
      if (mine !== asked) return;
      found = answer;
      fill(body, list.node);
      draw();
    } catch (error) {
      if (mine === asked) failed(body, error);
    }
  }

  let again = 0;
  return {
    node,
    open(row, words, { isFirst, isLast }) {
      const isOther = row?.round !== round?.round;
      round = row;
      show(node, row);
      if (!row) return;
      text(heading, words);
      before.disabled = isFirst;
      after.disabled = isLast;
      if (isOther) {
        found = null;
        list.set([]);
        text(told, "Loading …");
        ask();
      }
    },
    /** The open round is read again when its document has changed, at most once in two seconds. */
    update(doc) {
      over = doc.ended_ms ?? 0;
      if (!round || node.hidden || round.round !== doc.round || again) return;
      again = setTimeout(() => {
        again = 0;
        if (!node.hidden) ask();
      }, 2000);
    },
    tick() {
      if (!node.hidden && found && !isClosed() && !over) draw();
    },
    close() {
      clearTimeout(again);
      list.close();
    },
  };
}

/** A site of a timeline, with when it began and ended; in an open round, what goes on has no end. */
function normal(item, all) {
  const phases = (item.phases ?? []).map((phase) => ({ word: phase.doing, start_ms: phase.start_ms, end_ms: phase.end_ms ?? null }));
  const last_ms = phases.at(-1)?.end_ms ?? phases.at(-1)?.start_ms ?? 0;
  const first_ms = phases[0]?.start_ms ?? last_ms;
  const between = all.reduce((sum, [start, end]) => sum + Math.max(0, Math.min(end, last_ms) - Math.max(start, first_ms)), 0);
  const pauses = phases.length ? all.map(([start_ms, end_ms]) => ({ word: "paused", start_ms, end_ms })) : [];
  return { ...item, phases, pauses, last_ms, seconds: phases.length && phases.at(-1).end_ms ? (last_ms - first_ms - between) / 1000 : null };
}
