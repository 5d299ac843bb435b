// The strip of rounds: a bar for each, as high as the round took. Left and right go from round to round, Enter opens.

import { attr, framed, h, show, text } from "../dom.js";
import { bytes, called, clock, count, counted, lap } from "../format.js";
import { now, openFor, since } from "../clock.js";
import { panel } from "../panel.js";
import { CLOSINGS, ROUNDS } from "../words.js";
import { timeline } from "./timeline.js";

const HIGH = 64;
const WIDEST = 40;
const NARROWEST = 8;

export function strip(name) {
  const part = panel("Rounds", { name: "rounds" });
  const track = h("div", { class: "track" });
  const slider = h("div", { class: "strip", role: "slider", tabindex: "0", "aria-label": "Round", "aria-valuemin": "1", on: { keydown: onKey, click: onClick, mousemove: onMove, mouseleave: () => point(null) } }, track);
  const line = h("p", { class: "pointed" });
  const legend = h("p", { class: "legend" }, Object.entries(CLOSINGS).map(([kind, { word, tip }]) => h("span", { class: "key", "data-tip": tip }, h("i", { class: `sample ${kind}`, "aria-hidden": "true" }), word)), h("span", { class: "key" }, h("i", { class: "sample open", "aria-hidden": "true" }), "open"), h("span", { class: "key", "data-tip": ROUNDS.failed.tip }, h("i", { class: "sample failed", "aria-hidden": "true" }), "failed"));
  const opened = timeline(name, { move: (by) => open(chosen + by), close: () => open(null) });
  part.body.append(slider, h("div", { class: "under" }, line, legend), opened.node);
  const command = () => part.command(`flavor status ${called(name)} --json`);
  const bars = new Map();
  let rows = [];
  let doc = null;
  let chosen = null;
  let pointed = null;
  let pitch = WIDEST;
  let scale = 1;
  let atEnd = true;

  const draw = framed(() => paint());
  new ResizeObserver(draw).observe(slider);
  slider.addEventListener("scroll", () => {
    atEnd = slider.scrollLeft + slider.clientWidth > slider.scrollWidth - 4;
    draw();
  }, { passive: true });

  const isKnown = (row) => row.opened_ms > 0;
  const seconds = (row) => {
    if (!isKnown(row) || (row.state === "closed" && !row.closed_ms)) return 0;
    return openFor(row, row.closed_ms || doc?.ended_ms || now()) ?? 0;
  };

  function paint() {
    if (!slider.isConnected || !rows.length) return;
    const wide = slider.clientWidth;
    pitch = Math.max(NARROWEST, Math.min(WIDEST, Math.floor(wide / Math.max(rows.length, 12))));
    track.style.width = `${rows.length * pitch}px`;
    if (atEnd) slider.scrollLeft = slider.scrollWidth;
    const sorted = rows.map(seconds).sort((a, b) => a - b);
    scale = Math.max(sorted[Math.floor(0.97 * (sorted.length - 1))] * 1.15, sorted[0], 1e-3);
    const first = Math.max(0, Math.floor(slider.scrollLeft / pitch) - 8);
    const last = Math.min(rows.length, first + Math.ceil(wide / pitch) + 16);
    const drawn = new Set();
    for (let i = first; i < last; i++) {
      const row = rows[i];
      drawn.add(row.round);
      let bar = bars.get(row.round);
      if (!bar) {
        bar = h("div", { "aria-hidden": "true" });
        bars.set(row.round, bar);
        track.append(bar);
      }
      const share = seconds(row) / scale;
      const high = Math.max(3, Math.round(HIGH * Math.min(1, share)));
      const css = `bar ${kindOf(row)}${share > 1 ? " over" : ""}${row.round === chosen ? " chosen" : ""}${row.round === pointed ? " pointed" : ""}`;
      if (bar.className !== css) bar.className = css;
      bar.style.transform = `translateX(${i * pitch}px)`;
      bar.style.width = `${pitch - Math.max(1, Math.min(4, Math.floor(pitch / 5)))}px`;
      bar.style.height = `${high}px`;
    }
    for (const [number, bar] of bars) {
      if (drawn.has(number)) continue;
      bar.remove();
      bars.delete(number);
    }
  }

  const kindOf = (row) => {
    if (!isKnown(row)) return "unknown";
    if (row.state === "failed") return "failed";
    if (row.state !== "closed") return "open";
    const again = row.attempts > 1 || row.openings > 1 ? " retried" : "";
    return row.contributors < row.expected ? `quorum${again}` : `all${again}`;
  };

  const described = (row) => {
    const state = row.state;
    if (!isKnown(row)) return `Round ${count(row.round)}: closed, and nothing more is kept of it`;
    const parts = [`Round ${count(row.round)}`];
    const word = ROUNDS[state]?.word ?? state;
    if (state === "closed") parts.push(`took ${lap(seconds(row))}`);
    else if (doc?.ended_ms) parts.push(`${doc.state === "stopped" ? "stopped" : word} after ${lap(seconds(row))}`);
    else parts.push(state === "open" ? `${word} for ${lap(seconds(row))}` : `${word}, opened ${lap(since(row.opened_ms))} ago`);
    if (row.expected) parts.push(`${count(row.contributors)} of ${counted(row.expected, "site")}`);
    if (row.refused) parts.push(`${count(row.refused)} refused`);
    if (row.examples) parts.push(counted(row.examples, "example"));
    if (row.bytes) parts.push(bytes(row.bytes));
    if (row.attempts > 1) parts.push(`${row.attempts} attempts to aggregate`);
    if (row.openings > 1) parts.push(`opened ${row.openings} times`);
    if (row.paused_ms) parts.push(`the run had ended for ${lap(row.paused_ms / 1000)}, which is not counted`);
    if (row.closed_ms) parts.push(`closed at ${clock(row.closed_ms)}`);
    return parts.join(" · ");
  };

  function point(number) {
    if (pointed === number) return;
    pointed = number;
    tell();
    draw();
  }

  function tell() {
    const row = rows.find((each) => each.round === (pointed ?? chosen)) ?? rows.at(-1);
    text(line, row ? described(row) : "");
    attr(slider, "aria-valuenow", row?.round);
    attr(slider, "aria-valuemin", rows[0]?.round ?? 1);
    attr(slider, "aria-valuemax", rows.at(-1)?.round);
    attr(slider, "aria-valuetext", row ? described(row) : "no round yet");
  }

  const under = (event) => rows[Math.floor((event.clientX - track.getBoundingClientRect().left) / pitch)]?.round ?? null;

  function onMove(event) {
    point(under(event));
  }

  function onClick(event) {
    const number = under(event);
    if (number !== null) open(number === chosen ? null : number);
  }

  function onKey(event) {
    const at = rows.findIndex((row) => row.round === (pointed ?? chosen ?? rows.at(-1)?.round));
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: rows.length - 1, PageUp: at - 10, PageDown: at + 10 }[event.key];
    if (to !== undefined) {
      const row = rows[Math.max(0, Math.min(rows.length - 1, to))];
      if (row) point(row.round);
      const x = rows.indexOf(row) * pitch;
      if (x < slider.scrollLeft || x > slider.scrollLeft + slider.clientWidth - pitch) slider.scrollLeft = x - slider.clientWidth / 2;
    } else if (event.key === "Enter" || event.key === " ") {
      const number = pointed ?? rows[at]?.round ?? null;
      open(number === chosen ? null : number);
    } else if (event.key === "Escape") open(null);
    else return;
    event.preventDefault();
  }

  /** Says how many rounds are closed; not that none is where they could not be read yet, as while Redis is away. */
  function tellClosed() {
    const closed = rows.filter((row) => row.state === "closed").length;
    const lacks = !closed && (doc?.round ?? 0) > (doc?.round_state === "closed" ? 0 : 1);
    part.say(lacks ? "the closed rounds are not read yet" : `${counted(closed, "round")} closed`);
  }

  function open(number) {
    const found = number === null ? null : rows.find((row) => row.round === number);
    if (number !== null && !found) return;
    chosen = number;
    opened.open(found ?? null, found ? described(found) : "", { isFirst: found === rows[0], isLast: found === rows.at(-1) });
    tell();
    draw();
  }

  return {
    node: part.node,
    /** Takes closed rounds that are new, oldest first, and the open one. */
    add(found) {
      for (const row of found) {
        const at = rows.findLastIndex((each) => each.round <= row.round);
        if (at >= 0 && rows[at].round === row.round) rows[at] = { ...rows[at], ...row };
        else rows.splice(at + 1, 0, row);
      }
      tellClosed();
      tell();
      draw();
    },
    update(next) {
      doc = next;
      tellClosed();
      command();
      const number = doc.round;
      const state = doc.round_state;
      if (number && state && state !== "closed") {
        this.add([{ round: number, state, opened_ms: doc.opened_ms ?? 0, paused_ms: doc.paused_ms ?? 0, worked_from_ms: doc.worked_from_ms, closed_ms: 0, expected: doc.expected, contributors: doc.in }]);
      }
      opened.update(doc);
      show(slider, rows.length);
      if (!rows.length) text(line, doc.round ? "The rounds are shown once Redis has been read." : "No round has opened yet. The sentence above says what the run waits for.");
    },
    /** Whether the newest round is known to be closed. */
    newest: () => rows.findLast((row) => row.state === "closed")?.round ?? 0,
    tick() {
      const row = rows.at(-1);
      if (row && row.state !== "closed" && !doc?.ended_ms) {
        tell();
        draw();
      }
      opened.tick();
    },
    close: () => opened.close(),
    open,
  };
}
