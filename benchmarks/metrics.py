"""How long a scrape takes, and what it costs Redis, for a run with 2,000 clients that all train.

`flavor metrics` runs in a process of its own, and the run stands in a real Valkey. Between two scrapes, some clients
hand in and the documents change, as they do in a round.

    python benchmarks/metrics.py
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
import urllib.request
from typing import Any

import psutil
from machine import save, table

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.protocol import SPEAKS

CLIENTS, SCRAPES, TARGET_MS = 2000, 20, 100.0
TYPES = "application/openmetrics-text;version=1.0.0"


def begin(url: str) -> RunStore:
    """A run whose first round is open for all clients."""
    redis = connect(url)
    runs = RunStore(redis, "measured", url)
    names = [f"site-{number:04}" for number in range(CLIENTS)]
    config = RunConfig.parse({"rounds": 9, "min_clients": CLIENTS, "store": "/nowhere"})
    runs.create(rounds=9, config=config.to_mapping())
    redis.set(runs.keys.coordinator, "bench")
    with redis.pipeline(transaction=False) as step:
        step.sadd(runs.keys.members, *names)
        now_ms = runs.now_ms()
        for name in names:
            keys = runs.keys.client(name)
            step.set(keys.lease, "x", px=600_000)
            fields = {"state": "ready", "round": "0", "host": "bench", "doing": "training", "doing_round": "1"}
            step.hset(keys.hash, mapping={**SPEAKS, **fields, "doing_ms": str(now_ms)})
        step.execute()
    runs.open_round("bench", 1, expected=names, timeout_s=3600.0, reason="all are ready")
    return runs


def cpu_s(pid: int) -> float:
    """CPU time of a process, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def measure(url: str, runs: RunStore, labelled: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "flavor.cli.main", "metrics", "--port", "0", "--redis-url", url]
    process = subprocess.Popen([*command, "--max-clients-labelled", str(labelled)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"metrics at (\S+);", process.stderr.readline())
        assert found
        request = urllib.request.Request(found[1], headers={"Accept": TYPES})
        took_ms, cpu_ms, body = [], 0.0, b""
        while f'flavor_run_round{{run="{runs.run}"}}'.encode() not in body:
            body = urllib.request.urlopen(request).read()
            time.sleep(0.2)
        for scrape in range(SCRAPES):
            for number in range(10):
                keys = runs.keys.client(f"site-{scrape * 10 + number:04}")
                runs.redis.hset(keys.hash, "doing", "uploading")
                runs.redis.publish(keys.state, "ready")
            time.sleep(0.7)
            before = runs.redis.info("commandstats")
            began, used = time.perf_counter(), cpu_s(process.pid)
            body = urllib.request.urlopen(request).read()
            took_ms.append((time.perf_counter() - began) * 1000)
            cpu_ms += (cpu_s(process.pid) - used) * 1000
            after = runs.redis.info("commandstats")
        calls = sum(each["calls"] - before.get(name, {"calls": 0})["calls"] for name, each in after.items())
        memory = psutil.Process(process.pid).memory_info().rss / 2**20
    finally:
        process.terminate()
        process.wait()
    return {
        "clients": CLIENTS,
        "labelled": labelled,
        "samples": sum(not line.startswith(b"#") for line in body.splitlines()),
        "KiB": round(len(body) / 1024),
        "ms, median": round(statistics.median(took_ms), 1),
        "ms, slowest of 20": round(max(took_ms), 1),
        "CPU ms": round(cpu_ms / SCRAPES, 1),
        "Redis commands": calls - 1,  # without the one that counts
        "MiB": round(memory),
    }


def main() -> None:
    rows = []
    with embedded_server() as url:
        runs = begin(url)
        rows = [measure(url, runs, labelled) for labelled in (200, CLIENTS)]
    print(table(rows))
    save("metrics", rows)
    print(f"target: under {TARGET_MS:.0f} ms with the default of 200 labelled clients")


if __name__ == "__main__":
    main()
