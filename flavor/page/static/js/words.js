// What each state is called, its mark, and what it means. A mark and a word, so that no state is told by colour alone.
// Tones: "todo" (red: somebody must do something), "now" (it goes on), "well", "care" and "quiet".

import { called, count, hasFolder, inFolder } from "./format.js";

const phase = (mark, word, tone, tip, rank) => ({ mark, word, tone, tip, rank });

/** Phases of a site, in the words of `flavor status`. The lower the rank, the more it needs attention. */
export const PHASES = {
  failed: phase("✕", "failed", "todo", "Its training script or its edge has failed. The site must start flavor-fl again.", 0),
  quarantined: phase("⊘", "quarantined", "todo", "Too many of its updates in a row were refused. `flavor pardon` ends that.", 1),
  refused: phase("✕", "refused", "todo", "The aggregator refused its update of this round, and the reason says why.", 2),
  gone: phase("?", "gone", "todo", "Its edge has vanished without a word: no sign of life within the heartbeat timeout.", 3),
  stopped: phase("‖", "stopped", "care", "A signal has stopped its edge, which is expected to come back.", 4),
  starting: phase("◌", "starting", "now", "Its training script is not ready yet: it has not set TrainInitDone.", 6),
  downloading: phase("↓", "downloading", "now", "It fetches the global model of this round.", 7),
  training: phase("●", "training", "now", "Its script trains the model of this round.", 7),
  uploading: phase("↑", "uploading", "now", "It sends its update to the store.", 7),
  judging: phase("◆", "judging", "now", "Its evaluator judges the global model of a round (`flavor-fl -e`).", 8),
  uploaded: phase("◐", "handed in", "now", "Its update is handed in, and an aggregator has not inspected it yet.", 8),
  waiting: phase("○", "waiting", "quiet", "It has no task in this round.", 9),
  done: phase("✓", "accepted", "well", "Its update is handed in and accepted (`flavor status` calls that done).", 10),
  left: phase("–", "left", "quiet", "Its training script ended by itself, with success.", 11),
  revoked: phase("⊘", "revoked", "quiet", "`flavor revoke` has removed its access to the run.", 12),
  "-": phase("–", "ended", "quiet", "The run has ended.", 13),
};

const UNKNOWN = { mark: "·", word: "", tone: "quiet", tip: "A state that this page does not know.", rank: 5 };

export const phaseOf = (word) => PHASES[word] ?? { ...UNKNOWN, word: word ?? "unknown" };

/** What a phase of a site means. The sites of a local run are processes of `flavor run`. */
export const meaningOf = (word, run, site) => (hasFolder(run) && word === "failed" ? `Its training script or its edge has failed. ${inFolder(run, `logs/${site}.log`)} says why; \`${goesOn(run)}\` starts it again.` : phaseOf(word).tip);

/** The command that goes on with a run that has ended. */
export const goesOn = (run) => (hasFolder(run) ? `flavor run --resume ${called(run)}` : run ? `flavor resume ${called(run)}` : "flavor resume");

export const RUNS = {
  waiting: phase("○", "waiting", "now", "The run is open for sites, and its first round has not opened."),
  running: phase("●", "running", "now", "Rounds are open, or one is to open."),
  finished: phase("✓", "finished", "well", "All rounds are closed, or the training scripts have ended."),
  failed: phase("✕", "failed", "todo", "The run could not go on. `flavor resume` goes on with it."),
  stopped: phase("■", "stopped", "quiet", "An operator has stopped the run. `flavor resume` goes on with it."),
  lost: phase("✕", "lost", "todo", "Redis has lost the record of the run, which had not ended. `flavor recover` rebuilds it from the store."),
  damaged: phase("✕", "damaged", "todo", "The record of the run on Redis cannot be read. `flavor recover` rebuilds it from the store."),
};

const BROKEN = new Set(["damaged", "lost"]);

/** Whether Redis has the record of a run no more, or none that can be read. */
export const isBroken = (run) => BROKEN.has(run.state);

/** The state of a run by its word; with a `run`, its tip names the command for it. */
export function runOf(word, run = "") {
  const known = RUNS[word] ?? { ...UNKNOWN, word: word ?? "unknown" };
  return { ...known, tip: known.tip.replace("flavor resume", goesOn(run)) };
}

/** Whether a run that has not ended needs somebody: it cannot go on by itself or be read, or a process is missing. */
export const needs = (run) => !isOver(run) && Boolean(run.held || run.absent?.length);

/** Whether a run has ended. One that is damaged has not. */
export const isOver = (run) => Boolean(run.ended_ms) || ["finished", "failed", "stopped"].includes(run.state);

/** The state of a run, with the mark of one that needs somebody. */
export const stateOf = (run) => (needs(run) && !isBroken(run) ? { ...runOf(run.state, run.run), mark: "!", tone: "todo" } : runOf(run.state, run.run));

export const ROUNDS = {
  open: phase("○", "open", "now", "Sites train, and hand in their updates."),
  aggregating: phase("◐", "aggregating", "now", "An aggregator makes the next global model of the accepted updates."),
  closed: phase("✓", "closed", "well", "The round has its global model."),
  failed: phase("✕", "failed", "todo", "The run ended before this round was closed."),
};

/** Of a closed round, how it came to close. */
export const CLOSINGS = {
  all: phase("█", "all sites", "now", "Closed with an update of every site that it expected."),
  quorum: phase("▚", "fewer sites", "care", "Closed with enough updates, and not with those of all sites."),
  retried: phase("•", "tried again", "care", "Opened or aggregated more than once before it closed."),
};

/** What a site does within a round, in a timeline. */
/** The number of an evaluation on the operator's own data. */
export const CENTRAL = 999_999_999;

/** ` that a command has asked`, behind the sites of an evaluation that the run has not made by itself, as `flavor status` says it. */
export const byAsked = ({ evaluation }) => (evaluation && evaluation !== CENTRAL ? " that a command has asked" : "");

/** What an evaluation judges, as `Subject.words` of flavor/records/subject.py. Without a subject it is the model of the round. */
export function modelOf({ round, subject }) {
  const { kind = "global", site = "", round: of = round } = subject ?? {};
  if (kind === "outside") return "a model from outside";
  if (kind === "update") return `the update of ${site} in round ${count(of)}`;
  if (kind === "unknown") return site ? `the update of ${site}, or a model without it` : "a model that no round has made";
  return `the model of round ${count(of)}${site ? ` without ${site}` : ""}`;
}

export const STEPS = {
  downloading: "download",
  training: "train",
  uploading: "upload",
  uploaded: "inspection",
};

/** Groups of events that the list can be narrowed to. */
export const KINDS = {
  all: () => true,
  refusals: (name) => /^update\.(refused|ignored)|^client\.(quarantined|left_out|pardoned)/.test(name),
  sites: (name) => /^(client|update)\./.test(name),
  rounds: (name) => /^(run|round|evaluation)\./.test(name),
  aggregators: (name) => /^aggregator\.|^round\.(aggregating|attempt_failed|given_back|returned|note|closed)/.test(name),
};

/** Mark and tone of an event. */
export function eventOf(name) {
  if (/refused|failed|quarantined|client\.(lost|not_admitted|other_key)/.test(name)) return { mark: "✕", tone: "todo" };
  if (/waiting|stopped|given_back|returned|restarted|reopened|ignored|left_out|too_slow|outpaced|warned|key_replaced|round\.note/.test(name)) return { mark: "○", tone: "care" };
  if (/accepted|closed|finished/.test(name)) return { mark: "✓", tone: "well" };
  return { mark: "·", tone: "quiet" };
}
