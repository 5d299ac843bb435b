"""What is said of an update whose round is closed for updates."""

from __future__ import annotations

import pytest

from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.late_updates import LateUpdates
from flavor.records.objects import ObjectRef
from flavor.records.update import Refused, Update
from flavor.records.verdict import Verdict
from flavor.view.observer import Silent
from tests.driven import Driven


def _handed_in(digest: str) -> Update:
    return Update(ObjectRef("p", digest), ObjectRef("i", "i"), "torch", 1, try_id="t")


@pytest.mark.parametrize(
    ("accepted", "now", "told"),
    [
        (False, _handed_in("d"), []),  # the very update that was refused: a refusal keeps no digest to tell
        (False, Refused("no file", try_id="t"), []),
        (True, _handed_in("d"), []),
        (True, _handed_in("e"), ["handed in again, with other content: the first verdict stands"]),
    ],
)
def test_only_other_content_than_what_was_accepted_is_said_to_be_handed_in_again(
    url: str, accepted: bool, now: Update | Refused, told: list[str]
) -> None:
    run = Driven(url)
    run.open(["a", "b"])
    run.runs.judge(1, "a", Verdict(accepted, "looked at", _handed_in("d") if accepted else None, try_id="t"))
    run.accept("b")
    run.runs.redis.hset(run.runs.keys.client("a").update(1), mapping=now.to_hash())
    run.aggregate()
    late = LateUpdates(run.runs, ClientLog(run.runs, Silent()))
    view = run.runs.read_round(1)
    assert view is not None
    late.expect(view)
    late.refuse_unheard()
    late.refuse(1, "a")
    log = [fields for _, fields in run.runs.redis.xrange(run.runs.keys.log)]
    assert [each["reason"] for each in log if each["event"] == "update.ignored"] == told


def test_what_was_handed_in_for_a_task_that_is_given_up_is_refused_once_also_where_it_comes_later(url: str) -> None:
    """In an asynchronous run: a hands in while no round is open, and b once its task was given up."""
    run = Driven(url)
    run.open(["a", "b", "c"])
    run.accept("c")
    run.aggregate()
    run.runs.redis.hset(run.runs.keys.round(1), "since", "{}")
    run.runs.redis.hset(run.runs.keys.client("a").update(1), mapping=_handed_in("d").to_hash())
    late = LateUpdates(run.runs, ClientLog(run.runs, Silent()))

    def refused() -> list[str]:
        log = [fields for _, fields in run.runs.redis.xrange(run.runs.keys.log)]
        return [each["client"] for each in log if each["event"] == "update.refused"]

    late.expect_of({"a": 1, "b": 1})
    assert refused() == ["a"]
    run.runs.redis.hset(run.runs.keys.client("b").update(1), mapping=_handed_in("e").to_hash())
    late.refuse_unheard()
    late.refuse_unheard()
    assert refused() == ["a", "b"]
    view = run.runs.read_round(1)
    assert view is not None
    assert {client for client, verdict in view.verdicts.items() if not verdict.accepted} == {"a", "b"}
    assert run.runs.refusals() == {}, "no blame"
