"""Which events become messages, when, and what they say; all of it without a clock."""

from __future__ import annotations

import pytest

from flavor.notices.digest import AFTER_S, GROUPED_S, TOGETHER_S, Digest, Message, Tone, shown, shown_whole
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.view.client_events import (
    ClientLost,
    ClientNotAdmitted,
    ClientOutpaced,
    ClientQuarantined,
    ClientTooSlow,
    UpdateAccepted,
    UpdateRefused,
)
from flavor.view.evaluation_events import EvaluationClosed, EvaluationFailed, EvaluationSkipped
from flavor.view.round_events import (
    RoundClosed,
    RoundOpened,
    RoundWaiting,
    RunBest,
    RunFailed,
    RunFinished,
    RunStopped,
    RunWaiting,
)

T = 1000.0


def taken(digest: Digest, now: float) -> Message:
    message = digest.take(now)
    assert message is not None
    return message


def test_the_end_of_a_run_is_told_at_once_in_its_tone() -> None:
    for kind, how, tone in (
        (RunFinished, "finished", Tone.SUCCESS),
        (RunFailed, "failed", Tone.FAILURE),
        (RunStopped, "stopped", Tone.WARNING),
    ):
        digest = Digest("mammo")
        digest.add(RoundOpened("", 3, 9), T)
        digest.add(kind("all is over", run="mammo"), T)
        assert digest.due(T) == T
        assert taken(digest, T) == Message(f"flavor: run mammo, round 3 of 9: {how}", f"{how}: all is over", tone)
        assert digest.due(T) is None
        assert digest.take(T) is None


def test_a_message_keeps_what_to_do_and_cuts_what_sites_wrote() -> None:
    sites = "; ".join(f'site-{number}: "{"x" * 900}"' for number in range(3))
    remedy = "rebuild it with `flavor recover --run r`"
    for event in (RunFailed(f"{sites}. {remedy}", run="r"), RoundWaiting(f"{sites}. {remedy}", 1)):
        digest = Digest("r", after_s=1.0)
        digest.add(event, T)
        body = taken(digest, T + 2).body
        assert body.endswith(shown(remedy)), body
        assert "x" * 199 + "…" in body
        assert "x" * 200 not in body
        assert len(body) < 1100
    digest = Digest("r")
    digest.add(RunFailed(f"{'long ' * 1000}. {remedy}", run="r"), T)
    body = taken(digest, T).body
    assert body.endswith(shown(remedy))
    assert len(body) < 1100


def test_what_is_routine_is_no_message() -> None:
    digest = Digest("r")
    for event in (RoundOpened("", 1, 2), UpdateAccepted("good", "a", 1), RoundClosed("closed", 1)):
        digest.add(event, T)
    assert digest.due(T + 1e6) is None


def test_sites_that_vanish_together_are_in_one_message() -> None:
    digest = Digest("r")
    digest.add(ClientLost("its heartbeat has stopped", "site-1"), T)
    digest.add(ClientQuarantined("3 refused updates in a row", "site-2", run="r"), T + 1)
    assert digest.due(T + 1) == T + TOGETHER_S
    message = taken(digest, T + TOGETHER_S)
    assert message.body.splitlines() == [
        "site-1 is gone: its heartbeat has stopped",
        "site-2 is quarantined: 3 refused updates in a row",
    ]
    assert message.title == "flavor: run r: site-1 is gone, and more"
    assert digest.due(T + 100) is None


def test_a_site_whose_training_does_not_count_is_news() -> None:
    digest = Digest("r")
    digest.add(ClientTooSlow("its last 3 tasks were given up", "site-1"), T)
    digest.add(ClientOutpaced("few close all rounds", "site-2"), T)
    assert taken(digest, T + TOGETHER_S).body.splitlines() == [
        "site-1 is too slow: its last 3 tasks were given up",
        "site-2 is left behind by quicker sites: few close all rounds",
    ]


def test_refusals_of_a_minute_are_one_message_that_names_some() -> None:
    digest = Digest("r")
    for number in range(1000):
        digest.add(UpdateRefused(f"reason {number}", f"site-{number % 20}", 1, is_routine=True), T + number / 100)
    digest.add(ClientNotAdmitted("no token", "site-0"), T + 20)
    assert digest.due(T + 20) == T + GROUPED_S
    lines = taken(digest, T + GROUPED_S).body.splitlines()
    assert lines[0] == "refused: site-0 (51 times, the last time: no token)"
    assert lines[1] == "refused: site-1 (50 times, the last time: reason 981)"
    assert lines[-1] == "and 600 refusals of other sites"
    assert len(lines) == 9


