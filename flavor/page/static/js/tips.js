// Tooltips: what carries data-tip says it on hover, on focus, and to a screen reader.

import { h, text } from "./dom.js";

const tip = h("div", { class: "tip", role: "tooltip", id: "tip", hidden: true });
let shown = null;

function put(target) {
  if (shown === target) return;
  shown?.removeAttribute("aria-describedby");
  shown = target;
  tip.hidden = !target;
  if (!target) return;
  target.setAttribute("aria-describedby", "tip");
  text(tip, target.dataset.tip);
  const at = target.getBoundingClientRect();
  const [wide, high] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - wide - 8))}px`;
  tip.style.top = `${at.bottom + high + 12 > innerHeight ? Math.max(8, at.top - high - 6) : at.bottom + 6}px`;
}

/** Starts to show tooltips on this page. */
export function tips() {
  document.body.append(tip);
  const over = (event) => put(event.target instanceof Element ? event.target.closest("[data-tip]") : null);
  document.addEventListener("mouseover", over);
  document.addEventListener("focusin", (event) => put(event.target.closest?.("[data-tip]") ?? event.target.querySelector?.(":scope [data-tip]")));
  document.addEventListener("focusout", () => put(null));
  document.addEventListener("scroll", () => put(null), { passive: true, capture: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && put(null));
}
