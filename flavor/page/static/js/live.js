// Follows a run, or the list of runs: a document, and then what changes in it (RFC 7396).

import { get, of } from "./api.js";
import { heard, now, stop } from "./clock.js";

/** Applies a merge patch (RFC 7396) in place where it can, and returns the document. */
export function patched(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const into = target !== null && typeof target === "object" && !Array.isArray(target) ? target : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete into[name];
    else if (Object.hasOwn(into, name)) into[name] = patched(into[name], value);
    else Object.defineProperty(into, name, { value: patched(undefined, value), writable: true, enumerable: true, configurable: true });
  }
  return into;
}

const FIRST_S = 1;
const LONGEST_S = 10;
const SILENT_S = 45; // then the stream is opened anew, as a proxy or the sleep of a laptop may have cut it without a word
const ANSWER_S = 10;
const UNSEEN_MS = 60_000; // a tab that is not looked at gives its connection back: a browser has six for a server

/**
 * One stream. `on` has `document(doc)`, `log(events)`, `problem(line, isAway)` (of Redis, or of this run alone) and `state({live, since, missing, asOf})`.
 * The browser itself reconnects with Last-Event-ID; where it gives up, this opens a new stream.
 */
export class Live {
  constructor(run, on) {
    this.on = on;
    this.run = run;
    this.document = null;
    this.isClosed = false;
    this.wait = FIRST_S;
    this.cut = Date.now();
    this.missing = "";
    this.asOf = null;
    this.heardMs = Date.now();
    this.open();
    this.watch = setInterval(() => this.look(), 5000);
    this.seen = () => this.show();
    document.addEventListener("visibilitychange", this.seen);
  }

  open() {
    const query = new URLSearchParams({ ...(this.run === null ? {} : { run: this.run }), ...(this.last ? { last: this.last } : {}) });
    const source = (this.source = new EventSource(`/api/stream?${query}`));
    const on = (name, action) =>
      source.addEventListener(name, (event) => {
        if (this.isClosed || source !== this.source) return;
        this.heardMs = Date.now();
        this.last = event.lastEventId;
        this.alive();
        action(JSON.parse(event.data));
      });
    source.addEventListener("open", () => {
      if (this.isClosed || source !== this.source) return;
      this.heardMs = Date.now();
      this.renewed = false;
      this.alive();
      this.problem(""); // where there still is one, the server tells it again
    });
    on("clock", heard);
    on("document", (document) => {
      this.document = document;
      heard(document.now_ms);
      this.on.document(document);
    });
    on("patch", (patch) => {
      if (this.document === null) return;
      this.document = patched(this.document, patch);
      heard(patch.now_ms);
      this.on.document(this.document);
    });
    on("log", (events) => this.on.log?.(events));
    on("asof", (ms) => (this.readMs = ms));
    on("runasof", (ms) => {
      this.readMs = ms;
      this.isOfRun = true; // Redis answers, and has this run no more, or none that can be read
    });
    on("problem", (line) => this.problem(line));
    source.addEventListener("error", () => {
      if (this.isClosed || source !== this.source) return;
      this.lost();
      if (source.readyState === EventSource.CLOSED) {
        this.ask();
        this.again();
      }
    });
  }

  /** While Redis or the run cannot be read, the page is of the time when it was read last, and its clock stands. */
  problem(line) {
    const before = this.asOf;
    this.asOf = line ? (this.readMs ?? null) : null;
    const isAway = this.asOf !== null && !this.isOfRun;
    this.readMs = null;
    this.isOfRun = false;
    stop(this.asOf);
    if (this.asOf !== before) this.on.state({ live: true, since: null, asOf: this.asOf });
    this.on.problem?.(line, isAway);
  }

  alive() {
    if (this.cut === null) return;
    this.cut = null;
    this.missing = "";
    this.wait = FIRST_S;
    stop(this.asOf);
    this.on.state({ live: true, since: null, asOf: this.asOf });
  }

  lost() {
    if (this.cut === null) stop(now()); // what is shown is from before
    this.cut ??= Date.now();
    this.on.state({ live: false, since: this.cut, missing: this.missing });
  }

  /**
   * A stream does not tell why it is refused. Where the token is another one now, the page asks for it. A run that is
   * not there any more is told from a server that does not answer: `missing` says why.
   */
  async ask() {
    const path = this.run === null ? "/api/runs" : `/api/${of(this.run)}`;
    const answer = await fetch(path, { method: "HEAD" }).catch(() => null);
    if (this.isClosed) return;
    if (answer?.status === 401) location.reload();
    let missing = "";
    if (answer?.status === 404) await get(of(this.run)).catch((error) => (missing = error.status === 404 ? error.message : ""));
    if (this.isClosed || this.cut === null) return;
    this.missing = missing;
    this.lost();
  }

  /** A hidden page rests after a while, and goes on after the last id once it is looked at. */
  show() {
    clearTimeout(this.resting);
    if (document.hidden) {
      this.resting = setTimeout(() => {
        this.rests = true;
        this.source.close();
      }, UNSEEN_MS);
    } else if (this.rests) {
      this.rests = false;
      this.heardMs = Date.now();
      this.open();
    }
  }

  again() {
    this.source.close();
    if (this.isClosed || this.rests || this.timer) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (!this.isClosed && !this.rests) this.open();
    }, this.wait * 1000);
    this.wait = Math.min(LONGEST_S, this.wait * 2);
  }

  look() {
    const silent = Date.now() - this.heardMs;
    if (this.rests) return;
    if (this.cut !== null || silent < SILENT_S * 1000) return;
    if (this.renewed) {
      if (silent > (SILENT_S + ANSWER_S) * 1000) this.lost();
      return;
    }
    this.renewed = true;
    this.source.close();
    this.open(); // goes on after the last id: where nothing has happened, nothing is sent
  }

  close() {
    this.isClosed = true;
    stop(null);
    clearInterval(this.watch);
    clearTimeout(this.timer);
    clearTimeout(this.resting);
    document.removeEventListener("visibilitychange", this.seen);
    this.source.close();
  }
}
