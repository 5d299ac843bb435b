// Where each global model comes from: manifests, digests, and who signed what.

import { fill, h } from "../dom.js";
import { bytes, called, clock, count, counted, full, some } from "../format.js";
import { get, of } from "../api.js";
import { facts, failed, lesson, panel, state, tablebox } from "../panel.js";

const SOON_MS = 100;
const READ = { mark: "✓", word: "whole", tone: "well", tip: "The manifest's signature, its place in the chain, and all objects that it names are as they were signed." };
const SIGNED = { mark: "○", word: "in the chain", tone: "quiet", tip: "The manifest's signature and its place in the chain are right. Its objects have not been read: the button above does that." };
const WRONG = { mark: "✕", word: "wrong", tone: "todo", tip: "Something in the store is not what was signed." };

export function provenance(name) {
  const part = panel("Provenance", { name: "provenance", command: () => `flavor verify ${called(name)}` });
  const check = h("button", { type: "button", on: { click: () => ask(true) } }, "Check all objects");
  part.tools.append(check);
  const manifests = tablebox("Manifests of rounds");
  let asked = 0;

  async function ask(verify) {
    const turn = ++asked;
    check.disabled = true;
    part.say(verify ? "reading the store …" : "");
    try {
      const found = await get(of(name, "provenance"), { verify: verify ? "1" : "" });
      if (turn !== asked) return;
      told(found);
      if (!found.is_complete && !found.silent && part.node.isConnected) setTimeout(() => turn === asked && ask(false), SOON_MS); // it reads a part at a time
    } catch (error) {
      if (turn !== asked) return;
      part.say("");
      failed(part.body, error);
    }
    check.disabled = false;
  }

  function told(found) {
    const { problems, verified, wrong } = found;
    const chain = found.chain.slice().reverse();
    const all = chain.length + found.earlier;
    const read = verified && Number.isFinite(found.objects_read) ? `, ${counted(found.objects_read, "object")} and ${bytes(found.bytes_read)} read` : "";
    const bad = wrong ? `${counted(wrong, "thing")} ${wrong === 1 ? "is" : "are"} wrong${read}` : "";
    const so = bad || (all ? `${counted(all, "manifest")}, ${verified ? "everything is as it was signed" : "signatures and chain are right"}${read}` : "");
    const far = `${count(found.read)} of ${counted(found.manifests, "manifest")} read`;
    if (found.silent) part.say(found.manifests ? [far, bad].filter(Boolean).join(", ") : "");
    else part.say(found.is_complete ? so : `${far} so far …`);
    const rows = chain.map((link) => {
      const more = link.contributors - link.sites.length;
      const names = more > 0 ? `${link.sites.join(", ")} and ${count(more)} more` : link.sites.join(", ");
      const few = link.contributors > 4 ? `${link.sites.slice(0, 4).join(", ")} and ${count(link.contributors - 4)} more` : some(link.sites, 4);
      return h(
        "tr",
        {},
        h("td", {}, count(link.round)),
        h("td", {}, state(link.verdict === "wrong" ? WRONG : verified ? READ : SIGNED)),
        h("td", { title: full(link.closed_ms) }, clock(link.closed_ms)),
        h("td", { class: "text", title: names }, few),
        h("td", {}, count(link.examples)),
        digest(link.model),
        digest(link.digest),
        digest(link.public_key),
      );
    });
    const heads = ["Round", "Checked", "Closed", "Contributors", "Examples", "Model", "Manifest", "Signed by"];
    manifests.table(h("table", { class: "plain" }, h("thead", {}, h("tr", {}, heads.map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, rows)));
    fill(
      part.body,
      found.silent ? lesson(found.silent, "Manifests lie in the run's store: start `flavor ui` with --store where this machine reaches it by another address.") : [],
      facts([["Newest manifest", found.head], ["Run id", found.run_id]]),
      h("ul", { class: "todo" }, problems.slice(0, 50).map((each) => h("li", {}, `! ${each.round ? `round ${each.round}` : "the run"}: ${each.path}: ${each.what}`))),
      h("ul", { class: "refusals" }, (found.notices ?? []).slice(0, 50).map((each) => h("li", { class: "quiet" }, `${each.round ? `round ${each.round}: ` : ""}${each.path ? `${each.path}: ` : ""}${each.what ?? ""}`))),
      rows.length
        ? manifests.nodes
        : h("p", { class: "quiet" }, found.silent ? "" : "No round has closed yet: the first manifest comes with the first global model."),
      found.earlier ? h("p", { class: "quiet" }, `${counted(found.earlier, "older round")} not shown: the command below shows all.`) : [],
    );
  }

  return { node: part.node, open: () => ask(false) };
}

/** The first characters of a digest or key; all of them in its title. */
const digest = (whole) => h("td", { class: "mono", title: whole || null }, whole ? `${whole.slice(0, 10)}…` : "–");
