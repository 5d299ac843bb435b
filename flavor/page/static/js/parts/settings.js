// The settings of a run. Those that are not at their defaults come first.

import { fill, h, show } from "../dom.js";
import { called, counted } from "../format.js";
import { get, of } from "../api.js";
import { failed, filter, panel } from "../panel.js";

/** A setting's value in one line. */
export const shown = (value) => (value === null || value === undefined || value === "" ? "–" : typeof value === "object" ? JSON.stringify(value) : typeof value === "boolean" ? (value ? "yes" : "no") : String(value));

const isSet = ({ value, default: other }) => JSON.stringify(value) !== JSON.stringify(other);

export function settings(name) {
  const part = panel("Settings", { name: "settings", command: () => `flavor status ${called(name)} --json` });
  const find = filter("Filter settings", (words) => {
    wanted = words;
    draw();
  });
  part.tools.append(find);
  let found = null;
  let wanted = "";

  function draw() {
    const rows = found.settings.filter(({ name: key, value, help }) => !wanted || `${key} ${shown(value)} ${help}`.toLowerCase().includes(wanted));
    const group = (title, some) => (some.length ? [h("h3", {}, title), h("dl", { class: "facts" }, some.map((each) => [h("dt", { "data-tip": each.help || null, tabindex: each.help ? "0" : null }, each.name), h("dd", {}, shown(each.value), found.changed.includes(each.name) ? h("span", { class: "care" }, " ○ changed by flavor resume") : null)]))] : []);
    fill(part.body, h("div", { class: "settings-box" }, group("Set for this run", rows.filter(isSet)), group("At their defaults", rows.filter((row) => !isSet(row)))));
  }

  async function open() {
    try {
      found = await get(of(name, "settings"));
      show(find, found.settings.length > 12);
      part.say(`${counted(found.settings.filter(isSet).length, "setting")} of ${found.settings.length} set`);
      draw();
    } catch (error) {
      failed(part.body, error);
    }
  }
  return { node: part.node, open };
}
