"""The best evaluated model, and the rules that end a run."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from flavor.errors import DamagedRecord
from flavor.policy.selection import Select, StopAfterNoGain, StopWhen, choose, lacking, reached, stops, value_of
from flavor.records.comparison import Beside, Comparison
from flavor.records.evaluation import BestModel, EvaluationSummary
from flavor.records.info import CONFUSION
from flavor.records.lacking import Lacking, SomeSites
from flavor.records.merging import WEIGHTED, merge_infos
from flavor.records.tolerance import exceeds, gain, order


def summary(
    round_: int, value: float | None, *, sites: int = 3, few: int | None = None, name: str = "a", expected: int = 0
):
    metrics = {} if value is None else {name: value}
    spread = {} if value is None else {name: (value - 0.1, value + 0.1)}
    return EvaluationSummary(
        round_,
        0,
        1,
        sites=sites,
        expected=expected or sites,
        metrics=metrics,
        spread=spread,
        few={} if few is None else {name: few},
    )


def best(select: str, *summaries: EvaluationSummary) -> BestModel | None:
    found = None
    for each in summaries:
        found = choose(found, each, select=Select.parse(select), when=()).best
    return found


def test_the_best_is_the_largest_or_the_smallest_and_of_equal_ones_the_first():
    rounds = [summary(1, 0.5), summary(2, 0.9), summary(3, 0.9), summary(4, 0.2)]
    assert best("a:max", *rounds) == BestModel(2, 0.9, 3)
    assert best("a:min", *rounds) == BestModel(4, 0.2, 3)
    assert best("b:max", *rounds) is None


def test_of_means_that_rounding_alone_keeps_apart_the_first_stays():
    """The means of 0.7, 0.9, 0.8 and of 0.9, 0.8, 0.7 are not the same number."""
    rounds = [summary(number, mean_of(*values)) for number, values in enumerate(([7, 9, 8], [8] * 3, [9, 8, 7]), 1)]
    assert len({each.metrics["a"] for each in rounds}) > 1
    for which in ("max", "min"):
        select = Select.parse(f"a:{which}")
        assert best(f"a:{which}", *rounds) == BestModel(1, rounds[0].metrics["a"], 3)
        assert StopAfterNoGain.parse("2").gains(select, rounds)[:2] == (2, best(f"a:{which}", *rounds))
    reason = stops(rounds[:2], when=[], after=StopAfterNoGain.parse("1"), select=Select.parse("a:max"))
    assert reason == "a was best in round 1, 0.8, and has not got better in 1 evaluation (--stop-after-no-gain 1)"


def mean_of(*tenths: int, sizes: tuple[int, ...] = (20, 20, 20), name: str = "a", parts: int = 10) -> float:
    metadata = {"epoch": 1, "importance": 1.0}
    infos = [
        {"metadata": {**metadata, "datasetSize": size}, "metrics": {**dict.fromkeys(CONFUSION, -1), "a": each / parts}}
        for each, size in zip(tenths, sizes, strict=True)
    ]
    return merge_infos(["x", "y", "z"], infos)["metrics"][name]


@pytest.mark.parametrize("sizes", [(20, 20, 20), *itertools.permutations((10, 20, 70))], ids=str)
def test_a_goal_that_is_exactly_the_mean_of_the_sites_values_is_reached(sizes):
    rounded = found = 0
    for values in itertools.product(range(3, 100, 8), repeat=3):
        total = sum(value * size for value, size in zip(values, sizes, strict=True))
        if total % sum(sizes):
            continue
        goal = f"{total // sum(sizes) / 100:.2f}"
        mean = mean_of(*values, sizes=sizes, name="a" + WEIGHTED, parts=100)
        met = [sign for sign in (">=", ">", "<=", "<") if StopWhen.parse(f"a{sign}{goal}").is_met(summary(1, mean))]
        assert met == [">=", "<="], (values, goal, mean)
        found, rounded = found + 1, rounded + (mean != float(goal))
    assert found > 200
    assert rounded > 0


def test_how_two_values_compare():
    assert [order(1, 1 + 9e-10), order(1, 1 + 2e-9), order(1 + 2e-9, 1), order(-1, -1 - 2e-9)] == [0, -1, 1, 1]
    assert [order(1e-6, 1e-6 + 1e-14), order(1e-13, 2e-13), order(0, 1e-17), order(1e-11, 0)] == [-1, -1, 0, 1]
    assert [order(0.5, float("inf")), order(0.5, float("-inf")), order(0.0, 0.0)] == [-1, 1, 0]
    assert [gain(0.5, 0.4, is_larger=True), gain(0.5, 0.4, is_larger=False), gain(0.4, 0.5, is_larger=True)] == [
        *(pytest.approx(0.1), 0.0, 0.0)
    ]
    assert [exceeds(each, 0.001, of=0.8) for each in (0.801 - 0.8, 0.0011)] == [False, True]
    assert not exceeds(0.0, 0.0, of=0.0)


def test_a_gain_of_exactly_the_least_one_is_none():
    rounds = [summary(1, 0.800), summary(2, 0.801)]
    select, after = Select.parse("a:max"), StopAfterNoGain.parse("1:0.001")
    assert rounds[1].metrics["a"] - 0.8 > 0.001
    assert stops(rounds, when=[], after=after, select=select).startswith("a has not got better by more than 0.001")
    assert after.gains(select, [*rounds, summary(3, 0.802)])[:2] == (0, BestModel(3, 0.802, 3)), "both together are one"


def test_the_worst_site_decides():
    first, second = summary(1, 0.5), summary(2, 0.6)
    assert best("worst/a:max", first, second) == BestModel(2, 0.5, 3)
    assert best("worst/a:min", first, second) == BestModel(1, 0.6, 3)


@pytest.mark.parametrize(
    "lost", [{"sites": 2}, {"few": 2}], ids=["a site without a result", "a site without the metric"]
)
def test_a_value_that_lacks_a_site_is_not_compared_with_one_of_all(lost):
    """Without the worst site a mean looks better than it is."""
    assert best("a:max", summary(1, 0.5), summary(2, 0.9, **lost), summary(3, 0.6)) == BestModel(3, 0.6, 3)
    assert best("a:max", summary(1, 0.9, **lost), summary(2, 0.5)) == BestModel(2, 0.5, 3)


def test_a_goal_is_reached():
    when = [StopWhen.parse("a >= 0.9"), StopWhen.parse("worst/a<0.3")]
    assert stops([summary(1, 0.5)], when=when, after=None, select=None) == ""
    assert stops([summary(7, 0.9)], when=when, after=None, select=None) == (
        "a of the model of round 7 is 0.9 (--stop-when 'a >= 0.9')"
    )
    assert "worst/a of the model of round 8 is 0.2" in stops([summary(8, 0.1)], when=when, after=None, select=None)
    assert stops([summary(9, 0.95, sites=2, expected=3)], when=when, after=None, select=None) == ""
    assert stops([summary(9, None)], when=when, after=None, select=None) == ""
    assert stops([], when=when, after=None, select=None) == ""


def test_a_goal_is_not_reached_without_a_site_that_has_a_part_in_it():
    when = [StopWhen.parse("worst/a>=0.5")]
    good = summary(3, 0.75, few=2)
    nan = replace(good, lacking={"a": Lacking(not_finite=SomeSites.of(["gamma"]))})
    assert stops([nan], when=when, after=None, select=None) == ""
    said = "--stop-when 'worst/a>=0.5' does not count, though worst/a is 0.65: a is not a finite number at gamma"
    assert choose(None, nan, select=None, when=when).notes == (said,)
    assert choose(None, replace(nan, metrics={"a": 0.1}, spread={"a": (0.1, 0.2)}), select=None, when=when).notes == ()
    gone = replace(good, lacking={"a": Lacking(unsaid=SomeSites.of(["gamma"]))})
    assert stops([gone], when=when, after=None, select=None) == ""
    away = replace(good, lacking={"a": Lacking(away=SomeSites.of(["gamma"]))})
    assert stops([away], when=when, after=None, select=None) == ""
    assert "gamma was not there to judge the model" in when[0].not_counted(away)
    without_part = replace(good, lacking={"a": Lacking()})
    assert "worst/a of the model of round 3 is 0.65" in stops([without_part], when=when, after=None, select=None)
    assert stops([good], when=when, after=None, select=None) == "", "the rule is newer than the evaluation"
    assert "not known who had reported it before" in choose(None, good, select=None, when=when).notes[0]
    assert stops([replace(good, few={})], when=when, after=None, select=None) != ""
    (missing,) = choose(None, replace(without_part, expected=4), select=None, when=when).notes
    assert missing.endswith("1 site has no result"), "of an earlier release"
    for sites, who in ((["delta"], "delta has"), (["beta", "delta"], "beta and delta have")):
        named = replace(without_part, expected=3 + len(sites), missing=SomeSites.of(sites))
        (missing,) = choose(None, read_again(named), select=None, when=when).notes
        assert missing == f"--stop-when 'worst/a>=0.5' does not count, though worst/a is 0.65: {who} no result"


@pytest.mark.parametrize(("sign", "met"), [(">=", [1, 2]), (">", [2]), ("<=", [0, 1]), ("<", [0])])
def test_each_sign(sign, met):
    rule = StopWhen.parse(f"a{sign}-0.5")
    assert [i for i, value in enumerate((-0.6, -0.5, -0.4)) if rule.is_met(summary(1, value)) is not None] == met


def test_evaluations_without_a_gain():
    select = Select.parse("a:max")
    rounds = [summary(1, 0.5), summary(2, 0.6), summary(3, 0.6005), summary(4, 0.9, sites=2), summary(5, 0.55)]
    assert StopAfterNoGain.parse("2:0.001").gains(select, rounds)[:2] == (2, BestModel(2, 0.6, 3))
    assert StopAfterNoGain.parse("2").gains(select, rounds)[:2] == (1, BestModel(3, 0.6005, 3))
    assert StopAfterNoGain.parse("2").gains(Select.parse("a:min"), rounds)[:2] == (3, BestModel(1, 0.5, 3))
    reason = stops(rounds, when=[], after=StopAfterNoGain.parse("2:0.001"), select=select)
    assert reason == (
        "a has not got better by more than 0.001 than in round 2, 0.6, in 2 evaluations (--stop-after-no-gain 2:0.001)"
        "; 1 further one could not be compared with it: too few sites have a value of both"
    )
    rising = [summary(1, 0.942548), summary(2, 0.95), summary(3, 0.96)]
    reason = stops(rising, when=[], after=StopAfterNoGain.parse("2:0.02"), select=select)
    assert reason.startswith("a has not got better by more than 0.02 than in round 1, 0.942548, in 2 evaluations")
    falling = stops(rounds[:3], when=[], after=StopAfterNoGain.parse("2"), select=Select.parse("a:min"))
    assert falling == "a was best in round 1, 0.5, and has not got better in 2 evaluations (--stop-after-no-gain 2)"
    one = stops(rounds[:2], when=[], after=StopAfterNoGain.parse("1"), select=Select.parse("a:min"))
    assert "has not got better in 1 evaluation (" in one
    assert stops(rounds, when=[], after=StopAfterNoGain.parse("2"), select=select) == ""


def compared(round_: int, value: float, *, sites: int, with_: int, beside: Beside | None) -> EvaluationSummary:
    """An evaluation that a worker has compared with the best one before; it stands in Redis as JSON."""
    made = replace(summary(round_, value, sites=sites), best_before=with_, comparison=Comparison(beside))
    return EvaluationSummary.from_json(made.closed_at(1))


def test_gains_are_those_over_the_sites_that_have_judged_both():
    """The site that has left had the values 0.9, 0.9: the others had 0.4, 0.5, and have 0.5, 0.45 since."""
    select, after = Select.parse("a:max"), StopAfterNoGain.parse("2")
    before = [summary(1, 0.6), summary(2, 0.7)]
    left = [
        compared(3, 0.5, sites=2, with_=2, beside=Beside(0.5, 0.5, 2)),
        compared(4, 0.45, sites=2, with_=2, beside=Beside(0.45, 0.5, 2)),
    ]
    assert after.gains(select, [*before, *left])[:2] == (2, BestModel(2, 0.7, 3))
    risen = compared(3, 0.55, sites=2, with_=2, beside=Beside(0.55, 0.5, 2))
    assert after.gains(select, [*before, risen])[:2] == (0, BestModel(3, 0.55, 2))
    same = summary(4, 0.55, sites=2)
    assert after.gains(select, [*before, risen, same])[:2] == (1, BestModel(3, 0.55, 2))
    few = compared(3, 0.99, sites=3, with_=2, beside=None)  # as many sites, and others
    assert after.gains(select, [*before, few])[:2] == (0, BestModel(2, 0.7, 3))
    more = compared(3, 0.1, sites=4, with_=2, beside=None)
    assert after.gains(select, [*before, left[0], more])[:2] == (0, BestModel(3, 0.1, 4))
    other = compared(3, 0.55, sites=3, with_=1, beside=Beside(0.55, 0.1, 2))  # the record of round 2 was lost since
    assert after.gains(select, [*before, other])[:2] == (1, BestModel(2, 0.7, 3))


def test_gains_that_are_too_small_by_themselves_add_up_across_sites_that_leave():
    rule, select = StopAfterNoGain.parse("3:0.05"), Select.parse("a:min")
    rounds = [
        summary(1, 0.6),
        summary(2, 0.57),
        compared(3, 0.9, sites=2, with_=2, beside=Beside(0.9, 0.91, 2)),
        compared(4, 0.88, sites=2, with_=3, beside=Beside(0.88, 0.9, 2)),
    ]
    assert rule.gains(select, rounds[:3])[:2] == (2, BestModel(1, 0.6, 3))
    assert rule.gains(select, rounds)[:2] == (0, BestModel(4, 0.88, 2))


@pytest.mark.parametrize(
    ("late", "since"),
    [
        pytest.param(summary(2, 0.2), 0, id="worse than a later model"),
        pytest.param(replace(summary(2, None), lacking={"a": Lacking(SomeSites(("central",), 1))}), 0, id="diverged"),
        pytest.param(summary(2, 0.9), 0, id="better than a later model"),
    ],
)
def test_a_result_that_comes_after_that_of_a_later_round_is_not_one_without_a_gain(late, since):
    """As after a restart of the worker that had the earlier model in hand: the values get better in each round."""
    judged = [summary(1, 0.3), summary(3, 0.4), late]
    assert StopAfterNoGain(1).gains(Select.parse("a:max"), judged).since == since
    assert stops(judged, when=(), after=StopAfterNoGain(1), select=Select.parse("a:max")) == ""


def test_a_result_that_comes_after_that_of_a_later_round_is_no_gain_but_may_be_the_best():
    select, after = Select.parse("a:max"), StopAfterNoGain(2)
    judged = [summary(1, 0.3), summary(3, 0.2), summary(2, 0.9)]
    assert after.gains(select, judged)[:2] == (1, BestModel(2, 0.9, 3))
    judged.append(summary(4, 0.5))  # it is compared with that of round 2
    assert stops(judged, when=(), after=after, select=select) == (
        "a was best in round 2, 0.9, and has not got better in 2 evaluations (--stop-after-no-gain 2)"
    )


def test_the_reason_of_a_goal_says_what_was_judged_after_it():
    select, after = Select.parse("a:max"), StopAfterNoGain(1)
    rules = {"when": [StopWhen.parse("a>=0.95")], "after": after, "select": select}
    judged = [summary(1, 0.5), summary(2, 0.4)]
    why = "a was best in round 1, 0.5, and has not got better in 1 evaluation (--stop-after-no-gain 1)"
    assert reached(judged[:1], first=1, **rules) == ""
    assert reached(judged, first=2, **rules) == reached([*judged, summary(3, 0.1)], first=2, **rules) == why
    then = "; judged after that, the model of round 3 is the best by a: 0.8"
    assert reached([*judged, summary(3, 0.8)], first=2, **rules) == why + then
    assert reached([*judged, summary(3, 0.8)], first=3, **rules) == ""
    good = "a of the model of round 1 is 0.97 (--stop-when 'a>=0.95')"
    assert reached([summary(1, 0.97), summary(2, 0.1)], first=1, **rules) == good


def test_a_model_that_has_diverged_is_no_gain_and_one_that_could_not_be_compared_does_not_count():
    select, after = Select.parse("a:max"), StopAfterNoGain.parse("2")
    made = Comparison(diverged=SomeSites.of(["x (inf)"]))
    diverged = [read_again(replace(summary(number, None), best_before=2, comparison=made)) for number in (3, 4)]
    before = [summary(1, 0.5), summary(2, 0.6)]
    assert after.gains(select, [*diverged, *before])[:2] == (0, BestModel(2, 0.6, 3))
    assert after.gains(select, [*before, *diverged])[:2] == (2, BestModel(2, 0.6, 3))
    assert "has not got better in 2 evaluations" in stops([*before, *diverged], when=[], after=after, select=select)
    better_without_x = replace(diverged[0], metrics={"a": 0.9}, comparison=replace(made, beside=Beside(0.9, 0.6, 2)))
    assert after.gains(select, [*before, better_without_x])[:2] == (1, BestModel(2, 0.6, 3))
    nulls = {"a": Lacking(not_finite=SomeSites.of(["x (null)", "y (null)"]))}
    for value in (None, 0.9):
        apart = replace(compared(3, value, sites=1, with_=2, beside=None), lacking=nulls)
        assert after.gains(select, [*before, apart]) == (0, BestModel(2, 0.6, 3), 1)
    assert (
        stops([*before, *[replace(apart, round=at) for at in range(3, 9)]], when=[], after=after, select=select) == ""
    )


def read_again(made: EvaluationSummary) -> EvaluationSummary:
    return EvaluationSummary.from_json(made.closed_at(1))


@pytest.mark.parametrize("select", ["a:max", "a:min", "a (weighted):max", "worst/a:min"])
def test_of_two_models_the_worse_one_has_diverged_where_the_other_one_has_not(select):
    rule = Select.parse(select)
    one, other = (summary(number, value, name="a") for number, value in ((1, 0.5), (2, 0.4)))
    one, other = (replace(each, metrics={**each.metrics, "a (weighted)": each.metrics["a"]}) for each in (one, other))
    best = rule.best(None, one)
    for beside in (None, Beside(0.9, 0.1, 2), Beside(0.1, 0.9, 2)):
        diverged = Comparison(beside, diverged=SomeSites.of(["x (NaN)"]))
        assert rule.best(best, other, diverged) is best
        assert rule.best(best, other, replace(diverged, recovered=SomeSites.of(["y (inf)"]))) is best, "the earlier one"
        recovered = Comparison(beside, recovered=SomeSites.of(["x (NaN)"]))
        assert rule.best(best, other, recovered).round == 2
        told = choose(best, other, select=rule, when=(), compare=lambda *_, made=diverged: made)
        assert told.notes == (
            f"round 1 stays the best by {rule.name}: the new model has diverged at x (NaN), where that one has a "
            "finite value",
        )
        told = choose(best, other, select=rule, when=(), compare=lambda *_, made=recovered: made)
        assert "in round 1, and which has diverged at x (NaN)" in told.reason


def test_the_log_says_of_how_many_sites_the_best_is_and_where_it_is_not_finite():
    found = replace(
        summary(1, 0.5, sites=4, few=2), lacking={"a": Lacking(not_finite=SomeSites.of(["c (inf)", "d (null)"]))}
    )
    told = choose(None, found, select=Select.parse("a:max"), when=())
    assert told.reason == (
        "the best so far by a: 0.5 (of 2 of 4 sites); a is not a finite number at c (inf) and d (null)"
    )


def test_a_comparison_that_is_damaged_is_named():
    text = compared(3, 0.5, sites=2, with_=2, beside=Beside(0.5, 0.25, 2)).closed_at(1)
    for wrong in ("[0.5,0.25]", "[0.5,NaN,2]", '[0.5,"a",2]', "7", "[0.5,0.25,-1]"):
        with pytest.raises(DamagedRecord, match="summary of an evaluation"):
            EvaluationSummary.from_json(text.replace("[0.5,0.25,2]", wrong))


def test_what_an_evaluation_means():
    select, when = Select.parse("a:max"), [StopWhen.parse("b>1")]
    first = choose(None, summary(1, 0.5), select=select, when=when)
    assert first == (
        BestModel(1, 0.5, 3),
        "the best so far by a: 0.5",
        ("--stop-when: there is no metric 'b': there is only a",),
        Comparison(),
    )
    better = choose(first.best, summary(2, 0.75), select=select, when=())
    assert better == (
        BestModel(2, 0.75, 3),
        "the best so far by a: 0.75, after 0.5 in round 1",
        (),
        Comparison(Beside(0.75, 0.5, 3)),
    )
    assert choose(better.best, summary(3, 0.6), select=select, when=()) == (
        better.best,
        "",
        (),
        Comparison(Beside(0.6, 0.75, 3)),
    )
    fewer = choose(better.best, summary(4, 0.9, sites=2), select=select, when=())
    assert fewer == (
        better.best,
        "",
        (
            "a of 2 sites is not compared with that of round 2, of 3 sites: "
            "too few sites have a value of it for both models",
        ),
        Comparison(),
    )
    more = choose(better.best, summary(5, 0.6, sites=4), select=select, when=())
    assert more.reason == "the best so far by a: 0.6, after 0.75 in round 2, which 3 sites had judged"
    assert choose(None, summary(1, 0.5), select=None, when=()) == (None, "", (), Comparison())


def test_what_is_missing_is_named():
    assert (
        lacking("acuracy", summary(1, 0.5, name="accuracy")) == "there is no metric 'acuracy': there is only accuracy"
    )
    assert lacking("accuracy", summary(1, 0.5, name="accuracy")) == ""
    assert lacking("a", summary(1, None)) == "there is no metric 'a': there are none"
    assert value_of("worst/a", summary(1, None), is_larger=True) is None


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy:best", ":max", "max"])
def test_a_selection_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="NAME:max or NAME:min"):
        Select.parse(text)


@pytest.mark.parametrize("text", ["", "a", "a>=", "a=3", ">=3", "a>=x", "a>=nan", "a>=1>=2"])
def test_a_goal_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="a metric of evaluations, a sign and a number"):
        StopWhen.parse(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "5:", "5:x", "5:-1", "5:nan", "5:inf", "1.5"])
def test_a_patience_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="a number of evaluations"):
        StopAfterNoGain.parse(text)


def test_names_with_colons_and_signs():
    assert Select.parse("val:acc:max") == Select("val:acc", True)
    assert str(Select.parse(" loss : min")) == "loss:min"
    assert StopWhen.parse("pooled/accuracy>=0.95") == StopWhen("pooled/accuracy", ">=", 0.95, "pooled/accuracy>=0.95")


@pytest.mark.parametrize(("bound", "is_told"), [(0.01, True), (0.0005, False), (0.0, False)])
def test_a_gain_within_the_bound_of_a_pooled_metric_is_said_to_be(bound, is_told):
    one, other = (summary(number, value, name="pooled/auc") for number, value in ((1, 0.876), (2, 0.877)))
    other = replace(other, metrics={**other.metrics, "pooled/auc_bound": bound})
    select = Select.parse("pooled/auc:max")
    found = choose(select.best(None, one), other, select=select, when=())
    assert found.best == BestModel(2, 0.877, 3)
    assert ("the gain is within the bound of its error, ± 0.01" in found.reason) is is_told
    assert bool(found.notes) is is_told
