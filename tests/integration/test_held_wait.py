"""A wait whose words stay the same while it becomes one that cannot end by itself."""

from __future__ import annotations

from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.wait_log import Waits
from flavor.view.observer import Lines
from tests.conftest import Bench


def test_a_wait_that_becomes_a_held_one_is_logged_as_held(bench: Bench) -> None:
    """Else no message tells of it: messages are about waits that cannot end by themselves."""
    observer = Lines(lambda _: None)
    waits = Waits(bench.runs, ClientLog(bench.runs, observer), observer)
    waits.unusual(1, "the aggregation is in the queue", is_postponed=True)
    waits.unusual(1, "the aggregation is in the queue", is_postponed=True)
    waits.unusual(1, "the aggregation is in the queue")
    waits.unusual(1, "the aggregation is in the queue")
    assert [(entry["reason"], entry.get("held", "")) for entry in bench.log()] == [
        ("the aggregation is in the queue", ""),
        ("the aggregation is in the queue", "1"),
    ]
