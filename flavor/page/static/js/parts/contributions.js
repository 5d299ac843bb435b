// Which site helps a run, and which one hurts: the newest result of `flavor contributions`.

import { fill, h } from "../dom.js";
import { called, clock, count, counted, full, metric } from "../format.js";
import { get, of } from "../api.js";
import { failed, panel, tablebox } from "../panel.js";

const SITE = ["Site", ""];
const UPDATES = [
  ["Rounds", "In how many of these rounds it took part."],
  ["Examples", "In the newest of these rounds."],
  ["Cosine", "Between the site's change of the model and the mean change of all sites: 1 the same direction, below 0 against it."],
  ["Norm", "How far the site changes the model, as a multiple of the mean change."],
];
const WITH_IT = ["With it", "The metric of the model, by the sites that have judged it with the site and without it."];
const CONTRIBUTION = ["Contribution", "How much better the model is with the site. Below 0, the site hurts; what is small against its spread is noise."];
const WITHOUT_IT = ["Without it", "The metric of the model that is aggregated without the site."];
const BY_SITES = [
  ["At home", "The same by the site's own data, which favour its own update. It is not in the contribution."],
  ["Judged by", "The other sites that have judged both models, each with what the site contributes by its data."],
];

/** The mean over the rounds, and the lowest and highest where there are several. */
const spread = (found, sign = "") => (found ? `${plus(found.mean, sign)}${found.rounds > 1 ? ` (${plus(found.lowest, sign)} … ${plus(found.highest, sign)})` : ""}` : "–");

const plus = (value, sign) => (value > 0 ? sign : "") + metric(value);

/** The other sites that have judged it, each with what it says. */
const judgedBy = (site) =>
  Object.entries(site.judges)
    .filter(([judge]) => judge !== site.client)
    .map(([judge, of]) => `${judge} ${plus(of.mean, "+")}`)
    .join(", ") || "–";

export function contributions(name) {
  const part = panel("Contributions", { name: "contributions", command: () => `flavor contributions ${called(name)}` });

  const sites = tablebox("What each site contributes");

  function told(found) {
    if (!found) {
      fill(part.body, h("p", { class: "quiet" }, "The command below has not been called yet. It compares the sites' updates; with -e or --by-sites it also says how good the model is without each site."));
      return;
    }
    // What the panel is for stands first: in half a page's width the last columns are out of sight
    const judged = found.metric ? [CONTRIBUTION, ...(found.by_sites ? [WITH_IT] : []), WITHOUT_IT] : [];
    const heads = [SITE, ...judged, ...UPDATES, ...(found.metric && found.by_sites ? BY_SITES : [])];
    const rows = found.sites.map((site) =>
      h(
        "tr",
        {},
        h("td", { class: "text" }, site.client),
        found.metric
          ? [
              h("td", { class: site.contribution?.mean < 0 ? "care" : "", title: site.why_not || null }, site.contribution?.mean < 0 ? "! " : "", spread(site.contribution, "+")),
              found.by_sites ? h("td", {}, spread(site.with_it)) : [],
              h("td", {}, spread(site.without)),
            ]
          : [],
        h("td", {}, count(site.rounds)),
        h("td", {}, count(site.num_examples)),
        h("td", {}, spread(site.cosine)),
        h("td", {}, spread(site.norm_ratio)),
        found.metric && found.by_sites ? [h("td", {}, spread(site.judges[site.client], "+")), h("td", { class: "text" }, judgedBy(site))] : [],
      ),
    );
    const rounds = `round${found.rounds.length === 1 ? "" : "s"} ${found.rounds.join(", ")}`;
    part.say(`of ${rounds}${found.metric ? `, by ${found.metric}${found.by_sites ? " at the sites" : ""}` : ""}, computed at ${clock(found.at_ms)}`);
    sites.table(h("table", { class: "plain", title: full(found.at_ms) }, h("thead", {}, h("tr", {}, heads.map(([word, tip]) => h("th", { scope: "col", "data-tip": tip || null, tabindex: tip ? "0" : null }, word)))), h("tbody", {}, rows)));
    fill(
      part.body,
      sites.nodes,
      found.left_out ? h("p", { class: "quiet" }, `${counted(found.left_out, "better site")} not shown: the command below shows all.`) : [],
      Object.entries(found.lacking).map(([round, why]) => h("p", { class: "quiet" }, `Round ${round} is not among them: ${why}.`)),
    );
  }

  async function open() {
    try {
      told((await get(of(name, "contributions"))).result);
    } catch (error) {
      failed(part.body, error);
    }
  }
  return { node: part.node, open };
}
