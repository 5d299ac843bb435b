"""Third parties' rules: real packages (a module and its dist-info) in a folder on the path."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aggregators import aggregate, catalogue, entry_points, parse, parse_server_step
from aggregators.catalogue import BUILT_IN, GROUP
from aggregators.order_statistics import Median
from flavor.errors import AggregationError, InvalidSetting

RULES = '''
"""A package of somebody else."""
from __future__ import annotations
from dataclasses import dataclass, field, replace
from typing import Literal
import numpy as np
from aggregators.algorithms import Algorithm
from aggregators.mean import Mean
from aggregators.order_statistics import Median
from aggregators.protocols import Plan, Reducer

print("hello from the import")


@dataclass(frozen=True)
class Largest:
    """The largest value of each coordinate, times a factor.

    More that no listing shows.
    """

    factor: float = 1.0
    of: str = "all"

    source = "Acme 2026"
    condition = "n >= 2"
    needs_global = False

    def check(self, n):
        if n < 2:
            from flavor.errors import AggregationError
            raise AggregationError(f"largest needs n >= 2 clients, got n = {n}")

    def plan(self, scan, weights):
        def reduce(block, out):
            np.max(block.rows, axis=0, out=out)
            np.multiply(out, self.factor, out=out)
        return Plan(reduce, tuple(range(scan.n)), weights.raw, live_rows=scan.n)


class Damped:
    """θ' = θ + rate (reduced − θ), and a count of the rounds"""

    name = "damped"
    needs_global = True
    slots = {"rounds": 0.0}

    def __init__(self, rate: float, loud: bool = False):
        if not 0 < rate <= 1:
            raise ValueError(f"rate is {rate}")
        self.rate, self.loud = rate, loud

    def step(self, base, reduced, state, out, scratch):
        state["rounds"] += 1
        np.subtract(reduced, base, out=out)
        np.multiply(out, self.rate, out=out)
        np.add(out, base, out=out)


class Anything:
    needs_global = True

    def __init__(self, **options):
        self.options = options

    def check(self, n): ...

    def plan(self, scan, weights):
        return Mean().plan(scan, weights)


class Both(Anything):
    slots = {}

    def step(self): ...


@dataclass(frozen=True)
class Halved:
    """Half of each value, before another rule."""

    then: Reducer = field(default_factory=Mean)
    mode: Literal["all", "some"] | int = "all"

    needs_global = False

    def check(self, n): ...

    def before(self, rule):
        return replace(self, then=rule)

    def plan(self, scan, weights):
        plan = self.then.plan(scan, weights)

        def reduce(block, out):
            plan.reduce(block, out)
            np.multiply(out, 0.5, out=out)

        return replace(plan, reduce=reduce)


class Pair(Algorithm):
    """The halved median, with a step."""

    def __init__(self, rate: float = 0.5):
        super().__init__(Halved(Median()), Damped(rate))


class Forgetful:
    def check(self, n): ...

    def plan(self, scan, weights): ...


