"""Sites leave each other out of made-up rounds whose answers are known: who is asked, and what stays in the store.

The metric of a site is the first weight of the model, times a number of the site's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from flavor.checkpoints import TensorFile
from flavor.contributions.by_sites import BySites
from flavor.contributions.kept import Kept, read_kept
from flavor.contributions.measure import measure
from flavor.contributions.result import Contributions, how_to_read, lines_of, table_of
from flavor.coordinator.asked_evaluation import Asked
from flavor.errors import FlavorError, InvalidSetting, LocalFault, RunError
from flavor.ledger.disclosures import Disclosures
from flavor.ledger.trust import Trust
from flavor.policy.exposure import NOT_ALLOWED
from flavor.policy.selection import Select
from flavor.results.evaluated import Evaluated
from flavor.results.site_measures import SiteMeasures
from flavor.store.paths import run_record_path
from tests.faults.servers import moved_away
from tests.unit.contributions.madeup import MadeRun, weights

ZERO = weights(0, 0)


@dataclass
class FirstWeights:
    """`Sites` that read the models in the store. A site fails for the model that lacks the site named beside it."""

    run: MadeRun
    factors: Mapping[str, float]
    fails: Collection[tuple[str, str]] = ()
    other: Collection[tuple[str, str]] = ()
    """As `fails`, for a site that measures another metric of that model alone."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """The site that a model lacks, to why its evaluation has no result; '' for the round's own model."""
    metric: str = "w"
    asked: list[Asked] = field(default_factory=list)
    placed: set[str] = field(default_factory=set)
    had_placed: bool = False
    allowed: Collection[str] = "abcde"
    takes_back: str = ""
    """The site that takes its word back once the first model is about to be put into the store."""

    def allowing(self) -> Collection[str]:
        return [site for site in self.allowed if not (self.placed and site == self.takes_back)]

    def note_placed(self, path: str) -> None:
        assert not self.run.store.exists(path), "before it is there"
        self.placed.add(path)

    def forget_placed(self, paths: Sequence[str]) -> None:
        assert not any(map(self.run.store.exists, paths)), "once it is gone"
        self.placed -= set(paths)

    def judge_all(self, asked: Sequence[Asked], ended: Callable[[int, Evaluated | str], None]) -> list[Evaluated | str]:
        if not self.factors:
            raise RunError("run 'r' has no site now that has an evaluator")
        assert {each.model.model.path for each in asked if each.subject.site} >= self.placed
        self.had_placed |= bool(self.placed)
        self.asked += asked
        found = [
            self.lost[each.subject.site] if each.subject.site in self.lost else self._judged(each) for each in asked
        ]
        for place, each in enumerate(found):
            ended(place, each)
        return found

    def _judged(self, asked: Asked) -> Evaluated:
        assert asked.crossing
        file = TensorFile.open(self.run.store.open(asked.model.model))
        weight = float(np.asarray(file.tensor("w"))[0])
        there = [site for site in self.factors if (site, asked.subject.site) not in self.fails]
        names = {site: "other" if (site, asked.subject.site) in self.other else self.metric for site in there}
        sites = {site: SiteMeasures(10, {names[site]: self.factors[site] * weight}) for site in there}
        missing = {site: "it is gone" for site in self.factors if site not in there}
        return Evaluated("r", asked.round, 1, "", 0, 1, tuple(self.factors), sites, missing)


def measured(
    run: MadeRun,
    tmp_path: Path,
    sites: FirstWeights,
    *,
    allowing: Collection[str] = "abcde",
    said: list[str] | None = None,
    kept: Kept | None = None,
) -> Contributions:
    sites.allowed = allowing
    trial = BySites(
        sites=sites,
        store=run.store,
        select=Select.parse("w:max"),
        timeout_s=5,
        folder=tmp_path,
        tell=(said if said is not None else []).append,
        total=9,
    )
    return measure(kept or read_kept(run.archive, Trust(), None), run.store, threads=1, trial=trial)


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path / "store", ZERO)


