// Aggregators and their queue: who works, on what, and what waits.

import { fill, h, show } from "../dom.js";
import { called, count, counted, duration, hasFolder, inFolder } from "../format.js";
import { get } from "../api.js";
import { since } from "../clock.js";
import { command, failed, lesson, panel, state } from "../panel.js";

const AGAIN_MS = 3000;

const STATES = {
  idle: { mark: "○", word: "idle", tone: "quiet", tip: "It waits for a job." },
  busy: { mark: "●", word: "busy", tone: "now", tip: "It inspects an update, or aggregates a round." },
  resting: { mark: "‖", word: "resting", tone: "care", tip: "It takes no job for now: the reason stands beside it." },
  suspended: { mark: "‖", word: "suspended", tone: "care", tip: "`rq suspend` has stopped it." },
};

export function workers(run = "") {
  const part = panel("Aggregators", { name: "workers", command: () => (hasFolder(run) ? `flavor status ${called(run)}` : 'rq info --serializer json --url "$FLAVOR_REDIS_URL"') });
  const queues = h("div", {});
  const list = h("div", { class: "tablebox" });
  const dropped = h("div", {});
  part.body.append(queues, list, dropped);
  let timer = 0;
  let isClosed = false;
  let key = "";
  let queue = "";
  let last = null;
  let isOver = false;

  async function ask() {
    try {
      told(await get("queue"));
    } catch (error) {
      if (!key) failed(list, error);
    }
    if (!isClosed) timer = setTimeout(ask, document.hidden ? 10 * AGAIN_MS : AGAIN_MS);
  }

  function told(found) {
    last = found;
    const now = JSON.stringify([found, Math.floor(Date.now() / 10_000)]);
    if (now === key) return;
    key = now;
    const mine = found.queues.filter((each) => !run || each.runs.includes(run) || each.queue === queue);
    queue = run ? (mine[0]?.queue ?? "") : "";
    const here = found.workers.filter((worker) => !queue || worker.queues.includes(queue));
    fill(queues, mine.map(queueLine));
    const rows = here.map((worker) => {
      const why = worker.resting;
      const known = STATES[why ? "resting" : worker.state] ?? { mark: "·", word: worker.state ?? "unknown", tone: "quiet" };
      const beat = since(worker.beat_ms);
      return h(
        "tr",
        {},
        h("td", { class: "text" }, named(worker.name), worker.host ? h("span", { class: "quiet" }, ` on ${worker.host}`) : null),
        h("td", {}, state(known)),
        h("td", { class: "text" }, why || worker.job || "–"),
        h("td", {}, `${count(worker.done)}${worker.failed ? `, ${count(worker.failed)} failed` : ""}`),
        h("td", {}, beat === null ? "–" : beat < 5 ? "now" : duration(beat)),
      );
    });
    if (rows.length) {
      fill(list, h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ["Aggregator", "State", "Job", "Done", "Seen"].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, rows)));
    } else if (isOver) {
      fill(list, h("p", { class: "quiet" }, "The run has ended, and needs no aggregator."));
    } else if (found.refusal) {
      fill(list, lesson("It is not known whether an aggregator listens", found.refusal));
    } else {
      fill(list, lesson("No aggregator listens", "Updates wait for inspection, and rounds for their model, until one does.", ...(hasFolder(run) ? [`\`flavor run\` starts it; its log is ${inFolder(run, "logs/aggregator.log")}.`] : ["Start one beside the store:", command(`flavor-agg --queue ${queue || "flavor"} --store STORE`)])));
    }
    const lost = found.dropped;
    show(dropped, lost.length);
    if (lost.length) fill(dropped, h("p", { class: "care" }, `! ${counted(lost.length, "foreign job")} dropped: another program writes to rq:* on this Redis.`), h("ul", { class: "refusals" }, lost.slice(0, 10).map((job) => h("li", {}, `${job.job} in queue ${job.queue}: ${job.reason}`))));
    part.say(`${counted(here.length, "aggregator")}${mine.length ? `, ${counted(mine.reduce((sum, each) => sum + each.length, 0), "job")} waiting` : ""}`);
  }

  ask();
  return {
    node: part.node,
    update(doc) {
      if (isOver === Boolean(doc.ended_ms)) return;
      isOver = !isOver;
      key = "";
      if (last) told(last);
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
    },
  };
}

/** The 32 digits that RQ calls a worker by, cut; all of them in its title. */
const named = (name) => (/^[0-9a-f]{32}$/.test(name) ? h("span", { class: "nowrap", title: name }, `${name.slice(0, 8)}…`) : name);

const queueLine = (each) => h("p", { class: "queue" }, h("strong", {}, each.queue), ` ${counted(each.length, "job")} waiting, ${count(each.started)} in work${each.failed ? `, ${count(each.failed)} failed` : ""}`);
