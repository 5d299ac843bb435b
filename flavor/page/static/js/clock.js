// Times by the server's clock: the page counts up by itself, and asks for nothing while only time passes.

let offset = null; // server minus browser, in ms
let seen = [];
let stopped = null; // the time at which the clock stands, in ms by the server's clock

/** Takes what the server's clock showed. A message is late and never early: the largest difference is nearest. */
export function heard(serverMs) {
  if (!Number.isFinite(serverMs)) return;
  seen = [...seen.slice(-19), serverMs - Date.now()];
  offset = Math.max(...seen);
}

/** Has the clock stand at this time, of which everything is that the page shows; null lets it go on. */
export const stop = (ms) => (stopped = ms);

/** Now, in ms since 1970 by the server's clock. */
export const now = () => stopped ?? Date.now() + (offset ?? 0);

/** Seconds since this time; null where it is not known. */
export const since = (ms) => (Number.isFinite(ms) ? Math.max(0, (now() - ms) / 1000) : null);

/** For how many seconds a round has been open, up to now or another time, without the time for which its run had ended. */
export const openFor = (round, untilMs = now()) => (Number.isFinite(round.worked_from_ms) ? Math.max(0, (untilMs - round.worked_from_ms) / 1000) : null);