def objects(run: MadeRun) -> list[Path]:
    """All but those that say whose updates were given away: these stay."""
    return sorted(path for path in run.folder.rglob("*") if path.is_file() and path.parent.name != "disclosed")


def test_what_a_site_says_of_its_own_update_stands_apart(run, tmp_path):
    """The model is 2; without a it is 3, without b 2, and without c 1."""
    run.round({"a": (weights(0, 0), 10), "b": (weights(2, 0), 10), "c": (weights(4, 0), 10)})
    before, said = objects(run), list[str]()
    sites = FirstWeights(run, {"a": 1, "b": 10, "z": 100})
    found = measured(run, tmp_path, sites, said=said)
    parts = found.rounds[0].sites
    assert found.rounds[0].value == pytest.approx((2 + 20 + 200) / 3)
    assert {site: each.contribution for site, each in parts["a"].judges.items()} == {"a": -1, "b": -10, "z": -100}
    assert (parts["a"].with_it, parts["a"].without, parts["a"].contribution) == (110, 165, -55)
    assert parts["b"].contribution == 0
    assert parts["c"].contribution == pytest.approx(111 / 3)
    assert [each.subject.site for each in sites.asked] == ["", "a", "c"], "the model without b is that of the round"
    assert said[0] == "evaluation 1 of 9: the model of round 1: judged by a, b, z"
    assert said[1] == "evaluation 2 of 9: the model of round 1 without a: judged by a, b, z"
    assert objects(run) == before
    assert (sites.had_placed, sites.placed) == (True, set())
    heads, rows = table_of(found)
    assert heads[5:] == ["WITH IT", "WITHOUT IT", "CONTRIBUTION", "AT HOME", "JUDGED BY"]
    assert rows[0][5:] == ["110", "165", "-55", "-1", "b, z"]
    assert rows[-1][8:] == ["-", "a, b, z"]
    assert "AT HOME is the same by its own data" in how_to_read(found)


def test_over_those_alone_that_have_judged_both_models(run, tmp_path):
    run.round({"a": (weights(0, 0), 10), "b": (weights(2, 0), 10), "c": (weights(4, 0), 10)})
    fails, other = [("y", "a"), ("z", "")], [("x", "a")]
    factors = {"a": 1, "x": 5, "y": 10, "z": 100}
    sites = FirstWeights(run, factors, fails, other, lost={"c": "its sites are gone"})
    found = measured(run, tmp_path, sites)
    parts = found.rounds[0].sites
    assert list(parts["a"].judges) == ["a"]
    assert (parts["a"].contribution, parts["a"].why_not) == (None, "no other site has judged both models")
    assert parts["a"].lacking == {"x": "it has not measured w", "y": "it is gone", "z": "it is gone"}
    assert (parts["c"].contribution, parts["c"].why_not) == (None, "its sites are gone")
    assert "round 1: without a, b: not judged by z: it is gone" in lines_of(found)


def test_only_sites_are_left_out_that_allow_it(run, tmp_path):
    run.round({name: (weights(at, 0), 10) for at, name in enumerate("abcde")})
    sites = FirstWeights(run, {"z": 1})
    found = measured(run, tmp_path, sites, allowing={"a", "e"})
    assert [each.subject.site for each in sites.asked] == ["", "a", "e"]
    parts = found.rounds[0].sites
    assert {name: part.why_not for name, part in parts.items()} == {
        **dict.fromkeys("ae", ""),
        **dict.fromkeys("bcd", NOT_ALLOWED),
    }
    assert parts["e"].contribution == pytest.approx(2 - 1.5)