def test_refusals_leave_room_for_sites_that_are_gone_after_them() -> None:
    digest = Digest("r")
    for number in range(8):
        digest.add(UpdateRefused("NaN", f"refused-{number}", 1), T)
    for number in range(5):
        digest.add(ClientLost("its heartbeat has stopped", f"gone-{number}"), T + 1)
    lines = taken(digest, T + GROUPED_S).body.splitlines()
    assert [line.partition(" ")[0] for line in lines[:5]] == [f"gone-{number}" for number in range(5)]
    assert lines[-1] == "and 3 refusals of other sites"


def test_a_flood_is_counted_and_not_sent() -> None:
    """A site that comes and goes each second, for an hour: a few messages, which count what they leave out."""
    digest, sent, last = Digest("r"), list[Message](), ""
    for second in range(3600):
        digest.add(ClientLost("its edge has failed", f"site-{second}"), T + second)
        due = digest.due(T + second)
        assert due is not None
        if due <= T + second:
            sent.append(taken(digest, T + second))
    assert 10 <= len(sent) <= 20
    last = sent[-1].body.splitlines()[-1]
    assert last.startswith("and ")
    assert int(last.split()[1]) > 200
    assert all(len(each.body.splitlines()) <= 11 for each in sent)
    digest.add(RunFailed("no quorum"), T + 3600)
    assert digest.due(T + 3600) == T + 3600, "the end is told, however much was told before"


@pytest.mark.parametrize("number", [1, 12])  # 12: more than a message has lines
def test_sites_that_come_and_go_hide_nothing_that_happens_to_another(number: int) -> None:
    """Sites fail and come back every second for hours; in between a good one is gone, refused and quarantined."""
    digest, sent = Digest("r"), list[tuple[float, Message]]()
    good = (
        ClientLost("its script has failed", "good"),
        UpdateRefused("NaN", "good", 1),
        ClientQuarantined("3", "good"),
    )
    happens = dict(zip((1801, 3601, 5401), good, strict=True))
    for second in range(7200):
        for each in range(number):
            digest.add(ClientLost("its edge has failed", f"evil-{each}"), T + second)
            digest.add(UpdateRefused("no update", f"evil-{each}", 1), T + second)
        if second in happens:
            digest.add(happens[second], T + second)
        due = digest.due(T + second)
        if due is not None and due <= T + second:
            sent.append((second, taken(digest, T + second)))
    assert all(len(message.body.splitlines()) <= 12 for _, message in sent)
    for at, line in zip(
        happens, ("good is gone: its script", "refused: good (NaN)", "good is quarantined"), strict=True
    ):
        told = [second for second, message in sent if line in message.body]
        assert len(told) == 1, line
        assert told[0] - at <= (GROUPED_S if number == 1 else 300), line
    if number == 1:
        assert len(sent) <= 10
        assert all(message.body.count("evil-0 is gone") <= 1 for _, message in sent)
        assert any("evil-0 is gone (18" in message.body for _, message in sent), "times"


@pytest.mark.parametrize("kind", [RunWaiting, RoundWaiting])
def test_a_wait_is_news_after_a_while_and_so_is_its_end(kind: type) -> None:
    digest = Digest("r")
    of = () if kind is RunWaiting else (2,)
    digest.add(kind("2 of 3 clients are ready", *of), T)
    digest.add(kind("1 of 3 clients is ready", *of), T + 100)  # another reason: the same wait
    assert digest.due(T + 100) == T + AFTER_S
    message = taken(digest, T + AFTER_S)
    assert message.body == "waiting for 15 min: 1 of 3 clients is ready"
    assert message.tone is Tone.WARNING
    assert digest.due(T + 1e6) is None, "told once"
    digest.add(RoundOpened("", 2, 3), T + 1000)
    assert taken(digest, T + 1010).body == "going on after 16 min 40 s"


