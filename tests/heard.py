"""A run that a test moves, and a reader that hears what is published of it."""

from __future__ import annotations

import time

from flavor.bus.connection import connect
from flavor.bus.keys import every_run_patterns, parse_run_channel
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.config import RunConfig
from flavor.view.facts import Facts
from flavor.view.facts_reader import FactsReader
from flavor.view.run_log import RunLog

TOKEN = "t"
CONFIG = {"rounds": 50, "store": "s", "min_clients": 2, "quarantine_after": 2, "on_quorum_lost": "retry"}


class Heard:
    """A run that the test moves, its reader, and what the reader has to hear."""

    def __init__(self, url: str) -> None:
        self.redis = connect(url)
        self.redis.flushall()
        self.runs = RunStore(self.redis, "r", url)
        self.log = RunLog(self.runs)
        self.later_s = 0.0
        self.reader = FactsReader(self.runs, self.log, credit=1e6, clock=lambda: time.monotonic() + self.later_s)
        self.subscription = Subscription(connect(url), url, patterns=every_run_patterns())
        self.subscription.open()
        self.heard = 0
        self.runs.create(rounds=50, config=RunConfig.parse(CONFIG).to_mapping())
        self.redis.set(self.runs.keys.coordinator, TOKEN)

    def hear(self) -> None:
        """Have the reader hear all that was published until now."""
        self.heard += 1
        last = self.runs.keys.round(10**6 + self.heard)
        self.redis.publish(last, "")
        woken: list[str] = []
        while last not in woken:
            woken += self.subscription.wait(1.0)
            saying = self.subscription.saying
            assert RESYNC not in woken
            for channel in woken:
                parsed = parse_run_channel(channel)
                assert parsed is not None
                if channel != last:
                    self.reader.hear(parsed[1], says=channel in saying)

    def look(self) -> Facts:
        self.hear()
        return self.reader.look()[0]

    def close(self) -> None:
        self.subscription.close()
