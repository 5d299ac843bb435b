// A list of any length that draws only the rows in sight. Rows have one height; an opened one is as high as it is.

import { framed, h } from "./dom.js";

const BEYOND = 6; // rows drawn above and below

/** `make(key)` returns a row: `{node, update(item)}`. `set(items)` takes the items in their order. */
export class List {
  constructor({ key, make, label, role = "list" }) {
    Object.assign(this, { key, make });
    this.items = [];
    this.rows = new Map();
    this.opened = new Map(); // key → extra height in px
    this.inner = h("div", { class: "inner", role: "presentation" });
    this.node = h("div", { class: "rows", tabindex: "0", "aria-label": label, role: role === "table" ? "rowgroup" : role }, this.inner);
    this.draw = framed(() => this.paint());
    this.node.addEventListener("scroll", this.draw, { passive: true });
    this.sizes = new ResizeObserver(() => {
      this.height = 0;
      this.draw();
    });
    this.sizes.observe(this.node);
    this.details = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        const high = target.isConnected ? target.offsetHeight : 0;
        if (high && this.opened.has(target._key) && this.opened.get(target._key) !== high) {
          this.opened.set(target._key, high);
          this.draw();
        }
      }
    });
  }

  set(items) {
    this.items = items;
    this.draw();
  }

  /** Takes an opened row's details into account; null closes them. */
  open(key, details) {
    if (details === null) this.opened.delete(key);
    else {
      details._key = key;
      if (!this.opened.has(key)) this.opened.set(key, 0);
      this.details.observe(details);
    }
    this.draw();
  }

  paint() {
    if (!this.node.isConnected) return;
    const high = (this.height ||= parseFloat(getComputedStyle(this.node).getPropertyValue("--row")) || 40);
    const tops = (this.tops = new Float64Array(this.items.length + 1));
    for (let i = 0; i < this.items.length; i++) {
      tops[i + 1] = tops[i] + high + (this.opened.size ? (this.opened.get(this.key(this.items[i])) ?? 0) : 0);
    }
    const total = `${tops[this.items.length]}px`;
    if (this.inner.style.height !== total) this.inner.style.height = total;
    const [top, seen] = [this.node.scrollTop, this.node.clientHeight || 400];
    let first = 0;
    let last = this.items.length;
    while (last - first > 1) {
      const middle = (first + last) >> 1;
      if (tops[middle] <= top) first = middle;
      else last = middle;
    }
    first = Math.max(0, first - BEYOND);
    const drawn = new Set();
    for (let i = first, after = 0; i < this.items.length && after < BEYOND; i++) {
      if (tops[i] > top + seen) after++;
      const item = this.items[i];
      const key = this.key(item);
      drawn.add(key);
      let row = this.rows.get(key);
      if (!row) {
        row = this.make(key, item);
        this.rows.set(key, row);
      }
      if (!row.node.isConnected) this.inner.append(row.node);
      const where = `translateY(${tops[i]}px)`;
      if (row.node.style.transform !== where) row.node.style.transform = where;
      (row.line ?? row.node).setAttribute(row.line ? "aria-rowindex" : "aria-posinset", row.line ? i + 2 : i + 1);
      row.update(item, i);
    }
    for (const [key, row] of this.rows) {
      if (drawn.has(key) || row.node.contains(document.activeElement)) continue;
      row.node.remove();
      this.rows.delete(key);
    }
    this.arrange(first, drawn.size);
  }

  /** Keeps the order of the document that of the eye, for the Tab key and screen readers. */
  arrange(first, number) {
    let before = null;
    for (let i = first; i < first + number; i++) {
      const node = this.rows.get(this.key(this.items[i]))?.node;
      if (!node) continue;
      const place = before ? before.nextSibling : this.inner.firstChild;
      if (place !== node && !node.contains(document.activeElement)) this.inner.insertBefore(node, place);
      before = node;
    }
  }

  close() {
    this.sizes.disconnect();
    this.details.disconnect();
  }
}