def function():
    """Not a class."""
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Writes a package's module and dist-info, as an installer would, and puts the folder on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def done(points: str, name: str = "acme", code: str = RULES) -> None:
        module = f"{name}_rules"
        (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(tmp_path)  # again, so that the finders look again

    return done


def listed() -> dict[str, tuple[str, str, str]]:
    return {entry.name: (entry.kind, entry.description, entry.source) for entry in catalogue()[len(BUILT_IN) :]}


def group(*lines: str) -> str:
    return "[flavor.aggregators]\n" + "\n".join(lines) + "\n[console_scripts]\nacme = acme_rules:main\n"


def test_a_reducer_and_a_server_step_of_a_third_party_are_told_apart_and_work(install: Install) -> None:
    install(group("largest = acme_rules:Largest", "damped = acme_rules:Damped"))
    assert listed() == {
        "damped": ("server step", "θ' = θ + rate (reduced − θ), and a count of the rounds", "acme 1.5"),
        "largest": ("reducer", "The largest value of each coordinate, times a factor", "Acme 2026"),
    }
    usage = {entry.name: (entry.usage, entry.condition) for entry in catalogue()}
    assert usage["largest"] == ("largest:[factor=1.0],[of=all]", "n >= 2")
    assert usage["damped"] == ("damped:rate=,[loud=False]", "see there")
    clients = [{"w": np.array([1.0, 5.0])}, {"w": np.array([3.0, 1.0])}]
    assert aggregate(clients, aggregator="largest:factor=2")["w"].tolist() == [6, 10]
    old = {"w": np.zeros(2)}
    model, state = aggregate(clients, aggregator="largest", server_step="damped:rate=0.5", global_model=old)
    assert model["w"].tolist() == [1.5, 2.5]
    model, state = aggregate(clients, server_step="damped:rate=1", global_model=old, state=state)
    assert state.tensors["rounds/w"].tolist() == [2, 2]
    assert parse_server_step("damped:rate=1,loud=true").loud is True
    with pytest.raises(AggregationError, match="largest needs n >= 2 clients, got n = 1"):
        aggregate(clients[:1], aggregator="largest")


def test_a_rule_of_a_third_party_goes_before_another_and_has_a_server_step_as_ours_do(install: Install) -> None:
    install(group("halved = acme_rules:Halved", "pair = acme_rules:Pair"))
    assert {name: kind for name, (kind, _, _) in listed().items()} == {"halved": "reducer", "pair": "alias"}
    clients = [{"w": np.array([value])} for value in (1.0, 2.0, 90.0)]
    assert aggregate(clients, aggregator="halved/median")["w"] == 1
    assert aggregate(clients, aggregator="halved:mode=some/halved:mode=2/median")["w"] == 0.5
    assert {entry.name: entry.usage for entry in catalogue()}["halved"] == "halved:[mode=all]"
    for text, message in [("halved:then=mean", "bad option 'then=mean'"), ("halved:mode=x", "'x' does not fit mode")]:
        with pytest.raises(InvalidSetting, match=message):
            parse(text)
    model, _ = aggregate(clients, aggregator="pair:rate=0.25", global_model={"w": np.array([5.0])})
    assert model["w"] == 4


def test_our_own_rules_are_read_from_entry_points_as_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [(point.name, point.group) for point in BUILT_IN]
    assert own == [(entry.name, GROUP) for entry in catalogue()]
    monkeypatch.setattr(entry_points, "BUILT_IN", BUILT_IN[:1])
    assert [entry.name for entry in catalogue()] == ["fedavg"]
    with pytest.raises(InvalidSetting, match=r"unknown aggregator 'median'; there are: fedavg$"):
        parse("median")


def test_its_options_are_checked_as_ours_are(install: Install) -> None:
    install(group("damped = acme_rules:Damped", "any = acme_rules:Anything"))
    assert parse("any:a=1,b=0.5,c=x").reducer.options == {"a": 1, "b": 0.5, "c": "x"}
    assert parse("any").without_global().reducer == parse("mean").reducer
    for text, message in [
        ("damped", r"rate is missing; write damped:rate=,\[loud=False\]"),
        ("damped:rate=fast", "'fast' does not fit rate"),
        ("damped:rate=1,loud=perhaps", "'perhaps' does not fit loud"),
        ("damped:size=1", "bad option 'size=1'"),
        ("damped:rate=7", "acme_rules:Damped: ValueError: rate is 7"),
    ]:
        with pytest.raises(InvalidSetting, match=message) as caught:
            parse_server_step(text)
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidSetting, match=r"'damped'; there are: .*any; 'damped' is a server step"):
        parse("damped:rate=1")
    with pytest.raises(InvalidSetting, match=r"'any'; there are: .*damped; 'any' is an aggregator"):
        parse_server_step("any")


