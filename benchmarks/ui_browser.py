"""How soon a browser shows a run, and what happens in it: `flavor ui` as a process, and Debian's Chromium before it.

    python benchmarks/ui_browser.py                   # both
    python benchmarks/ui_browser.py big --seconds 60  # 2,000 clients and 1,000 rounds

`paint`: from the navigation until sites, rounds and curve are drawn, in a browser that has loaded nothing before.
`pixels`: from the time that Redis gives an entry of the log to the frame that draws it; of a run with eight edges whose
training costs nothing, and of one with 2,000 clients. Browser and server share the machine with the run.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import save, table
from playwright.sync_api import sync_playwright
from ui import BIG, BigRun, Page, small_run, start_edges, until

from flavor.bus.embedded import embedded_server
from flavor.local.processes import ProcessGroup

TARGETS = {"paint_s": 1.0, "pixels_p95_s": 1.0}
WATCH = """(() => {
  window.late = [];
  window.drawn = {};
  const after = (action) => requestAnimationFrame(() => setTimeout(action));
  const parts = { sites: ".sites .item .word", rounds: ".strip .bar", curve: ".chart canvas" };
  new MutationObserver((changes) => {
    for (const [name, where] of Object.entries(parts)) {
      if (window.drawn[name] || !document.querySelector(where)) continue;
      window.drawn[name] = 1;
      after(() => (window.drawn[name] = performance.now()));
    }
    for (const change of changes) {
      for (const node of change.addedNodes) {
        const time = node.parentNode?.matches?.(".events .log") && node.querySelector("time");
        if (time) after(() => window.late.push(Date.now() - Date.parse(time.dateTime)));
      }
    }
  }).observe(document, { subtree: true, childList: true });
})()"""
"""Notes when the parts of a page are drawn first, and how late each event is drawn."""


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


def opened(chromium: Any, page: Page, run: str) -> Any:
    """Open the page of a run in a browser that has loaded nothing before, and wait until all of it is drawn."""
    window = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
    window.add_init_script(WATCH)
    window.goto(f"http://127.0.0.1:{page.port}/run/{run}", wait_until="commit")
    window.wait_for_function("() => ['sites', 'rounds', 'curve'].every((name) => window.drawn[name] > 1)")
    return window


def late(window: Any) -> dict[str, Any]:
    """How late the events were drawn that came after the first ones."""
    found = sorted(window.evaluate("() => window.late"))
    if not found:
        return {"events_drawn": 0, "pixels_p50_s": "", "pixels_p95_s": "", "pixels_max_s": ""}
    at = {"pixels_p50_s": 0.5, "pixels_p95_s": 0.95, "pixels_max_s": 1.0}
    shares = {name: found[min(len(found) - 1, int(len(found) * share))] / 1000 for name, share in at.items()}
    return {"events_drawn": len(found), **shares}


def begin(window: Any) -> None:
    """Forget the events that had happened before."""
    window.evaluate("() => { window.late = []; }")


def small(chromium: Any, rounds: int, edges: int) -> dict[str, Any]:
    """Measure a run of eight edges from its third round to its end."""
    with tempfile.TemporaryDirectory(prefix="ui-") as name, small_run(Path(name), rounds, edges) as begun:
        processes, url, runs = begun
        folder = Path(name)
        page = Page(processes, url, folder / "ui.log")
        start_edges(processes, url, folder, edges)
        until("round 3", lambda: runs.read().round >= 3)
        window = opened(chromium, page, "overhead")
        begin(window)
        first, began = runs.read().round, time.monotonic()
        while not runs.read().state.ended:
            window.wait_for_timeout(500)
        per_s = (runs.read().round - first) / (time.monotonic() - began)
        window.wait_for_timeout(2000)
        return {"what": f"{edges} edges", "rounds_s": per_s, **late(window)}


def big(chromium: Any, clients: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure the first paint of a large run, and its events, ten a second."""
    with tempfile.TemporaryDirectory(prefix="ui-") as name, embedded_server() as url, ProcessGroup() as processes:
        run = BigRun(url, clients, rounds)
        page = Page(processes, url, Path(name) / "ui.log")
        page.get(f"/api/runs/{BIG}")
        paints: list[dict[str, float]] = []
        for _ in range(5):
            window = opened(chromium, page, BIG)
            paints.append(window.evaluate("() => window.drawn"))
            window.context.close()
        stop = threading.Event()
        beats = threading.Thread(target=run.beat, args=[stop], daemon=True)
        beats.start()
        window = opened(chromium, page, BIG)
        begin(window)
        end = time.monotonic() + seconds
        for client in run.names:
            run.accept(client)
            window.wait_for_timeout(100)
            if time.monotonic() > end:
                break
        window.wait_for_timeout(2000)
        stop.set()
        beats.join()
        drawn = {f"{part}_s": statistics.median(each[part] for each in paints) / 1000 for part in paints[0]}
        paint = statistics.median(max(each.values()) for each in paints) / 1000
        return {"what": f"{clients} clients, {rounds} rounds", "paint_s": paint, **drawn, **late(window)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["small", "big"])
    parser.add_argument("--edges", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long events come in the large run")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with browser() as chromium:
        if options.what in (None, "small"):
            found.append(small(chromium, options.rounds, options.edges))
            print(table(found[-1:]), flush=True)
        if options.what in (None, "big"):
            found.append(big(chromium, options.clients, 1000, options.seconds))
            print(table(found[-1:]), flush=True)
    if options.what is None:
        print(f"targets: {TARGETS}\nwritten to {save('ui_browser', found)}")


if __name__ == "__main__":
    main()
