// Makes and changes elements. Text is always text: nothing here reads HTML, so a site's words cannot become markup. And
// all text goes through `visible`, so that none of it changes how the text beside it is shown.

import { visible } from "./said.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties (`class`, `on` for listeners, `data` for data-*, else attributes) and children. */
export function h(tag, props, ...children) {
  return made(document.createElement(tag), props, children);
}

/** The same in SVG. */
export function svg(tag, props, ...children) {
  return made(document.createElementNS(SVG, tag), props, children);
}

/** Attributes that are read by people. `data-tip` is text once `tips.js` shows it. */
const READ = new Set(["title", "alt", "aria-label", "aria-valuetext"]);

const value = (name, words) => (READ.has(name) ? visible(String(words)) : String(words));

const isNone = (child) => child === null || child === undefined || child === false;

/** Children without those that are none; words as they are shown. */
const shown = (children) => children.flat(Infinity).filter((child) => !isNone(child)).map((child) => (child instanceof Node ? child : visible(String(child))));

function made(node, props, children) {
  for (const [name, words] of Object.entries(props ?? {})) {
    if (isNone(words)) continue;
    if (name === "on") for (const [event, listener] of Object.entries(words)) node.addEventListener(event, listener);
    else if (name === "data") Object.assign(node.dataset, words);
    else node.setAttribute(name, words === true ? "" : value(name, words));
  }
  node.append(...shown(children));
  return node;
}

/** Sets the text of a node, and touches nothing where it is there already, so that a selection stays. */
export function text(node, words) {
  const said = words === null || words === undefined ? "" : visible(String(words));
  if (node.textContent !== said) node.textContent = said;
  return node;
}

export function attr(node, name, words) {
  if (isNone(words)) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== value(name, words)) node.setAttribute(name, value(name, words));
  return node;
}

export function show(node, is) {
  node.toggleAttribute("hidden", !is); // also of SVG, which has no such property
  return node;
}

/** Replaces the children where they are others than those there now. */
export function fill(node, ...children) {
  const next = shown(children.flat(Infinity).filter(Boolean));
  if (next.length !== node.childNodes.length || next.some((child, i) => child !== node.childNodes[i])) {
    node.replaceChildren(...next);
  }
  return node;
}

/** Keeps one child for each item, by key: makes those that are new, updates all, and moves only what must move. */
export function keyed(parent, items, key, make) {
  const old = (parent._byKey ??= new Map());
  const byKey = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    const row = old.get(name) ?? make(item);
    byKey.set(name, row);
    row.update?.(item);
    if (row.node === at) at = at.nextSibling;
    else parent.insertBefore(row.node, at);
  }
  for (const [name, row] of old) if (byKey.get(name) !== row) row.node.remove();
  parent._byKey = byKey;
}

/** Calls `action` at most once a frame, however often it is asked for. */
export function framed(action) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const go = () => {
      if (!asked) return;
      asked = false;
      action();
    };
    requestAnimationFrame(go);
    if (document.hidden) setTimeout(go, 250); // no frames are drawn then
  };
}
