"""The pure decisions of the coordinator, with no network and no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flavor.config import RunConfig
from flavor.durations import shown_duration
from flavor.errors import InvalidSetting
from flavor.policy import decision, supervision
from flavor.policy.advice import public
from flavor.policy.decision import Action, Decision, agreed_structure
from flavor.policy.sampling import sample
from flavor.policy.standing import Client, Standing, is_quarantined
from flavor.policy.standing import standings as all_standings
from flavor.records import update
from flavor.records.round import RoundView
from flavor.records.states import ClientState, RoundState
from flavor.records.verdict import OfModel, Verdict

CONFIG = RunConfig(rounds=5, min_clients=3, store="file:///s")
READY = Client(ClientState.READY, alive=True)
LEFT = Client(ClientState.LEFT, alive=False, reason="its trainer ended")
FAILED = Client(ClientState.FAILED, alive=False, reason="exit code 3")
JOINED = Client(ClientState.JOINED, alive=True)

ROUND = RoundView.opened(2, ("a", "b", "c"), opened_ms=1_000, deadline_ms=11_000)


def _next(found: Decision) -> tuple[Action, str, tuple[str, ...]]:
    return found.action, found.reason, found.names


def next_round(*args, **settings) -> tuple[Action, str, tuple[str, ...]]:
    return _next(decision.next_round(*args, **settings))


def reopened(*args, **settings) -> tuple[Action, str, tuple[str, ...]]:
    return _next(decision.reopened(*args, **settings))


def close_round(*args, **settings) -> tuple[Action, str]:
    return _next(decision.close_round(*args, **settings))[:2]


def supervise(*args, **settings) -> tuple[Action, str]:
    return _next(supervision.supervise(*args, **settings))[:2]


def standings(**of: Standing) -> dict[str, tuple[Standing, str]]:
    return {name: (standing, "why") for name, standing in of.items()}


class TestBetweenRounds:
    def test_waits_until_enough_clients_are_ready_and_says_how_many(self) -> None:
        action, reason, _ = next_round("r", 0, {"a": READY, "b": READY, "c": JOINED}, CONFIG)
        assert action is Action.WAIT
        assert "2 of at least 3" in reason

    def test_counts_the_sites_that_have_not_joined(self) -> None:
        waits = "waiting for a to call SetEvent('TrainInitDone')"
        for clients, told in (
            ({}, "0 of at least 3 clients are ready; waiting for the sites to join"),
            ({"a": JOINED}, f"0 of at least 3 clients are ready; {waits} and for 2 more sites to join"),
            ({"a": JOINED, "b": READY}, f"1 of at least 3 clients is ready; {waits} and for 1 more site to join"),
            ({"a": READY, "b": READY}, "2 of at least 3 clients are ready; waiting for 1 more site to join"),
            ({"a": JOINED, "b": READY, "c": READY}, f"2 of at least 3 clients are ready; {waits}"),
        ):
            assert next_round("r", 0, clients, CONFIG)[:2] == (Action.WAIT, told)

    def test_names_who_failed_while_waiting(self) -> None:
        action, reason, _ = next_round("r", 0, {"a": READY, "b": READY, "c": FAILED}, CONFIG)
        assert action is Action.WAIT
        assert "c: exit code 3" in reason

    def test_opens_for_all_that_are_ready_in_order(self) -> None:
        action, _, expected = next_round("r", 0, {"c": READY, "a": READY, "b": READY, "d": JOINED}, CONFIG)
        assert (action, expected) == (Action.OPEN, ("a", "b", "c"))

    def test_finishes_after_the_last_round(self) -> None:
        assert next_round("r", 5, {"a": READY}, CONFIG)[:2] == (Action.FINISH, "all 5 rounds are closed")
        once = RunConfig(rounds=1, min_clients=3, store="file:///s")
        assert next_round("r", 1, {"a": READY}, once)[:2] == (Action.FINISH, "its only round is closed")

    def test_trainers_that_are_done_end_the_run_early_but_well(self) -> None:
        action, reason, _ = next_round("r", 2, {"a": LEFT, "b": LEFT, "c": READY}, CONFIG)
        assert action is Action.FINISH
        advice = "let them loop until WaitEvent says that the run is over, TOTAL_ROUNDS rounds"
        why = f"ended before round 3, and 1 site remains of the 3 that a round needs; if that is not meant, {advice}"
        assert reason == f"early, after round 2 of 5: the scripts of a, b {why}"
        assert public(reason) == f"early, after round 2 of 5: 2 scripts {why}", "no site is named to the others"
        _, reason, _ = next_round("r", 2, {"a": LEFT, "b": READY, "c": READY}, CONFIG)
        assert "a's script ended before round 3, and 2 sites remain of the 3" in reason
        assert "let it loop until" in reason
        standing = standings(a=Standing.LEFT, b=Standing.LEFT, c=Standing.LEFT)
        action, reason = close_round("r", 2_000, ROUND, standing, CONFIG)
        assert action is Action.FINISH
        assert "early, after round 1 of 5: the scripts of a, b, c ended before round 2, and no site remains" in reason
        assert "of a, b" not in public(reason)

    def test_a_run_that_waits_waits_for_a_script_that_ended_too_and_says_what_to_do(self) -> None:
        config = CONFIG.model_copy(update={"on_quorum_lost": "wait"})
        action, reason, _ = next_round("r7", 2, {"a": LEFT, "b": READY, "c": READY}, config)
        assert action is Action.WAIT
        how = "lower the quorum (`flavor stop r7`, then `flavor resume r7 --min-clients 2`)"
        told = f"a's script ended before round 3 of 5: start it again, or {how}"
        assert reason == f"2 of at least 3 clients are ready; {told}"
        standing = standings(a=Standing.LEFT, b=Standing.ACCEPTED, c=Standing.PENDING)
        action, reason = close_round("r7", 2_000, replace(ROUND, round=3), standing, config)
        assert (action, told in reason) == (Action.HOLD, True)
        fewer = config.model_copy(update={"quorum": 3})
        assert "--min-clients 2 --quorum 2`" in next_round("r7", 2, {"a": LEFT, "b": READY, "c": READY}, fewer)[1]
        gone = "the scripts of a, b, c ended before round 3 of 5: start them again, or end the run (`flavor stop r7`)"
        assert next_round("r7", 2, dict.fromkeys("abc", LEFT), config)[:2] == (
            Action.WAIT,
            f"0 of at least 3 clients are ready; {gone}",
        )

    def test_too_few_after_failures_fail_the_run_with_their_reasons(self) -> None:
        action, reason, _ = next_round("r", 2, {"a": READY, "b": READY, "c": FAILED}, CONFIG)
        assert action is Action.FAIL
        assert "c: exit code 3" in reason

    def test_a_client_that_is_starting_again_is_waited_for(self) -> None:
        assert next_round("r", 2, {"a": READY, "b": READY, "c": JOINED}, CONFIG)[0] is Action.WAIT

    def test_a_rebuilt_run_waits_for_its_clients_as_at_its_beginning(self) -> None:
        config = CONFIG.model_copy(update={"quorum": 1})
        for clients in ({}, {"a": READY, "b": FAILED}, {"a": READY, "b": READY}):
            assert next_round("r", 2, clients, config, anew=True)[0] is Action.WAIT
        everyone = {"a": READY, "b": READY, "c": READY}
        assert next_round("r", 2, everyone, config, anew=True)[0] is Action.OPEN
        assert next_round("r", 2, {"a": READY}, config)[0] is Action.OPEN
        assert next_round("r", 5, {}, config, anew=True)[0] is Action.FINISH

    def test_a_silent_client_is_gone_even_if_it_said_ready(self) -> None:
        silent = Client(ClientState.READY, alive=False)
        action, reason, _ = next_round("r", 1, {"a": READY, "b": READY, "c": silent}, CONFIG)
        assert action is Action.FAIL
        assert "heartbeat" in reason


class TestSampling:
    @given(st.integers(1, 40), st.floats(0.01, 1.0), st.integers(1, 9), st.integers(0, 3))
    def test_size_and_repeatability(self, ready: int, fraction: float, round_: int, seed: int) -> None:
        config = RunConfig(rounds=9, min_clients=1, fraction=fraction, seed=seed, store="s")
        names = [f"c{i:02d}" for i in range(ready)]
        chosen = sample("run", round_, names, config)
        assert len(set(chosen)) == len(chosen) == max(1, min(ready, -(-int(ready * fraction * 1e9) // 10**9)))
        assert chosen == sample("run", round_, names[::-1], config)
        assert set(chosen) <= set(names)

    def test_never_below_the_quorum(self) -> None:
        config = RunConfig(rounds=1, min_clients=4, quorum=4, fraction=0.1, store="s")
        assert len(sample("run", 1, list("abcdefgh"), config)) == 4

    def test_a_fraction_samples_that_share_although_all_must_be_there_to_begin(self) -> None:
        config = RunConfig(rounds=1, min_clients=10, fraction=0.3, store="s")
        assert config.needed == 3
        assert len(sample("run", 1, list("abcdefghij"), config)) == 3

    def test_rounds_draw_differently(self) -> None:
        config = RunConfig(rounds=1, fraction=0.2, store="s")
        assert len({sample("run", n, [f"c{i}" for i in range(30)], config) for n in range(10)}) > 1


class TestOpenRound:
    def test_waits_for_the_rest_and_says_for_whom(self) -> None:
        now = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=Standing.SUBMITTED)
        action, reason = close_round("r", 2_000, ROUND, now, CONFIG)
        assert action is Action.WAIT
        said = "1 of 3 updates accepted, waiting for b; c handed in, waiting for an aggregator to inspect"
        assert reason == said, "and nothing that changes while it stands"
        assert close_round("r", 9_000, ROUND, now, CONFIG) == (action, reason)

    def test_aggregates_as_soon_as_all_are_accepted(self) -> None:
        now = standings(a=Standing.ACCEPTED, b=Standing.ACCEPTED, c=Standing.ACCEPTED)
        assert close_round("r", 2_000, ROUND, now, CONFIG) == (Action.AGGREGATE, "3 of 3 updates accepted")

    def test_an_impossible_quorum_fails_at_once(self) -> None:
        now = standings(a=Standing.PENDING, b=Standing.PENDING, c=Standing.REFUSED)
        action, reason = close_round("r", 2_000, ROUND, now, CONFIG)
        assert action is Action.FAIL
        assert "c: why" in reason

    def test_the_quorum_alone_does_not_close_a_round_before_the_deadline(self) -> None:
        config = replace_config(quorum=2)
        now = standings(a=Standing.ACCEPTED, b=Standing.ACCEPTED, c=Standing.PENDING)
        assert close_round("r", 10_999, ROUND, now, config)[0] is Action.WAIT
        action, reason = close_round("r", 11_000, ROUND, now, config)
        assert action is Action.AGGREGATE
        assert "late: c" in reason

    def test_the_lost_do_not_hold_a_round_up(self) -> None:
        now = standings(a=Standing.ACCEPTED, b=Standing.ACCEPTED, c=Standing.GONE)
        assert close_round("r", 2_000, ROUND, now, replace_config(quorum=2))[0] is Action.AGGREGATE

    def test_what_was_handed_in_before_the_deadline_is_inspected_for_a_lease_and_no_longer(self) -> None:
        now, config = (
            standings(a=Standing.ACCEPTED, b=Standing.ACCEPTED, c=Standing.SUBMITTED),
            replace_config(quorum=2),
        )
        last_ms = ROUND.deadline_ms + int(config.aggregation_lease_s * 1000)
        assert close_round("r", last_ms - 1, ROUND, now, config)[0] is Action.WAIT
        action, reason = close_round("r", last_ms, ROUND, now, config)
        assert action is Action.AGGREGATE
        assert "not inspected in time: c" in reason

    def test_a_learned_deadline_without_quorum_fails_no_run_before_the_longest_one(self) -> None:
        config = CONFIG.model_copy(update={"round_timeout_s": "auto:k=3,floor=5,ceiling=100"})
        standing = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=Standing.PENDING)
        action, reason = close_round("r", 50_000, ROUND, standing, config)
        assert action is Action.HOLD
        assert reason.startswith(
            "the deadline passed with 1 of 3 needed updates; late: b, c; no learned deadline fails"
        )
        assert close_round("r", 101_000, ROUND, standing, config)[0] is Action.FAIL
        retry = config.model_copy(update={"on_quorum_lost": "retry"})
        assert close_round("r", 50_000, ROUND, standing, retry)[0] is Action.REOPEN

    def test_deadline_without_quorum_fails(self) -> None:
        now = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=Standing.PENDING)
        action, reason = close_round("r", 11_000, ROUND, now, replace_config(quorum=2))
        assert action is Action.FAIL
        assert "1 of 2" in reason

    @given(st.lists(st.sampled_from(Standing), min_size=3, max_size=3), st.integers(0, 30_000), st.integers(1, 3))
    def test_never_aggregates_below_the_quorum_and_always_says_why(
        self, each: list[Standing], now: int, quorum: int
    ) -> None:
        action, reason = close_round(
            "r", now, ROUND, standings(**dict(zip("abc", each, strict=True))), replace_config(quorum=quorum)
        )
        assert reason
        if action is Action.AGGREGATE:
            assert each.count(Standing.ACCEPTED) >= quorum
            assert Standing.SUBMITTED not in each or now >= ROUND.deadline_ms + CONFIG.aggregation_lease_s * 1000
        if now >= ROUND.deadline_ms and Standing.SUBMITTED not in each:
            assert action is not Action.WAIT


class TestAggregation:
    def aggregating(self, **changes: object) -> RoundView:
        return replace(ROUND, state=RoundState.AGGREGATING, attempt=1, **changes)  # type: ignore[arg-type]

    def test_waits_while_the_lease_is_renewed(self) -> None:
        view = self.aggregating(lease_ms=50_000)
        assert supervise(40_000, view, enqueued_ms=0, workers=None, config=CONFIG)[0] is Action.WAIT

    def test_another_attempt_when_the_worker_falls_silent(self) -> None:
        view = self.aggregating(lease_ms=50_000)
        action, reason = supervise(50_001, view, enqueued_ms=0, workers=None, config=CONFIG)
        assert action is Action.RETRY
        assert "attempt 2 of 3" in reason

    def test_gives_up_after_the_configured_attempts(self) -> None:
        view = replace(self.aggregating(error="boom"), attempt=3)
        action, reason = supervise(0, view, enqueued_ms=0, workers=None, config=CONFIG)
        assert action is Action.FAIL
        assert "boom" in reason

    @pytest.mark.parametrize(
        ("policy", "then"), [("wait", Action.RETURN), ("retry", Action.RETURN), ("fail", Action.FAIL)]
    )
    def test_too_few_objects_left_are_a_quorum_that_is_lost(self, policy: str, then: Action) -> None:
        view = replace(self.aggregating(error="c1's object is gone"), contributors=("a", "b", "c"), spoiled=("c",))
        config = CONFIG.model_copy(update={"on_quorum_lost": policy, "min_clients": 3, "quorum": 3})
        action, reason = supervise(0, view, enqueued_ms=0, workers=None, config=config)
        assert action is then
        assert "c1" in reason
        assert public(reason).endswith("updates are needed and 2 are left: 1 changed or removed in the store")
        _, reason = supervise(
            0, replace(view, unfit={"c": "c1's is another"}), enqueued_ms=0, workers=None, config=config
        )
        assert public(reason).endswith("updates are needed and 2 are left: 1 not usable with the others")

    def test_a_job_that_nobody_took_is_queued_again_unless_nobody_listens(self) -> None:
        view = self.aggregating()
        late = 20_000
        assert supervise(late, view, enqueued_ms=0, workers=1, config=CONFIG)[0] is Action.REQUEUE
        action, reason = supervise(late, view, enqueued_ms=0, workers=0, config=CONFIG)
        assert action is Action.WAIT
        assert "flavor-agg" in reason


def replace_config(**changes: object) -> RunConfig:
    return CONFIG.model_copy(update=changes)


def test_a_quorum_above_min_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="quorum 4 is more than min_clients 3"):
        RunConfig.parse({"rounds": 1, "min_clients": 3, "quorum": 4, "store": "s"})


def policy(**settings: object) -> RunConfig:
    return RunConfig.parse({"rounds": 5, "min_clients": 3, "store": "file:///s", **settings})


class TestQuorum:
    @pytest.mark.parametrize(
        ("written", "of_3", "of_10"),
        [(2, 2, 2), ("3", 3, 3), ("0.6", 2, 6), ("60%", 2, 6), (1.0, 3, 10), ("1.0", 3, 10)],
    )
    def test_is_a_number_or_a_share_of_the_rounds_clients(self, written: object, of_3: int, of_10: int) -> None:
        config = policy(quorum=written)
        assert (config.needed_of(3), config.needed_of(10)) == (of_3, of_10)
        assert RunConfig.parse(config.to_mapping()) == config

    @pytest.mark.parametrize("written", [0, "0", -1, "1.5", "0.0", "120%", "many", True, "nan", "inf", ""])
    def test_nothing_else(self, written: object) -> None:
        with pytest.raises(InvalidSetting, match=r"--quorum: .*(share|number)"):
            policy(quorum=written)

    @pytest.mark.parametrize(
        ("refusal", "gist"),
        [
            ("tensor 'w; b' has NaN; look for NaN in the data; clip", "tensor 'w; b' has NaN"),
            ("""tensor "it's; x" is float64; the global model has float32""", """tensor "it's; x" is float64"""),
            ("the server's state is not finite in 'w'; leave it out", "the server's state is not finite in 'w'"),
            ('"it ended; I do not know why"', '"it ended; I do not know why"'),
            ("'; " * 300, "'; '"),
            ("it's ' " * 2 + "so; then", "it's ' it's ' so"),
            (f'"{"wide " * 300}"', f'"{"wide " * 23}…"'),
            ("wide " * 300, f"{'wide ' * 23}…"),
            ("", ""),
        ],
    )
    def test_a_refusal_is_named_in_short_by_all_that_follows_it(self, refusal: str, gist: str) -> None:
        for kind, told in ((Standing.REFUSED, gist), (Standing.SHUT, gist), (Standing.GONE, refusal)):
            for settings in ({"quorum": 2}, {"on_quorum_lost": "wait"}):
                standing = {**standings(a=Standing.ACCEPTED, b=Standing.ACCEPTED), "c": (kind, refusal)}
                reason = close_round("r", 2_000, ROUND, standing, policy(**settings))[1].split("c: ", 1)[1]
                assert reason.removesuffix("; waiting for clients to come back") == told

    def test_a_share_counts_of_those_that_were_expected(self) -> None:
        three = standings(a=Standing.ACCEPTED, b=Standing.ACCEPTED, c=Standing.GONE)
        assert close_round("r", 2_000, ROUND, three, policy(quorum=0.6))[0] is Action.AGGREGATE
        assert close_round("r", 2_000, ROUND, three, policy(quorum=0.7))[0] is Action.FAIL


class TestQuorumLost:
    GONE = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=Standing.GONE)
    LATE = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=Standing.PENDING)
    REFUSED = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=Standing.REFUSED)

    @pytest.mark.parametrize(("now_ms", "standing"), [(2_000, GONE), (12_000, LATE)])
    def test_wait_holds_the_round_and_says_so(self, now_ms: int, standing: dict) -> None:
        action, reason = close_round("r", now_ms, ROUND, standing, policy(on_quorum_lost="wait"))
        assert action is Action.HOLD
        assert "waiting for clients to come back" in reason

    def test_what_is_handed_in_waits_for_an_aggregator_and_not_for_clients(self) -> None:
        now, config = (
            standings(a=Standing.SUBMITTED, b=Standing.SUBMITTED, c=Standing.SUBMITTED),
            policy(on_quorum_lost="wait"),
        )
        late_ms = ROUND.deadline_ms + int(config.aggregation_lease_s * 1000)
        action, reason = close_round("r", late_ms, ROUND, now, config)
        assert action is Action.HOLD
        assert reason.endswith("not inspected in time: a, b, c; waiting for an aggregator to inspect what is handed in")

    def test_sites_that_are_lost_for_one_reason_are_told_of_together_in_the_order_of_their_numbers(self) -> None:
        lost = {f"site-{number}": (Standing.GONE, "its heartbeat stopped") for number in range(1, 23)}
        other = {"b": (Standing.GONE, "no disk"), "a": (Standing.GONE, "no disk")}
        every = {**lost, **other}
        _, reason = close_round("r", 2_000, replace(ROUND, expected=tuple(sorted(every))), every, policy())
        together = "22 sites (site-1, site-2, site-3, site-4, site-5 and 17 more): its heartbeat stopped"
        assert f"a: no disk; b: no disk; {together}" in reason

    @pytest.mark.parametrize("kind", [Standing.REFUSED, Standing.SHUT, Standing.REVOKED, Standing.LEFT, Standing.GONE])
    def test_wait_ends_for_no_site_that_is_lost_in_whatever_way(self, kind: Standing) -> None:
        for number in (1, 2):
            standing = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=kind)
            first = replace(ROUND, round=number)
            assert close_round("r", 2_000, first, standing, policy(on_quorum_lost="wait"))[0] is Action.HOLD
            every = standings(a=kind, b=kind, c=kind)
            assert close_round("r", 99_000, first, every, policy(on_quorum_lost="wait"))[0] is Action.HOLD

    @pytest.mark.parametrize(
        ("kind", "told"),
        [
            (
                Standing.REFUSED,
                "c's update was refused: its site tries again once flavor-fl is stopped and started there",
            ),
            (Standing.SHUT, "c is quarantined: `flavor pardon r c`, then stop and start flavor-fl there"),
            (Standing.REVOKED, "c is revoked: `flavor enroll r c` lets it join with a new token"),
        ],
    )
    def test_a_run_says_what_lets_it_go_on(self, kind: Standing, told: str) -> None:
        standing = {**standings(a=Standing.ACCEPTED, b=Standing.PENDING), "c": (kind, "NaN in w")}
        _, reason = close_round("r", 2_000, ROUND, standing, policy(on_quorum_lost="wait"))
        fewer = "lower the quorum (`flavor stop r`, then `flavor resume r --min-clients 2`)"
        why = "" if kind is Standing.REVOKED else "; c: NaN in w"  # that it was revoked is said already
        assert f"; {told}, or {fewer}{why}; waiting" in reason
        _, reason = close_round("r", 2_000, ROUND, standing, policy(on_quorum_lost="wait", quorum=1.0))
        assert "`flavor resume r --min-clients 2 --quorum 2`" in reason
        if kind is Standing.REFUSED:
            return
        for settings in ({}, {"on_quorum_lost": "retry", "round_attempts": 1}):
            action, reason = close_round("r", 2_000, ROUND, standing, policy(**settings))
            assert action is Action.FAIL
            assert f"{told}, or lower the quorum (`flavor resume r --min-clients 2`)" in reason, "it has ended by then"
            assert "pardon" not in public(reason)
            assert "enroll" not in public(reason)

    def test_several_sites_are_told_of_together(self) -> None:
        standing = standings(a=Standing.SHUT, b=Standing.SHUT, c=Standing.REVOKED)
        _, reason = close_round("r", 2_000, ROUND, standing, policy(on_quorum_lost="wait"))
        assert "a, b are quarantined: `flavor pardon r SITE`" in reason
        assert "new token, or end the run (`flavor stop r`)" in reason

    def test_a_resumed_round_waits_until_its_deadline_for_the_sites_that_ended_with_the_run(self) -> None:
        resumed = replace(ROUND, resumed=True)
        shut = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=Standing.SHUT)
        assert close_round("r", 2_000, resumed, shut, policy())[0] is Action.HOLD, "or it would end again at once"
        assert close_round("r", 2_000, resumed, self.GONE, policy())[0] is Action.HOLD
        assert close_round("r", 12_000, resumed, self.GONE, policy())[0] is Action.FAIL
        refused = standings(a=Standing.ACCEPTED, b=Standing.REFUSED, c=Standing.REFUSED)
        for standing, told in ((self.GONE, "clients to come back"), (refused, "what was refused: until the deadline")):
            assert f"the run was resumed: waiting for {told}" in close_round("r", 2_000, resumed, standing, policy())[1]

    def test_a_model_that_no_site_can_train_is_waited_for_by_no_round(self) -> None:
        """Sites that come back train from the same model; so do those that are left."""
        refused = Verdict(False, "the global model of this round has NaN; begin a new run", of_model=OfModel.LIKELY)
        standing = {**standings(a=Standing.REFUSED, b=Standing.GONE), "c": (Standing.REFUSED, refused.reason)}
        round_ = replace(ROUND, round=4, resumed=True, verdicts={"c": refused, "a": Verdict(False, "why")})
        helps = (
            "begin another run from an earlier model (--init-model FILE): `flavor get r --round N`, with N below 3, "
            "writes one into a file; a: why; b: why; c: the global model of this round has NaN"
        )
        for settings, action in (({}, Action.FAIL), ({"on_quorum_lost": "retry"}, Action.FAIL)):
            assert close_round("r", 2_000, round_, standing, policy(**settings)) == (
                action,
                f"3 updates are needed and 0 can come; {helps}",
            )
        held, reason = close_round("r", 2_000, round_, standing, policy(on_quorum_lost="wait"))
        assert held is Action.HOLD
        assert reason.endswith(helps), "no site is told to try again, and none is left out"
        assert (
            "from a model that can be trained (--init-model FILE); "
            in close_round("r", 2_000, replace(round_, round=2), standing, policy())[1]
        )
        both = {**standing, "b": (Standing.REFUSED, "NaN")}
        both["a"] = (Standing.PENDING, "")
        mixed = replace(round_, verdicts={"c": refused, "b": Verdict(False, "NaN")})
        reason = close_round("r", 2_000, mixed, both, policy(quorum=2))[1]
        assert "waiting for what was refused" in reason, "b may hand in again, and makes up for c"
        both["a"] = (Standing.ACCEPTED, "")
        trained = replace(round_, verdicts={"c": refused, "a": replace(refused, accepted=True)})
        reason = close_round("r", 2_000, trained, both, policy())[1]
        assert "waiting for what was refused" in reason, "a has trained it"
        trained = replace(trained, verdicts={**trained.verdicts, "c": replace(refused, of_model=OfModel.SURE)})
        action, reason = close_round("r", 2_000, trained, both, policy())
        assert (action, "begin another run" in reason) == (Action.FAIL, True), "a may have handed it in unchanged"

    @pytest.mark.parametrize("other", [Standing.PENDING, Standing.SUBMITTED])
    def test_a_model_is_no_more_than_likely_to_blame_while_another_site_may_still_train_it(
        self, other: Standing
    ) -> None:
        refused = Verdict(False, "the global model has values up to 1e12; bound it", of_model=OfModel.LIKELY)
        standing = {**standings(a=other, b=other), "c": (Standing.REFUSED, refused.reason)}
        round_ = replace(ROUND, round=4, verdicts={"c": refused})
        assert close_round("r", 2_000, round_, standing, policy(on_quorum_lost="retry"))[0] is Action.REOPEN
        held, reason = close_round("r", 2_000, round_, standing, policy(on_quorum_lost="wait"))
        assert (held, "begin another" in reason) == (Action.HOLD, False)
        assert "c's update was refused: its site tries again once flavor-fl is stopped and started there" in reason
        failed, reason = close_round("r", 2_000, round_, standing, policy())
        assert failed is Action.FAIL
        assert "can come; if an update is refused like that of c again, begin another run from an earlier" in reason
        spent = replace(round_, openings=9)
        failed, reason = close_round("r", 2_000, spent, standing, policy(on_quorum_lost="retry", round_attempts=9))
        assert (failed, "like that of c again, begin another" in reason) == (Action.FAIL, True)

    def test_a_model_that_the_store_does_not_give_out_is_put_back_and_no_other_one_taken(self) -> None:
        refused = Verdict(False, "the global model runs/r/m is no longer in the store", of_model=OfModel.UNREADABLE)
        standing = dict.fromkeys("abc", (Standing.REFUSED, refused.reason))
        round_ = replace(ROUND, round=4, verdicts=dict.fromkeys("abc", refused), resumed=True)
        for what, action, on in (
            ("wait", Action.HOLD, "then stop and start flavor-fl at a, b, c; 3 sites"),
            ("retry", Action.HOLD, "then stop and start flavor-fl at a, b, c; 3 sites"),
            ("fail", Action.FAIL, "then `flavor resume r`; 3 sites"),
        ):
            found, reason = close_round("r", 2_000, round_, standing, policy(on_quorum_lost=what))
            assert found is action
            assert "0 can come; put the global model back into the store as it was, or let" in reason
            assert on in reason
            assert "runs/r/m is no longer in the store" in reason
            assert "another run" not in reason

    @pytest.mark.parametrize("standing", [GONE, LATE, REFUSED])
    def test_what_every_site_may_read_counts_and_names_nobody(self, standing: dict) -> None:
        told = {name: (kind, f"SECRET of {name}") for name, (kind, _) in standing.items()}
        action, reason = close_round("r", 12_000, ROUND, told, policy())
        assert action is Action.FAIL
        assert "SECRET" in reason or standing is self.LATE
        assert "SECRET" not in public(reason)
        assert public(reason).startswith("round 2: the deadline passed with 1 of 3") or "1 " in public(reason)

    @pytest.mark.parametrize("standing", [GONE, REFUSED])
    def test_retry_opens_again_so_many_times(self, standing: dict) -> None:
        config = policy(on_quorum_lost="retry", round_attempts=2)
        assert close_round("r", 2_000, ROUND, standing, config)[0] is Action.REOPEN
        action, reason = close_round("r", 2_000, replace(ROUND, openings=2), standing, config)
        assert action is Action.FAIL
        assert "opened 2 times" in reason

    def test_who_is_in_a_round_that_opens_again(self) -> None:
        clients = {"a": LEFT, "b": READY, "c": FAILED, "d": READY, "e": JOINED}
        found = standings(a=Standing.ACCEPTED, b=Standing.PENDING, c=Standing.GONE)
        action, reason, expected = reopened(ROUND, found, clients, policy(on_quorum_lost="retry"))
        assert (action, expected) == (Action.REOPEN, ("a", "b", "d"))
        assert "opening 2 of 3" in reason

    def test_a_refused_client_is_not_asked_again_in_the_same_round(self) -> None:
        clients = dict.fromkeys("abcd", READY)
        action, _, expected = reopened(ROUND, self.REFUSED, clients, policy(on_quorum_lost="retry"))
        assert (action, expected) == (Action.REOPEN, ("a", "b", "d"))

    def test_it_is_held_until_enough_are_there(self) -> None:
        clients = {"a": READY, "b": READY, "c": FAILED}
        action, reason, _ = reopened(ROUND, self.GONE, clients, policy(on_quorum_lost="retry"))
        assert action is Action.HOLD
        assert "2 of the 3 clients" in reason

    @pytest.mark.parametrize("what", ["wait", "retry"])
    def test_between_rounds_it_waits(self, what: str) -> None:
        clients = {"a": READY, "b": READY, "c": FAILED}
        assert next_round("r", 2, clients, policy(on_quorum_lost=what))[0] is Action.WAIT
        ended = {"a": LEFT, "b": LEFT, "c": READY}
        action = Action.WAIT if what == "wait" else Action.FINISH
        assert next_round("r", 2, ended, policy(on_quorum_lost=what))[0] is action


def verdict(structure: str, *, accepted: bool = True) -> Verdict:
    return Verdict(accepted, "why", structure=structure)


class TestStructure:
    """Of a first round that starts from no model."""

    def agreed(self, *, open_: int = 0, needed: int = 2, closing: bool = False, **of: str):
        verdicts = {name: verdict(structure) for name, structure in of.items()}
        return agreed_structure(verdicts, open_=open_, needed=needed, closing=closing)

    def test_the_odd_one_that_came_first_decides_nothing(self) -> None:
        assert self.agreed(a="module", open_=2) is None
        assert self.agreed(a="module", b="plain", open_=1) is None
        assert self.agreed(a="module", b="plain", c="plain") == ("b", ("a",))

    def test_it_is_decided_as_soon_as_nothing_that_comes_could_change_it(self) -> None:
        assert self.agreed(a="x", b="x", open_=2) is None
        assert self.agreed(a="x", b="x", open_=1) == ("a", ())

    def test_a_round_that_closes_takes_what_most_have_and_of_two_the_first_by_name(self) -> None:
        assert self.agreed(a="x", b="y", closing=True, open_=5) == ("a", ("b",))
        assert self.agreed(a="x", closing=True) is None

    def test_refused_ones_have_no_say(self) -> None:
        verdicts = {"a": verdict("x"), "b": verdict("y", accepted=False), "c": verdict("x")}
        assert agreed_structure(verdicts, open_=0, needed=2, closing=False) == ("a", ())


def test_who_left_with_a_run_that_was_resumed_may_come_back() -> None:
    resumed = replace(ROUND, resumed=True, expected=("a",))
    assert all_standings(resumed, {}, {"a": LEFT})["a"][0] is Standing.GONE
    assert all_standings(replace(resumed, resumed=False), {}, {"a": LEFT})["a"][0] is Standing.LEFT


class TestATrainerThatIsDoneAndWhoseUpdateIsForgotten:
    """Its edge knows what it has handed in, and does so again, as long as it lives."""

    ROUND = replace(ROUND, round=1, expected=("a",))
    DONE = replace(LEFT, alive=True, behind=1)

    @pytest.mark.parametrize("what", ["fail", "wait", "retry"])
    def test_is_waited_for_until_the_deadline(self, what: str) -> None:
        standing = all_standings(self.ROUND, {}, {"a": self.DONE})
        config = policy(min_clients=1, on_quorum_lost=what)
        assert close_round("r", 2_000, self.ROUND, standing, config)[0] is Action.WAIT
        late = {"fail": Action.FAIL, "wait": Action.HOLD, "retry": Action.REOPEN}[what]
        assert close_round("r", 12_000, self.ROUND, standing, config)[0] is late

    @pytest.mark.parametrize("client", [replace(DONE, alive=False), replace(DONE, behind=0)])
    def test_is_not_where_nobody_can_hand_it_in_again(self, client: Client) -> None:
        standing = all_standings(self.ROUND, {}, {"a": client})
        assert standing["a"][0] is Standing.LEFT
        for what, action in (("fail", Action.FAIL), ("wait", Action.HOLD)):  # it may be started again
            config = policy(min_clients=1, on_quorum_lost=what)
            assert close_round("r", 2_000, self.ROUND, standing, config)[0] is action

    def test_does_not_finish_the_run_early(self) -> None:
        later = replace(self.ROUND, round=2)
        done = all_standings(later, {}, {"a": replace(self.DONE, behind=2)})
        assert close_round("r", 2_000, later, done, policy(min_clients=1))[0] is Action.WAIT
        left = all_standings(later, {}, {"a": self.DONE})
        assert close_round("r", 2_000, later, left, policy(min_clients=1))[0] is Action.FINISH


class TestAnotherTry:
    REFUSED = Verdict(False, "NaN", try_id="t1")

    def standing(self, updates: dict, client: Client = READY) -> Standing:
        view = replace(ROUND, expected=("a",), verdicts={"a": self.REFUSED})
        return all_standings(view, updates, {"a": client})["a"][0]

    @pytest.mark.parametrize("state", [ClientState.READY, ClientState.FAILED, ClientState.LEFT, ClientState.STOPPED])
    @pytest.mark.parametrize("is_admitted", [True, False])
    @pytest.mark.parametrize("has_verdict", [True, False])
    def test_nothing_that_a_site_says_of_itself_ends_its_quarantine(
        self, state: ClientState, is_admitted: bool, has_verdict: bool
    ) -> None:
        shut = Client(state, alive=is_admitted, quarantined=True, is_admitted=is_admitted)
        view = replace(ROUND, expected=("a",), verdicts={"a": self.REFUSED} if has_verdict else {})
        for updates in ({}, {"a": update.from_hash({"try": "t1"})}, {"a": update.from_hash({"try": "t2"})}):
            assert all_standings(view, updates, {"a": shut})["a"][0] is Standing.SHUT
            revoked = replace(shut, state=ClientState.REVOKED)
            assert all_standings(view, updates, {"a": revoked})["a"][0] is Standing.REVOKED
            good = replace(view, verdicts={"a": replace(self.REFUSED, accepted=True)})
            assert all_standings(good, updates, {"a": shut})["a"][0] is Standing.ACCEPTED, "what was accepted counts"

    def test_no_update_of_an_edge_that_is_not_admitted_is_awaited(self) -> None:
        client = Client(ClientState.FAILED, alive=False, reason="its key is another one", is_admitted=False)
        for updates in ({}, {"a": update.from_hash({"try": "t1"})}, {"a": update.from_hash({"try": "t2"})}):
            assert self.standing(updates, client) is Standing.GONE

    def test_a_refusal_is_about_one_try(self) -> None:
        assert self.standing({"a": update.from_hash({"try": "t1"})}) is Standing.REFUSED
        assert self.standing({"a": update.from_hash({"try": "t2"})}) is Standing.SUBMITTED

    def test_an_edge_that_took_its_update_back_trains_again(self) -> None:
        assert self.standing({}) is Standing.PENDING
        assert self.standing({}, FAILED) is Standing.GONE

    def test_quarantine_and_revocation_end_that(self) -> None:
        shut = replace(READY, quarantined=True)
        assert self.standing({"a": update.from_hash({"try": "t2"})}, shut) is Standing.SHUT
        assert self.standing({}, Client(ClientState.REVOKED, alive=False)) is Standing.REVOKED


def test_no_attempt_follows_one_that_no_other_could_end_better_than() -> None:
    view = replace(ROUND, state=RoundState.AGGREGATING, attempt=1, error="the model is broken", is_hopeless=True)
    action, reason = supervise(0, view, enqueued_ms=0, workers=None, config=CONFIG)
    assert (action, reason) == (Action.FAIL, "attempt 1 of 3: the model is broken")


class TestWhatPasses:
    def test_counts_for_no_attempt_and_is_tried_again_in_a_while(self) -> None:
        view = replace(ROUND, state=RoundState.AGGREGATING, attempt=9, waits=8, error="store full", passing_ms=50_000)
        assert supervise(50_001, view, enqueued_ms=0, workers=None, config=CONFIG)[0] is Action.HOLD
        assert supervise(65_000, view, enqueued_ms=0, workers=None, config=CONFIG)[0] is Action.RETRY


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (86_399, "23 h 59 min"), (86_400, "1 d"), (93_700, "1 d 2 h")],
)
def test_durations_are_for_people(seconds: float, shown: str) -> None:
    assert shown_duration(seconds) == shown


class TestQuarantine:
    @pytest.mark.parametrize(
        ("refused", "after", "quarantined"), [(0, 0, False), (9, 0, False), (2, 3, False), (3, 3, True), (4, 3, True)]
    )
    def test_begins_with_the_last_of_so_many_refusals(self, refused: int, after: int, quarantined: bool) -> None:
        assert is_quarantined(refused, after) is quarantined

    SHUT = Client(ClientState.READY, alive=True, quarantined=True)

    def test_is_given_no_task(self) -> None:
        clients = {"a": READY, "b": READY, "c": READY, "d": self.SHUT}
        assert next_round("r", 2, clients, CONFIG)[2] == ("a", "b", "c")

    def test_counts_as_lost_and_says_why(self) -> None:
        action, reason, _ = next_round("r", 2, {"a": READY, "b": READY, "c": self.SHUT}, CONFIG)
        assert action is Action.FAIL
        assert "c is quarantined: " in reason
        assert "c: it is quarantined" not in reason, "once is enough"
        assert (
            "`flavor pardon r c`, then stop and start flavor-fl there, or lower the quorum (`flavor resume r" in reason
        )

    def test_a_run_is_not_led_on_without_most_of_its_sites(self) -> None:
        """The model that they were given may be to blame, and the one that goes on with it may have spoiled it."""
        reason = next_round("r", 2, {"a": READY, "b": self.SHUT, "c": self.SHUT}, CONFIG)[1]
        assert "b, c are quarantined: `flavor pardon r SITE`" in reason
        assert "lower the quorum" not in reason

    def test_a_run_that_waits_says_between_rounds_who_lets_it_go_on(self) -> None:
        revoked = Client(ClientState.REVOKED, alive=False, reason="it was revoked")
        config = policy(on_quorum_lost="wait")
        for client, told in ((self.SHUT, "`flavor pardon r c`"), (revoked, "`flavor enroll r c`")):
            action, reason, _ = next_round("r", 2, {"a": READY, "b": READY, "c": client}, config)
            assert action is Action.WAIT
            assert told in reason
            assert reason.endswith("or lower the quorum (`flavor stop r`, then `flavor resume r --min-clients 2`)")
        gone = replace(self.SHUT, alive=False)
        reason = next_round("r", 2, {"a": READY, "b": READY, "c": gone}, config)[1]
        assert reason.endswith("`flavor resume r --min-clients 2`); c: its heartbeat stopped"), "that is news"

    def test_of_a_revoked_client_is_said_once_that_it_is_revoked(self) -> None:
        found = {**standings(a=Standing.ACCEPTED, b=Standing.ACCEPTED), "c": (Standing.REVOKED, "it was revoked")}
        for how in ("wait", "fail"):
            reason = close_round("r", 2_000, ROUND, found, policy(on_quorum_lost=how))[1]
            assert "c is revoked: `flavor enroll r c`" in reason
            assert "it was revoked" not in reason


class TestOne:
    """A run of one client: each sentence has the noun and the verb of its number."""

    CONFIG = RunConfig(rounds=2, min_clients=1, store="file:///s")
    ROUND = replace(ROUND, expected=("a",))

    def test_between_rounds(self) -> None:
        assert next_round("r", 0, {"a": JOINED}, self.CONFIG)[1].startswith("0 of at least 1 client is ready")
        assert next_round("r", 0, {"a": READY}, self.CONFIG)[1] == "1 client ready and expected"
        assert next_round("r", 1, {"a": FAILED}, self.CONFIG)[1].startswith("1 client is needed and 0 remain")

    def test_an_open_round(self) -> None:
        one = standings(a=Standing.PENDING)
        assert close_round("r", 2_000, self.ROUND, one, self.CONFIG)[1].startswith("0 of 1 update accepted, waiting")
        late = close_round("r", 12_000, self.ROUND, one, self.CONFIG)[1]
        assert "the deadline passed with 0 of 1 needed update; late: a" in late
        gone = close_round("r", 2_000, self.ROUND, standings(a=Standing.GONE), self.CONFIG)[1]
        assert "1 update is needed and 0 can come" in gone

    def test_a_round_that_opens_again(self) -> None:
        config = self.CONFIG.model_copy(update={"on_quorum_lost": "retry"})
        gone = standings(a=Standing.GONE)
        assert reopened(self.ROUND, gone, {}, config)[1] == "0 of the 1 client that a round needs is ready"
        reason = reopened(self.ROUND, gone, {"a": READY}, config)[1]
        assert reason == "opening 2 of 3: 1 client, of which 0 have handed in"
