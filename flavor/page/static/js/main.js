// The shell: which page an address names, whether it is live, and the keys that work everywhere.

import { clock, duration, full } from "./format.js";
import { attr, fill, show, text } from "./dom.js";
import { tips } from "./tips.js";

const main = document.getElementById("main");
const light = document.getElementById("live");
const cut = document.getElementById("cut");
const TOLD_S = 5;
let page = null;
let how = { live: false, since: null, first: true };

/** Says whether the page is live, and since when it is not. */
function said() {
  if (how.first) return;
  const at = clock(how.since);
  const away = how.missing ? "○ no such run" : how.over ? `○ not live since ${at}` : `○ cut off since ${at} (${duration((Date.now() - how.since) / 1000)}), trying again`;
  const asOf = how.live && how.asOf;
  const unread = how.live && how.unread;
  text(light, asOf ? `◐ as of ${clock(asOf)}` : unread ? "◐ not read" : how.live ? "● live" : away);
  const lasts = how.live || how.missing ? 0 : (Date.now() - how.since) / 1000;
  show(cut, lasts > TOLD_S);
  const ended = "○ This page ended with its run. What stands below is how the run ended: flavor ui FOLDER shows it again.";
  text(cut, lasts <= TOLD_S ? "" : how.over ? ended : `○ flavor ui has not answered since ${at}; what stands below is from before. If it has ended, perhaps with its \`flavor run --ui\`, start it again (flavor ui FOLDER, or flavor ui --redis-url URL): this page goes on by itself.`);
  light.className = asOf || unread ? "live off" : how.live ? "live on" : how.over && !how.missing ? "live" : "live off";
  const missing = "flavor ui answers, and there is no such run. The page goes on by itself once there is one.";
  const old = "Redis cannot be read. What you see is of that time, and its clocks stand. The page goes on by itself once Redis is back.";
  const damaged = "The run cannot be read. The page goes on by itself once it can.";
  attr(light, "data-tip", unread ? damaged : asOf ? old : how.live ? "What you see is what is: changes arrive by themselves." : how.missing ? missing : `Nothing has arrived from flavor ui since ${full(how.since)}. The page goes on by itself once it is back.`);
}

const shell = {
  /** Takes what `Live` says of its connection. */
  state(told) {
    how = told;
    said();
  },
  title: (words) => (document.title = words ? `${words} · flavor` : "flavor"),
};

function named(path) {
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  if (parts[0] === "run" && parts[1]) return ["run", parts[1]];
  if (parts[0] === "queue" || parts[0] === "compare") return [parts[0], ""];
  return ["runs", ""];
}

async function go() {
  let name = "runs";
  let what = "";
  try {
    [name, what] = named(location.pathname);
  } catch {
    // an address that is no text
  }
  for (const link of document.querySelectorAll(".top nav a")) {
    const path = link.getAttribute("href");
    attr(link, "aria-current", path === location.pathname || (path === "/" && name === "runs") ? "page" : null);
  }
  const { open } = await import(`./pages/${name}.js`);
  page?.close?.();
  shell.title(what);
  page = open(shell, what, new URLSearchParams(location.search));
  fill(main, page.node);
  page.shown?.();
}

/** Goes to another page of this application without loading it anew. */
function follow(event) {
  const link = event.target.closest?.("a[href^='/']");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || link.target) return;
  if (link.pathname.startsWith("/api/") || link.pathname.startsWith("/static/") || link.pathname === "/metrics") return;
  event.preventDefault();
  if (link.href !== location.href) history.pushState(null, "", link.href);
  scrollTo(0, 0);
  go();
}

document.addEventListener("click", follow);
addEventListener("popstate", go);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, select, textarea")) return;
  const field = [...document.querySelectorAll("input.filter")].find((input) => input.offsetParent);
  if (!field) return;
  event.preventDefault();
  field.focus();
  field.select();
});
setInterval(() => {
  if (!how.live) said();
  page?.tick?.();
}, 1000);
tips();
go();
