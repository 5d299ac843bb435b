// Numbers for people, in the words and units of flavor's terminal commands.

const UNITS = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];

/** A duration in seconds: `9 s`, `14 min`, `23 h 59 min`. From five minutes on, seconds say nothing. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  for (const [size, unit, small, smaller] of UNITS) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / small);
      const told = rest && !(unit === "min" && whole >= 300);
      return `${Math.floor(whole / size)} ${unit}${told ? ` ${rest} ${smaller}` : ""}`;
    }
  }
  return `${whole} s`;
}

/** The time of a round: `440 ms`, `4.2 s`, `42 s`, `8:40`, `1:02:05`. */
export function lap(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 0.9995) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** Bytes in units of 1000: `126 MB`, `9.8 kB`. */
export function bytes(count) {
  if (!Number.isFinite(count)) return "–";
  let value = count;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (value < 1000 || unit === "TB") return `${unit === "B" ? value : value < 100 ? +value.toPrecision(2) : Math.round(value)} ${unit}`;
    value /= 1000;
  }
  return "";
}

/** How much has moved: `61 of 126 MB`. */
export function moved(done, total) {
  const [name, size] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["B", 1]].find(([, least]) => total >= least) ?? ["B", 1];
  return `${+(done / size).toPrecision(3)} of ${+(total / size).toPrecision(3)} ${name}`;
}

/** Whether a metric is a count that says nothing in a line: of a confusion matrix, or one that is summed over the sites. */
export const isCount = (name) => /(^|\/)confusion|^count\//.test(name);

const NO_MEANS = { "pooled/": "pooled", "count/": "sum", "central/": "own data" };

/** The one value of a metric that is no mean of the sites' values: "pooled", "sum" or "own data"; "" for one with means. */
export const notMean = (name) => NO_MEANS[name.match(/^[a-z]+\//)?.[0]] ?? "";

/** ` (plain mean)` of a metric of several sites, by its name in `--select`; "" where the name says more. */
export const meanOf = (name, sites, kind = "plain") => (sites > 1 && !notMean(name) && !/^worst\/| \(weighted\)$/.test(name) ? ` (${kind} mean)` : "");

/** A count: `1,204`. */
export const count = (n) => (Number.isFinite(n) ? String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ",") : "–");

/** A pooled value with its largest error, where that is known: `0.912 ± 0.004`. */
export const bounded = (value, bound) => `${metric(value)}${Number.isFinite(bound) ? ` ± ${metric(bound)}` : ""}`;

/** A metric to four digits, as `flavor status` prints it. */
export function metric(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(+value.toPrecision(4));
}

/** What a site has measured: its number, or the word for what is none; a dash for what it does not report. */
export function measured(value, word) {
  return Number.isFinite(value) || !word ? metric(value) : { Infinity: "inf", "-Infinity": "-inf" }[word] ?? word;
}

/**
 * Where a value was reported, and which model it belongs to: sites evaluate the model that they get, before they train.
 * `flavor status` says the same.
 */
export const reported = (round) => `reported in round ${count(round)}${round > 1 ? `, which began from the model of round ${count(round - 1)}` : ""}`;

/** ` of 2 of 3 sites`; "" where all sites of the round report the metric. */
export const ofSites = (sites, all) => (sites < all ? ` of ${count(sites)} of ${counted(all, "site")}` : "");

/** `not compared: round 5, in which fewer than 3 sites report it`, as `flavor status` says it; "" where all are. */
export function notCompared(best) {
  if (!best?.fewer) return "";
  const which = best.fewer === 1 ? `round ${count(best.newest_fewer)}` : `${count(best.fewer)} rounds, the newest of them round ${count(best.newest_fewer)}`;
  let who = `fewer than ${counted(best.usual, "site")}`;
  if (best.others) who = best.others === best.fewer ? "other sites" : `${who} or other ones`;
  const alone = best.compared === 1 ? `, so that only round ${count(best.round)} is compared` : "";
  return `not compared: ${which}, in which ${who} report it${alone}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (n) => String(n).padStart(2, "0");

// By hand: Intl.DateTimeFormat takes a tenth of a second to begin with, which the first paint does not have.
const day = (date) => `${date.getDate()} ${MONTHS[date.getMonth()]}`;
const time = (date, seconds) => `${two(date.getHours())}:${two(date.getMinutes())}${seconds ? `:${two(date.getSeconds())}` : ""}`;

/** The time of day, with the date where that is not today's. */
export function clock(ms, { seconds = true } = {}) {
  if (!Number.isFinite(ms)) return "–";
  const date = new Date(ms);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? time(date, seconds) : `${day(date)} ${time(date, seconds)}`;
}

/** Date, time and zone, for a tooltip. */
export function full(ms) {
  if (!Number.isFinite(ms)) return "";
  const date = new Date(ms);
  const east = -date.getTimezoneOffset();
  const zone = `UTC${east < 0 ? "-" : "+"}${two(Math.floor(Math.abs(east) / 60))}:${two(Math.abs(east) % 60)}`;
  return `${day(date)} ${date.getFullYear()} ${time(date, true)} ${zone}`;
}

/** The order of names: site-2 stands before site-10. */
export const byName = new Intl.Collator("en", { numeric: true }).compare;

/** `1 site`, `3 sites`. */
export const counted = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** Which earlier round's task a site does, or has done, in a round. */
export const earlier = (item) => `task of round ${count(item.task_round)}, ${counted(item.staleness, "round")} before`;

/** A word as a shell reads it. */
export const quoted = (word) => (/^[\w./:@%+=-]+$/.test(word) ? word : `'${String(word).replaceAll("'", `'"'"'`)}'`);

const folders = new Map();

/** Notes that commands name a run by its result folder. Returns whether that is new. */
export function isIn(run, folder) {
  const was = folders.get(run) ?? "";
  folders.set(run, folder);
  return was !== folder;
}

/** Whether commands name a run by its result folder: its Redis is no server that others reach by a URL. */
export const hasFolder = (run) => Boolean(folders.get(run));

/** A path in the result folder of a run. */
export const inFolder = (run, path) => quoted(`${String(folders.get(run)).replace(/\/$/, "")}/${path}`);

/** A run as commands name it: by its result folder, where it has one, or by its name. */
export const called = (run) => quoted(folders.get(run) || run);

/** `a, b and 3 more`. */
export function some(names, most = 3) {
  if (names.length <= most) return names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names.join("");
  return `${names.slice(0, most).join(", ")} and ${count(names.length - most)} more`;
}
