"""Injects random faults into a run with eight edges for minutes, and then checks the recorded history.

One Redis (append-only), a coordinator and a second one now and then, two aggregators, eight enrolled edges with a
trainer each; a proxy before each of them. Every second or so something happens to one of them: it is killed, told to
end by SIGTERM, paused past its lease, cut off, throttled, hears no publication, finds Redis full, away or restarted,
has its update spoiled, the store's disk full (for root alone), or is started with a wrong store (a site). What ended is
started again, as a supervisor would. At half time the history is checked, Redis loses everything, and `flavor recover`
rebuilds the run from the store. At the end, without faults, two more rounds must close; then `tests/faults/history.py`
checks the run again: each round committed once, from exactly the recorded contributors, nothing acknowledged lost,
rounds only up. The store is audited both times, as `flavor verify` does. A round that loses its quorum waits, as
`flavor serve` has it by default; with `--on-quorum-lost retry` it is opened again. `--mode` is that of `flavor serve`:
a stale update then has to count by its staleness.

The same seed draws the same faults, at the same times and against the same processes; what those are doing then is up
to the machine. A fault that cannot happen then, because its target is down already, does not count.

    python benchmarks/soak.py --minutes 10 --seed 1
    python benchmarks/soak.py --minutes 10 --mode async:buffer=4,max_staleness=3
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import save, table
from soak_auditor import Auditor
from soak_driver import EDGES, LONG_S, QUORUM, Driver
from soak_injector import Fault, Injector, drawn

from flavor.local.processes import ProcessGroup
from flavor.policy.mode import SYNC
from tests.faults.history import Broken

LATE_S = 5.0
"""A schedule that runs later than this is reported: its faults came closer together than they were drawn."""


def soak(minutes: float, seed: int, folder: Path, on_quorum_lost: str, mode: str) -> dict[str, Any]:
    """One soak's figures; `broken` says what does not hold, and is '' where everything does."""
    driver = Driver(folder, seed, on_quorum_lost, mode)
    injector, auditor = Injector(driver), Auditor(driver)
    quorum = f"mode {driver.mode}; a lost quorum: {driver.on_quorum_lost}"
    print(f"seed {seed}: {minutes:g} minutes, {len(EDGES)} edges; {quorum}; logs in {folder}", flush=True)
    faults = drawn(seed, 60 * minutes)
    half = len(faults) // 2
    broken = ""
    with contextlib.closing(driver), ProcessGroup() as processes:
        driver.start_all(processes)
        try:
            wait_for(driver, 1, "the first round")
            under_fire(injector, faults[:half])
            wait_for(driver, driver.rounds() + 2, "two rounds without faults, at half time")
            auditor.check()
            rebuilt = auditor.lose_everything()
            print(f"  Redis lost everything; the run was rebuilt after round {rebuilt}", flush=True)
            wait_for(driver, rebuilt + 1, "the first round after that")
            under_fire(injector, faults[half:])
            wait_for(driver, driver.rounds() + 2, "two rounds without faults")
            auditor.check()
        except Broken as error:
            broken = str(error)
        rounds = driver.rounds()
        auditor.go_on()
    for what, number in sorted(injector.injected.items()):
        print(f"  {number:5d}  {what}")
    print(f"  restarts: {dict(sorted(driver.restarts.items()))}")
    return {
        "seed": seed,
        "minutes": minutes,
        "rounds": rounds,
        "faults": injector.injected.total() + 1,
        "by_kind": {**dict(sorted(injector.injected.items())), "server lost everything": 1},
        "mode": driver.mode,
        "on_quorum_lost": driver.on_quorum_lost,
        **auditor.figures,
        "rounds_audited": auditor.rounds_audited,
        "longest_round_s": auditor.longest_round_s,
        "broken": broken,
    }


def under_fire(injector: Injector, faults: Sequence[Fault]) -> None:
    """Inject these as they are due, then mend everything."""
    driver = injector.driver
    began = shown = time.monotonic()
    late_s = 0.0
    for fault in faults:
        due = began + fault.at_s - faults[0].at_s
        while time.monotonic() < due:
            driver.look_again(0.05)
        late_s = max(late_s, time.monotonic() - due)
        injector.inject(fault)
        if time.monotonic() - shown > 30 and driver.answers:
            shown = time.monotonic()
            print(f"  {driver.rounds()} rounds, {injector.injected.total()} faults", flush=True)
    if late_s > LATE_S:
        print(f"  the faults came up to {late_s:.1f} s later than they were drawn", flush=True)
    driver.settle()


def wait_for(driver: Driver, rounds: int, what: str) -> None:
    """Wait until so many rounds are closed, with supervision and no faults."""
    deadline = time.monotonic() + LONG_S
    while driver.rounds() < rounds:
        driver.look_again(0.1)
        if time.monotonic() > deadline:
            view = driver.runs.find()
            raise SystemExit(f"{what}: not within {LONG_S:g} s; the run is {view}; logs in {driver.folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--seed", type=int, action="append", help="may be repeated; one soak each  [default: a new one]"
    )
    parser.add_argument("--on-quorum-lost", choices=sorted(QUORUM), default="wait")
    parser.add_argument("--mode", default=SYNC, help="that of `flavor serve`, such as async:buffer=4,max_staleness=3")
    parser.add_argument("--keep", action="store_true", help="keep the logs and the store")
    options = parser.parse_args()
    rows = []
    for seed in options.seed or [random.SystemRandom().randrange(10**6)]:
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
        rows.append(soak(options.minutes, seed, folder, options.on_quorum_lost, options.mode))
        if not options.keep and not rows[-1]["broken"]:
            shutil.rmtree(folder, ignore_errors=True)
    print(table([{key: value for key, value in row.items() if key not in ("by_kind", "broken")} for row in rows]))
    kinds = sum((Counter(row["by_kind"]) for row in rows), Counter[str]())
    print(table([{"fault": kind, "times": number} for kind, number in kinds.most_common()]))
    if broken := [f"seed {row['seed']}: {row['broken']}" for row in rows if row["broken"]]:
        raise SystemExit("\n".join(broken))
    print("every invariant held")
    print(f"written to {save('soak', rows)}")


if __name__ == "__main__":
    main()
