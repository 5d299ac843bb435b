"""How long from SetEvent in one process to the waiter's return in another, beside a bare pub/sub round trip.

Both sides on one server, in one run, in alternating blocks of 100, so that the machine's other work hits both.
The clock is the system's monotonic one, which two processes share.

    python benchmarks/latency.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

from machine import save, table

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.events import ClientEvents
from flavor.bus.keys import RunKeys
from flavor.bus.runs import RunStore
from flavor.bus.subscription import Subscription
from flavor.records.names import Event

BLOCK, BLOCKS = 100, 10
TARGET_RATIO = 3.0


def trainer(url: str) -> None:
    """The other process: answers pings bare, and rounds through the trainer's face."""
    from flavor.cook.utils import SetEvent, WaitEvent

    redis = connect(url)
    subscription = Subscription(redis, url, channels=["ping"])
    subscription.open()
    SetEvent("TrainInitDone")
    for _ in range(BLOCKS):
        for _ in range(BLOCK):
            while "ping" not in subscription.wait(60):
                pass
            redis.publish("pong", "")
        for _ in range(BLOCK):
            round_ = WaitEvent("TrainStarted")
            returned = time.monotonic_ns()
            redis.lpush("returned", f"{round_} {returned}")
            redis.blpop("go", timeout=60)
            redis.set("setting", time.monotonic_ns())
            SetEvent("TrainFinished")


def measure(url: str) -> list[dict[str, Any]]:
    redis = connect(url)
    keys = RunKeys("latency")
    RunStore(redis, "latency", url).create(rounds=BLOCK * BLOCKS, config={})
    redis.set(keys.client("c").lease, "host:1:x")
    environment = {**os.environ, "FLAVOR_RUN": "latency", "FLAVOR_CLIENT": "c", "FLAVOR_REDIS_URL": url}
    other = subprocess.Popen([sys.executable, __file__, url], env=environment)
    events = ClientEvents(url, "latency", "c")
    subscription = Subscription(redis, url, channels=["pong"])
    subscription.open()
    events.wait(Event.TRAIN_INIT_DONE, 0, timeout_s=60)
    bare, started, finished = [], [], []
    for block in range(BLOCKS):
        for _ in range(BLOCK):
            began = time.monotonic_ns()
            redis.publish("ping", "")
            while "pong" not in subscription.wait(60):
                pass
            bare.append(time.monotonic_ns() - began)
        for i in range(BLOCK):
            round_ = block * BLOCK + i + 1
            began = time.monotonic_ns()
            events.start_round(round_)
            _, answer = redis.blpop("returned", timeout=60)  # type: ignore[misc]
            started.append(int(answer.split()[1]) - began)
            redis.lpush("go", "")
            events.wait(Event.TRAIN_FINISHED, round_, timeout_s=60)
            finished.append(time.monotonic_ns() - int(redis.get("setting")))  # type: ignore[arg-type]
    other.wait(60)
    base = statistics.median(bare)
    return [
        {
            "what": name,
            "median_us": statistics.median(times) / 1e3,
            "p99_us": statistics.quantiles(times, n=100)[98] / 1e3,
            "of_bare": statistics.median(times) / base,
            "target": target,
        }
        for name, times, target in (
            ("bare pub/sub round trip", bare, ""),
            ("SetEvent to the waiting edge", finished, f"<= {TARGET_RATIO:g}"),
            ("edge's TrainStarted to WaitEvent", started, f"<= {TARGET_RATIO:g}"),
        )
    ]


def import_cost() -> list[dict[str, Any]]:
    """What `import flavor.cook.utils` adds to `import redis`, in fresh processes, alternating."""

    def milliseconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - began) * 1e3

    base, ours = [], []
    for _ in range(15):
        base.append(milliseconds("import redis"))
        ours.append(milliseconds("import redis, flavor.cook.utils, flavor.bus.events"))
    added = statistics.median(b - a for a, b in zip(base, ours, strict=True))
    return [{"what": "import flavor.cook.utils over import redis", "median_ms": added, "target": "<= 40"}]


def main() -> None:
    if len(sys.argv) > 1:
        trainer(sys.argv[1])
        return
    with embedded_server() as url:
        rows = measure(url)
    imports = import_cost()
    print(f"{table(rows)}\n\n{table(imports)}")
    print(f"written to {save('latency', [*rows, *imports])}")


if __name__ == "__main__":
    main()