BROKEN = {
    "nothing": ("no_such_module_here:X", "No module named 'no_such_module_here'"),
    "absent": ("acme_rules:Absent", "has no attribute 'Absent'"),
    "function": ("acme_rules:function", "it is a function, not a class"),
    "both": ("acme_rules:Both", "it is both a reducer and a server step"),
    "neither": ("builtins:dict", "it is neither a reducer nor a server step: a reducer has check and plan"),
    "garbage": ("this is !! no reference", ""),
    "median": ("acme_rules:Largest", "there is a rule of this name already"),
    "with/slash": ("acme_rules:Largest", "'/' cannot stand in a name"),
}


def test_what_is_broken_is_listed_with_its_reason_and_breaks_nothing_else(install: Install) -> None:
    install(group("largest = acme_rules:Largest", *(f"{name} = {value}" for name, (value, _) in BROKEN.items())))
    entries = {entry.name: entry for entry in catalogue()[len(BUILT_IN) :]}
    assert entries.pop("largest").kind == "reducer"
    assert entries.keys() == BROKEN.keys()
    for name, entry in entries.items():
        assert entry.kind == "unusable"
        assert BROKEN[name][1] in entry.description
        assert BROKEN[name][0] in entry.description
        assert entry.source == "acme 1.5"
        assert "\n" not in entry.description
    assert parse("median").reducer == Median()
    for name in ("nothing", "both"):
        with pytest.raises(InvalidSetting) as caught:
            parse(f"{name}:x=1")
        assert BROKEN[name][1] in str(caught.value)
    with pytest.raises(InvalidSetting, match=r"there are: replace, momentum, adagrad, adam, yogi, nesterov$"):
        parse_server_step("medain")


@pytest.mark.parametrize(
    "code",
    ["1 / 0", "raise SystemExit(3)", "def broken(:", "import warnings; warnings.warn('old', DeprecationWarning)"],
)
def test_a_module_that_fails_in_any_way_breaks_nothing_else(install: Install, code: str) -> None:
    install(group("largest = acme_rules:Largest"))
    install("[flavor.aggregators]\nbad = worse_rules:X\n", "worse", code)
    assert {name: kind for name, (kind, _, _) in listed().items()} == {"bad": "unusable", "largest": "reducer"}


def test_entry_points_that_cannot_be_read_break_nothing_else(install: Install) -> None:
    install(group("largest = acme_rules:Largest"))
    install("[flavor.aggregators]\nno equals sign\n", "worse")
    kinds = listed()
    assert kinds["largest"][0] == "reducer"
    assert kinds["worse"][0] == "unusable"
    assert "cannot be read" in kinds["worse"][1]
    assert kinds["worse"][2] == "worse 1.5"
    assert parse("largest").reducer.factor == 1


def test_the_first_of_two_packages_wins_a_name(install: Install) -> None:
    install(group("largest = acme_rules:Largest"))
    install("[flavor.aggregators]\nlargest = other_rules:Largest\n", "other")
    found = [(entry.kind, entry.description) for entry in catalogue() if entry.name == "largest"]
    assert [kind for kind, _ in found] == ["reducer", "unusable"]
    assert "there is a rule of this name already" in found[1][1]
    assert type(parse("largest").reducer).__module__ == "acme_rules"


def test_a_rule_without_what_the_protocol_needs_says_what(install: Install) -> None:
    install(group("forgetful = acme_rules:Forgetful"))
    with pytest.raises(InvalidSetting, match="acme_rules:Forgetful is no reducer: needs_global is missing"):
        parse("forgetful")


def test_no_foreign_code_runs_for_our_own_rules(install: Install) -> None:
    install(group("largest = acme_rules:Largest"))
    parse("trimmed_mean:f=1", "nesterov")
    assert "acme_rules" not in sys.modules
    parse("largest")
    assert "acme_rules" in sys.modules


def test_the_command_lists_them_and_keeps_its_output_clean(install: Install, tmp_path: Path) -> None:
    install(group("largest = acme_rules:Largest", "nothing = no_such_module_here:X"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from flavor.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "aggregators"], capture_output=True, text=True, check=True)
    assert "  largest:[factor=1.0],[of=all]\n      The largest value" in done.stdout
    assert "Installed, and cannot be used:\n  nothing" in done.stdout
    assert "hello from the import" not in done.stdout