@pytest.mark.parametrize("number", [AUTOMATIC, CENTRAL, None])
def test_an_evaluation_that_fails_is_told_once_until_one_has_a_result(number: int | None) -> None:
    digest = Digest("r")
    digest.add(EvaluationFailed('the model of round 1: c1: "no `data` https://x"', 1, number), T)
    digest.add(EvaluationFailed("the model of round 2: none again", 2, number), T + 1)
    assert digest.due(T + 1) == T + TOGETHER_S
    message = taken(digest, T + 2)
    assert message.body == "evaluation failed: the model of round 1: c1: \"no 'data' hxxps://x\""
    assert (message.title, message.tone) == ("flavor: run r: evaluation failed", Tone.WARNING)
    digest.add(EvaluationFailed("the model of round 3: none again", 3, number), T + 3)
    assert digest.due(T + 1e6) is None
    digest.add(EvaluationClosed("2 results", 4, number, is_routine=True), T + 4)
    digest.add(EvaluationFailed("the model of round 5: none", 5, number), T + 5)
    digest.add(RunFinished("all is over", run="r"), T + 6)
    assert taken(digest, T + 6).body.splitlines() == [
        "finished: all is over",
        "evaluation failed: the model of round 5: none",
    ]


def test_what_came_of_a_kind_of_evaluation_says_nothing_of_another() -> None:
    digest = Digest("r")
    digest.add(EvaluationFailed("by sites", 1, AUTOMATIC), T)
    digest.add(EvaluationClosed("a result", 1, CENTRAL), T)
    digest.add(EvaluationFailed("by sites", 2, AUTOMATIC), T)
    digest.add(EvaluationFailed("on data", 2, CENTRAL), T)
    assert taken(digest, T + 2).body.splitlines() == ["evaluation failed: by sites", "evaluation failed: on data"]


def test_no_message_tells_of_evaluations_that_are_asked_for_or_skipped_nor_of_a_new_best_model() -> None:
    digest = Digest("r")
    digest.add(EvaluationFailed("somebody asked", 1, 3), T)
    digest.add(EvaluationSkipped("the run ended", 1, CENTRAL), T)
    digest.add(EvaluationClosed("2 results: accuracy 0.9", 1, AUTOMATIC), T)
    digest.add(RunBest("the best so far by accuracy", 1), T)
    assert digest.due(T + 1e6) is None


def test_a_short_wait_or_a_usual_one_is_no_news() -> None:
    digest = Digest("r")
    digest.add(RoundWaiting("1 of 2 is in", 1, is_routine=True), T)
    assert digest.due(T + 1e6) is None
    digest.add(RoundWaiting("the quorum is lost", 1), T)
    digest.add(UpdateAccepted("good", "a", 1, is_routine=True), T + 10)
    assert digest.due(T + 1e6) is None
    digest.add(RoundWaiting("the quorum is lost", 1), T + 20)
    digest.goes_on(T + 500)
    assert digest.due(T + 500) == T + 500 + AFTER_S


def test_a_wait_that_began_before_it_was_heard_of_is_told_with_its_whole_length() -> None:
    digest = Digest("r")
    digest.has_lasted(60, T)  # there is none
    digest.add(RoundWaiting("the quorum is lost", 1), T)
    digest.has_lasted(5, T + AFTER_S)  # the log has another reason since, or does not say it
    assert digest.due(T + AFTER_S) == T + AFTER_S
    digest.has_lasted(3600, T + AFTER_S)
    assert taken(digest, T + AFTER_S).body == "waiting for 1 h: the quorum is lost"


def test_what_sites_write_calls_nobody_and_links_to_nothing() -> None:
    digest = Digest("r")
    digest.add(UpdateRefused("<!channel> @everyone [win](https://evil.example) `x`\n\x1b[31m" + "y" * 5000, "a", 1), T)
    body = taken(digest, T + GROUPED_S).body
    assert not set("@<>[]`\x1b") & set(body)
    assert "hxxps://evil.example" in body
    assert "https" not in body
    assert len(body) < 300
    assert len(body.splitlines()) == 1
    assert shown("a  b") == "a b"
    links = "ftp://a.example www.evil.example WWW.evil.example slack://x javascript:alert(1) mailto:a tel:1 FILE:///etc"
    assert shown(links) == (
        "ftp(:)//a.example www(.)evil.example www(.)evil.example slack(:)//x javascript(:)alert(1) mailto(:)a tel(:)1 "
        "FILE(:)///etc"
    )
    own = "the store s3://models/fl: start `flavor-agg`, data: none"
    assert shown_whole(own) == own.replace("`", "'"), "what people copy"
