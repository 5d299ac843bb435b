// A part of a page: a heading, a body, and the terminal command that shows the same.

import { attr, fill, framed, h, show, text } from "./dom.js";

let number = 0;

/** `{node, body, head, say, command}`: `say` sets what stands beside the heading, `command` the command below. */
export function panel(title, { command = "", name = "" } = {}) {
  const id = `panel-${++number}`;
  const note = h("span", { class: "note" });
  const tools = h("div", { class: "tools" });
  const body = h("div", { class: "body" });
  const code = h("code", {}, typeof command === "function" ? command() : command);
  if (typeof command === "function") code.again = () => text(code, command()); // once it is known what the run is called
  const foot = h("footer", { class: "foot" }, h("span", {}, "In a terminal: "), code);
  foot.hidden = !command;
  const node = h(
    "section",
    { class: `panel ${name}`, "aria-labelledby": id },
    h("div", { class: "head" }, h("h2", { id }, title), note, tools),
    body,
    foot,
  );
  return {
    node,
    body,
    tools,
    say: (words) => text(note, words),
    command: (words) => {
      text(code, words);
      foot.hidden = !words;
    },
  };
}

/** A state: its mark, its word and, on hover or focus, what it means. */
export function state({ mark, word, tone, tip }, more = "") {
  const sign = h("span", { class: "mark", "aria-hidden": "true" }, mark);
  const said = h("span", { class: "word" }, word + more);
  const node = h("span", { class: `state ${tone}` }, sign, said);
  if (tip) attr(node, "data-tip", tip);
  return node;
}

/** Sets a state that is there already. */
export function restate(node, { mark, word, tone, tip }, more = "") {
  if (node.className !== `state ${tone}`) node.className = `state ${tone}`;
  text(node.firstChild, mark);
  text(node.lastChild, word + more);
  attr(node, "data-tip", tip);
  return node;
}

/** A panel that says what is wrong or missing, and what to do. */
export function lesson(title, ...lines) {
  return h("div", { class: "lesson" }, h("h3", {}, title), lines.map((line) => (typeof line === "string" ? h("p", {}, line) : line)));
}

/** A box for a table that may be wider than it, and then says so: a bar to scroll it by is not always shown. */
export function tablebox(label) {
  const box = h("div", { class: "tablebox", tabindex: "0", role: "group", "aria-label": label });
  const hint = h("p", { class: "quiet wider", hidden: true }, "The table goes on to the right →");
  const look = framed(() => show(hint, box.scrollWidth > box.clientWidth + 1));
  const sizes = new ResizeObserver(look);
  sizes.observe(box);
  return {
    box,
    nodes: [box, hint],
    /** Shows a table. */
    table(node) {
      sizes.disconnect();
      fill(box, node);
      for (const each of [box, node]) sizes.observe(each);
    },
  };
}

/** A command that a reader may copy. */
export const command = (words) => h("pre", { class: "command", tabindex: "0" }, words);

/** A field that narrows a list: `/` goes to it, Esc empties it. */
export function filter(label, onInput) {
  const input = h("input", { type: "search", class: "filter", placeholder: `${label}  /`, "aria-label": label, spellcheck: "false" });
  input.addEventListener("input", () => onInput(input.value.trim().toLowerCase()));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    if (input.value) {
      input.value = "";
      onInput("");
    } else input.blur();
  });
  return input;
}

/** A choice of one among a few, as buttons. */
export function choices(label, names, chosen, onChoose) {
  const buttons = names.map((name) =>
    h("button", { type: "button", "aria-pressed": String(name === chosen), on: { click: () => choose(name) } }, name),
  );
  const choose = (name) => {
    buttons.forEach((button, i) => attr(button, "aria-pressed", String(names[i] === name)));
    onChoose(name);
  };
  return h("div", { class: "choices", role: "group", "aria-label": label }, buttons);
}

/** Rows of a name and a value. */
export function facts(rows) {
  return h(
    "dl",
    { class: "facts" },
    rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [
      h("dt", {}, name),
      h("dd", {}, value instanceof Node ? value : String(value)),
    ]),
  );
}

/** Shows an error of the server in place of a body. */
export function failed(body, error) {
  fill(body, lesson(error.message, error.hint));
}
