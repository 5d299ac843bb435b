// What has happened, the newest first. New events wait behind "3 new" once one has scrolled.

import { attr, framed, h, keyed, show, text } from "../dom.js";
import { called, clock, count, counted, full } from "../format.js";
import { get, of } from "../api.js";
import { choices, filter, panel } from "../panel.js";
import { KINDS, eventOf } from "../words.js";

const MOST = 2000;
const AT_ONCE = 200;
const LONG = 240;

export function events(name) {
  const part = panel("Events", { name: "events", command: () => `flavor log ${called(name)} --follow` });
  const find = filter("Filter events", (words) => {
    wanted = words;
    draw();
  });
  part.tools.append(find);
  const kinds = choices("Kind of events", Object.keys(KINDS), "all", (kind) => {
    chosen = kind;
    draw();
  });
  const fresh = h("button", { type: "button", class: "fresh", hidden: true, on: { click: () => top() } });
  const list = h("ol", { class: "log", tabindex: "0", "aria-label": "Events, the newest first" });
  const older = h("button", { type: "button", class: "older", on: { click: () => more() } }, "Older events");
  const empty = h("p", { class: "quiet" }, "Nothing has happened yet.");
  const box = h("div", { class: "scroll" }, fresh, list, empty, older);
  part.body.append(kinds, box);
  let known = []; // newest first
  let waiting = []; // newest first, behind "new"
  let chosen = "all";
  let wanted = "";
  let isAll = false;
  let most = AT_ONCE;

  const scrolled = () => box.scrollTop > 8;
  box.addEventListener("scroll", () => {
    if (!scrolled() && waiting.length) top();
  }, { passive: true });

  function top() {
    known = [...waiting, ...known].slice(0, MOST);
    waiting = [];
    box.scrollTop = 0;
    draw();
  }

  const fits = (entry) => KINDS[chosen](entry.event) && (!wanted || `${entry.line ?? ""} ${entry.reason ?? ""} ${entry.client ?? ""} ${entry.event}`.toLowerCase().includes(wanted));

  const draw = framed(() => {
    const seen = known.filter(fits);
    keyed(list, seen.slice(0, most), (entry) => entry.id, row);
    const new_ = waiting.filter(fits).length;
    show(fresh, new_);
    text(fresh, `↑ ${count(new_)} new`);
    show(empty, !seen.length);
    text(empty, known.length ? "No event matches." : "Nothing has happened yet.");
    show(older, known.length && (!isAll || seen.length > most));
    part.say(known.length ? `${counted(known.length + waiting.length, "event")}${isAll ? "" : " at hand"}` : "");
  });

  async function more() {
    if (known.filter(fits).length > most) {
      most += AT_ONCE;
      draw();
      return;
    }
    older.disabled = true;
    try {
      const found = await get(of(name, "events"), { before: known.at(-1)?.id ?? "" });
      const entries = (Array.isArray(found) ? found : found.events).slice().reverse();
      const ids = new Set(known.map((entry) => entry.id));
      const new_ = entries.filter((entry) => !ids.has(entry.id));
      isAll = !new_.length;
      known = [...known, ...new_];
      most += AT_ONCE;
    } catch (error) {
      text(older, `${error.message}: try again`);
    }
    older.disabled = false;
    draw();
  }

  return {
    node: part.node,
    /** Takes entries of the log, the oldest first. */
    add(entries) {
      const ids = new Set([...known.slice(0, 500), ...waiting].map((entry) => entry.id));
      const new_ = entries.filter((entry) => !ids.has(entry.id)).reverse();
      if (scrolled()) waiting = [...new_, ...waiting].slice(0, MOST);
      else known = [...new_, ...known].slice(0, MOST);
      draw();
    },
  };
}

function row(entry) {
  const { mark, tone } = eventOf(entry.event);
  const line = entry.line || entry.reason || entry.event;
  const time = h("time", { datetime: new Date(entry.time_ms).toISOString(), title: full(entry.time_ms) }, clock(entry.time_ms));
  const words = h("span", { class: "words" }, line.length > LONG ? `${line.slice(0, LONG)}…` : line);
  const node = h("li", { class: tone }, time, h("span", { class: "mark", "aria-hidden": "true", title: entry.event }, mark), words);
  if (line.length > LONG) {
    const all = h("button", { type: "button", class: "all", "aria-expanded": "false", on: {
      click: () => {
        const is = all.getAttribute("aria-expanded") !== "true";
        attr(all, "aria-expanded", String(is));
        text(words, is ? line : `${line.slice(0, LONG)}…`);
        text(all, is ? "less" : "all of it");
      },
    } }, "all of it");
    node.append(all);
  }
  return { node };
}