@pytest.mark.parametrize(
    ("allowing", "why"),
    [
        ("abcd", "e runs without --allow-cross, and its update could be computed"),
        ("abc", "d, e run without --allow-cross"),
        ("", "none of its sites runs with --allow-cross"),
    ],
)
def test_no_model_is_made_from_which_the_update_of_a_site_follows_that_keeps_it(allowing, why, run, tmp_path):
    run.round({name: (weights(at, 0), 10) for at, name in enumerate("abcde")})
    sites = FirstWeights(run, {"z": 1})
    found = measured(run, tmp_path, sites, allowing=allowing)
    assert sites.asked == []
    assert why in found.rounds[0].why_not
    assert not found.is_judged
    assert all(part.cosine is not None for name, part in found.rounds[0].sites.items() if name != "a")


def test_no_update_follows_from_two_calls_between_which_a_site_has_taken_its_word_back(run, tmp_path):
    """The first call says the updates of d and e. With that of c, the update of b would follow for a."""
    run.round({name: (weights(at, 0), 10) for at, name in enumerate("abcde")})
    assert measured(run, tmp_path, FirstWeights(run, {"z": 1}), allowing="de").is_judged
    sites = FirstWeights(run, {"z": 1})
    found = measured(run, tmp_path, sites, allowing="cd")
    assert sites.asked == []
    assert found.rounds[0].why_not.startswith("a, b run without --allow-cross")
    assert found.rounds[0].why_not.endswith("; that of e was given to other sites before")
    assert measured(run, tmp_path, sites, allowing="de").is_judged, "nothing new follows"
    run.round({name: (weights(at, 1), 10) for at, name in enumerate("abcde")})
    later = measured(run, tmp_path, sites, allowing="cd")
    assert [not each.why_not for each in later.rounds] == [False, True], "of another round nothing was said"


@pytest.mark.parametrize(
    ("allowing", "takes_back", "asked", "why"),
    [
        ("ae", "e", ["", "a"], {"a": "", "e": NOT_ALLOWED}),
        ("ae", "a", ["", "e"], {"a": NOT_ALLOWED, "e": ""}),
        ("abcde", "b", [""], {"b": NOT_ALLOWED, **dict.fromkeys("ade", "b runs without --allow-cross")}),
    ],
    ids=["before its model is put", "before it is judged", "so that its update would follow"],
)
def test_a_site_takes_its_word_back_while_the_models_are_made(allowing, takes_back, asked, why, run, tmp_path):
    run.round({name: (weights(at, 0), 10) for at, name in enumerate("abcde")})
    before, sites = objects(run), FirstWeights(run, {"z": 1}, takes_back=takes_back)
    found = measured(run, tmp_path, sites, allowing=allowing)
    assert [each.subject.site for each in sites.asked] == asked
    parts = found.rounds[0].sites
    for name, reason in why.items():
        assert parts[name].why_not.startswith(reason), name
        assert bool(parts[name].why_not) == bool(reason), name
        assert (parts[name].contribution is None) == bool(reason), name
    assert objects(run) == before


def test_a_site_is_known_before_a_model_without_it_lies_in_the_store(run, tmp_path):
    """Also where the call is given up, or no site can judge."""
    run.round({name: (weights(at, 0), 10) for at, name in enumerate("abcde")})
    measured(run, tmp_path, FirstWeights(run, {}), allowing="de")
    assert Disclosures(run.store, run.name, run.run_id).of_round(1) == {"d", "e"}


def test_a_site_that_counts_for_nothing_in_the_mean_hides_no_other_one(run, tmp_path):
    """The mean without a and b is that of c, d and e, and e has no examples."""
    run.round({name: (weights(at, 0), 0 if name == "e" else 10) for at, name in enumerate("abcde")})
    sites = FirstWeights(run, {"z": 1})
    found = measured(run, tmp_path, sites, allowing="ab")
    assert sites.asked == []
    assert found.rounds[0].why_not.startswith("c, d run without --allow-cross")


