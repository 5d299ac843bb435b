"""How long a client takes for a round, from the log."""

from __future__ import annotations

from flavor.view.facts import Entry
from flavor.view.round_times import RoundTimes


def entry(at_s: float, event: str, round_: int | None = None, client: str = "") -> Entry:
    fields = {"event": event, "client": client} | ({"round": str(round_)} if round_ is not None else {})
    return f"{int(1000 * at_s)}-0", fields


def test_the_time_for_which_the_run_had_ended_is_no_time_of_a_client() -> None:
    times = RoundTimes()
    times.hear([entry(0, "round.opened", 1), entry(7, "update.accepted", 1, "slow")])
    assert times.of("slow") == (7, 7)
    times.hear([entry(10, "round.opened", 2), entry(12, "update.accepted", 2, "quick"), entry(20, "run.stopped")])
    times.hear([entry(65, "run.resumed", 2), entry(73, "update.accepted", 2, "slow")])
    assert times.of("quick") == (2, 2)
    assert times.of("slow") == (7, 18), "it has begun again, and that is not what it usually takes"
    times.hear([entry(80, "round.opened", 3), entry(89, "update.accepted", 3, "slow")])
    assert times.of("slow") == (8, 9)


def test_a_client_that_was_only_in_a_resumed_round_has_no_usual_time() -> None:
    times = RoundTimes()
    times.hear([entry(0, "round.opened", 1), entry(3, "run.failed"), entry(60, "run.resumed", 1)])
    times.hear([entry(64, "update.accepted", 1, "a")])
    assert times.of("a") == (None, 7)
    times.hear([entry(70, "run.resumed", 1), entry(75, "update.accepted", 1, "b")])
    assert times.of("b") == (None, 5), "the log has lost when the run ended"
