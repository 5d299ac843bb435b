"""SIGTERM to an aggregator at random moments: it ends soon, and no job is lost.

    python benchmarks/signals.py [TIMES] [--seed N]      # 500 times by default: two minutes

Jobs of a millisecond come without a pause. Each turn forks a worker, as `flavor-agg` does, signals it at a random
moment of its life, some before it listens and most while it takes or does a job, and looks at what is left: every job
was done, or waits in the queue; nothing was dropped, nothing hangs between the queue and a worker. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from redis import Redis

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.jobs import RqJobQueue
from flavor.bus.keys import DROPPED
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import RunRecord
from flavor.store.open import open_store
from flavor.store.protocol import ObjectStore
from workers.serving import serve

QUEUE, JOBS = "q", 60
LONGEST_S = 0.25
"""Most turns are signalled within this time of their fork."""


def worker(url: str, store: ObjectStore) -> int:
    """Fork one."""
    child = os.fork()
    if child:
        return child
    try:
        serve(url, store, queue=QUEUE, threads=1, tell=lambda _: None)
    except BaseException as error:  # it is a fork: nothing of the parent's may run in it
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def lost(redis: Redis) -> list[str]:
    """Return the jobs that were not done, and that no worker will take."""
    waiting = {identity.decode() for identity in redis.lrange(f"rq:queue:{QUEUE}", 0, -1)}
    left = [key.decode() for key in redis.scan_iter("rq:job:*", 1000)]
    return [key for key in left if key.removeprefix("rq:job:") not in waiting]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("times", type=int, nargs="?", default=500)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    draw, took, codes = random.Random(asked.seed), [], {}
    with tempfile.TemporaryDirectory() as folder, embedded_server() as url:
        store = open_store(str(Path(folder) / "store"), create=True)
        runs, raw, jobs = (
            RunStore(connect(url), "r", url),
            Redis.from_url(url, protocol=2),
            RqJobQueue(url, QUEUE, timeout_s=60),
        )
        config = RunConfig(rounds=1, min_clients=1, store=store.url).to_mapping()
        record = RunRecord(run="r", run_id="0" * 32, rounds=1, config=config)
        Archive(store, "r").begin(record)
        runs.create(rounds=1, config=config, run_id=record.run_id)
        runs.redis.set(runs.keys.coordinator, "t")
        runs.open_round("t", 1, expected=["a"], timeout_s=3600, reason="go")
        for turn in range(asked.times):
            for each in range(JOBS):
                jobs.inspect("r", 1, ["a"], attempt=turn * JOBS + each)
            process = worker(url, store)
            time.sleep(draw.uniform(0, LONGEST_S))
            began = time.monotonic()
            os.kill(process, signal.SIGTERM)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            took.append(time.monotonic() - began)
            codes[code] = codes.get(code, 0) + 1
        between = raw.lrange(f"rq:queue:{QUEUE}:intermediate", 0, -1)
        found = {
            "times": asked.times,
            "seed": asked.seed,
            "exit_codes": {str(code): number for code, number in sorted(codes.items())},
            "longest_s": round(max(took), 3),
            "median_s": round(sorted(took)[len(took) // 2], 3),
            "done": asked.times * JOBS - raw.llen(f"rq:queue:{QUEUE}"),
            "lost": len(lost(raw)),
            "between": len(between),
            "dropped": raw.xlen(DROPPED),
            "failed": raw.zcard(f"rq:failed:{QUEUE}"),
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