@pytest.mark.parametrize("rule", ["median", "krum:f=1", "norm_clip:c=1/fedavg"])
def test_a_rule_that_may_show_a_single_update_needs_the_word_of_all_sites(rule, tmp_path):
    run = MadeRun(tmp_path / "store", ZERO, config={"aggregator": rule})
    run.round({name: (weights(at, 0), 10) for at, name in enumerate("abcdef")})
    sites = FirstWeights(run, {"z": 1})
    found = measured(run, tmp_path, sites, allowing="ab")
    assert sites.asked == []
    assert f"c, d, e, f run without --allow-cross, and {rule} may show" in found.rounds[0].why_not
    assert measured(run, tmp_path, sites, allowing="abcdef").is_judged


def test_the_initial_model_stays_in_the_store_where_a_model_without_a_site_is_the_same(tmp_path):
    """The round's model without b is the one that a hands in, and that the run has begun from."""
    run = MadeRun(tmp_path / "store", ZERO)
    run.round({"a": (ZERO, 10), "b": (weights(2, 0), 10)})
    assert run.record.initial is not None
    before, sites = objects(run), FirstWeights(run, {"z": 1})
    measured(run, tmp_path, sites)
    assert run.record.initial.path in [each.model.model.path for each in sites.asked if each.subject.site == "b"]
    assert objects(run) == before


def test_what_no_site_can_judge(run, tmp_path):
    run.round({"a": (weights(1, 0), 10), "b": (weights(2, 0), 10)})
    before = objects(run)
    assert measured(run, tmp_path, FirstWeights(run, {})).rounds[0].why_not.startswith("run 'r' has no site now")
    late = measured(run, tmp_path, FirstWeights(run, {"z": 1}, lost={"": "its deadline passed"}))
    assert late.rounds[0].why_not == "its model has no result: its deadline passed"
    with pytest.raises(InvalidSetting, match="--metric w:max: no site has measured it: there is only v"):
        measured(run, tmp_path, FirstWeights(run, {"z": 1}, metric="v"))
    assert objects(run) == before


def test_a_rule_that_needs_more_sites_says_so(tmp_path):
    run = MadeRun(tmp_path / "store", ZERO, config={"aggregator": "trimmed_mean:f=1"})
    run.round({c: (weights(1 + i / 10, 1), 10) for i, c in enumerate("abc")})
    found = measured(run, tmp_path, FirstWeights(run, {"z": 1}))
    assert all("got n = 2" in part.why_not for part in found.rounds[0].sites.values())


def test_models_that_stay_in_the_store_because_the_share_was_unmounted_are_told(run, tmp_path):
    run.round({"a": (weights(0, 0), 10), "b": (weights(2, 0), 10), "c": (weights(4, 0), 10)})
    said = list[str]()

    class Unmounting(FirstWeights):
        def judge_all(self, asked: Sequence[Asked], ended: Callable[[int, Evaluated | str], None]) -> list:
            moved_away(run.folder, leave=True)
            raise RunError("no site can read it")

    sites = Unmounting(run, {})
    with contextlib.suppress(FlavorError):  # its other rounds cannot be read either
        measured(run, tmp_path, sites, said=said)
    assert len(sites.placed) == 2, "the next one who asks removes them"
    assert said[-1].startswith("models without a site stay in the store, which sites read (")
    assert said[-1].endswith("is the share mounted?")


def test_a_model_without_a_site_is_not_put_where_the_share_is_not_mounted(run, tmp_path):
    run.round({"a": (weights(0, 0), 10), "b": (weights(2, 0), 10), "c": (weights(4, 0), 10)})
    kept = read_kept(run.archive, Trust(), None)
    record = run.folder / run_record_path("r")
    record.rename(tmp_path / "elsewhere")
    before = objects(run)
    with pytest.raises(LocalFault, match=r"run.json is not there: is the share mounted\?"):
        measured(run, tmp_path, FirstWeights(run, {"a": 1}), kept=kept)
    assert objects(run) == before
