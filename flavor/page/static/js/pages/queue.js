// Aggregators and the queue of this Redis, for all runs.

import { h } from "../dom.js";
import { Live } from "../live.js";
import { workers } from "../parts/workers.js";

export function open(shell) {
  const part = workers();
  shell.title("Aggregators");
  const live = new Live(null, { document() {}, state: (told) => shell.state(told) });
  return {
    node: h("div", { class: "page" }, h("h1", {}, "Aggregators and their queue"), part.node),
    close() {
      live.close();
      part.close();
    },
  };
}
