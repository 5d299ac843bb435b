"""The fair table of DiLoCo: the docs have what was measured, rates are chosen fairly, and a run goes on."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lazy import Lazy

ROOT = Path(__file__).parents[2]
torch = Lazy("torch")


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("diloco_grid")


@pytest.fixture
def fair(grid: Any) -> Iterator[Any]:
    """The program. Its `model` is the example's, and another test's may have the same name."""
    before, threads = set(sys.modules), torch.get_num_threads()
    yield importlib.import_module("diloco_fair")
    torch.set_num_threads(threads)
    for name in {"diloco_fair", "diloco_workers", "model"} - before:
        del sys.modules[name]


def test_the_tables_in_the_docs_are_what_the_file_gives(grid: Any) -> None:
    plan, found = grid.Plan(), grid.Found(grid.FOUND)
    made = grid.table(plan, found.losses, found.setting["steps"])
    others = grid.by_outer_rate(plan, found.losses, "diloco")
    assert "not measured" not in made + others
    text = (ROOT / "docs" / "aggregation.md").read_text(encoding="utf-8")
    assert made in text
    assert others in text
    assert {loss.test for trial, loss in found.losses.items() if trial.seed == plan.tuning} == {None}


def losses_of(grid: Any, plan: Any, validation: dict[tuple[float, float | None], float | None]) -> Any:
    """Of DiLoCo with H 20, and of synchronous training, which loses 2 with each seed."""
    found = {trial: grid.Loss(2.0) for trial in plan.candidates("sync", 0)}
    found |= {trial: grid.Loss(2.0, 2.0) for trial in plan.finals(grid.Trial("sync", 0, 0.005, None, 100))}
    return found | {grid.Trial("diloco", 20, *rates, 100): grid.Loss(loss) for rates, loss in validation.items()}


def test_rates_are_chosen_by_validation_and_marked_at_the_edge(grid: Any) -> None:
    rates = {"adamw": (0.005, 0.01, 0.02), "nesterov": (0.35, 0.7)}
    plan = grid.Plan(methods=("sync", "diloco"), every=(20,), seeds=(0, 1), grid=rates)
    pairs = {(i, o): 2.5 for i in rates["adamw"] for o in rates["nesterov"]}
    found = losses_of(grid, plan, pairs | {(0.01, 0.7): 2.1, (0.02, 0.7): None})
    row = grid.table(plan, found, 600).splitlines()[-1]
    assert row == "| 20 | DiLoCo: AdamW, then `nesterov` | 0.01 | ≥ 0.7 | not measured | | 30 |"
    for seed, loss in ((0, 2.2), (1, 2.4)):
        found[grid.Trial("diloco", 20, 0.01, 0.7, seed)] = grid.Loss(1.0, loss)
        found[grid.Trial("diloco", 20, 0.02, 0.7, seed)] = grid.Loss(1.0, 1.0)  # better, and no candidate
    sync, row = grid.table(plan, found, 600).splitlines()[2:]
    assert sync == "| 1 | synchronous, AdamW | ≤ 0.005 | | 2.000 ± 0.000 | | 600 |"
    assert row.endswith("| 0.01 | ≥ 0.7 | 2.300 ± 0.141 | +15.0 ± 7.1 % | 30 |")
    rows = grid.by_outer_rate(plan, found, "diloco").splitlines()
    assert rows[0::2] == ["| H | outer rate 0.35 | outer rate 0.7 |", "| 20 | 2.500 | 2.100 |"]
    found[grid.Trial("diloco", 20, 0.01, 0.7, 1)] = grid.Loss(None)
    assert "| diverged | |" in grid.table(plan, found, 600)
    everything_diverged = losses_of(grid, plan, dict.fromkeys(pairs))
    assert "| diverged | |" in grid.table(plan, everything_diverged, 600)


def test_a_run_that_was_interrupted_goes_on(fair: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--methods", "sync,fedavg-sgd,diloco", "--out", str(tmp_path / "found")]
    fair.main(words)
    whole, first = (tmp_path / "found").read_text(), capsys.readouterr().out
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 1 + 4 + 4 + 6
    assert {json.loads(line)["seed"] for line in lines[1:] if json.loads(line)["test"] is not None} == {0, 1}
    (tmp_path / "found").write_text("".join(lines[:10]) + lines[10][:20])
    fair.main(words)
    again = capsys.readouterr().out
    assert [line.split(" ")[0] for line in again.splitlines() if " of 14: " in line] == ["10", "11", "12", "13", "14"]
    figures = [{**json.loads(line), "seconds": 0} for line in (tmp_path / "found").read_text().splitlines()[1:]]
    assert figures == [{**json.loads(line), "seconds": 0} for line in lines[1:]]
    assert again[again.index("| H |") :] == first[first.index("| H |") :]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "8"], "has trials with steps=4, and this run has steps=8: give another --out"),
        (["--table", "--out", "absent"], "absent has no trials"),
        (["--out", "absent/found"], "--out absent/found is a folder, or its folder is not there"),
        (["--heads", "3"], "a width of 32 is no multiple of twice 3 heads"),
        (["--batch", "0"], "--batch takes a whole number from 1, and not 0"),
        (["--every", "30", "--steps", "100"], "100 steps are no multiple of H = 30"),
        (["--grid", "sdg=1"], "there are no rates of 'sdg'; there are: adamw, sgd"),
        (["--grid", "sgd=0,x"], "--grid sgd takes numbers above 0, by commas, and not '0,x'"),
        (["--seeds", "0,100"], "not the tuning seed 100"),
        (["--methods", "fedprox"], "there is no method fedprox"),
    ],
)
def test_wrong_input_is_one_line(
    fair: Any, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "found").write_text(
        json.dumps({"setting": {**{n: getattr(fair.QUICK, n) for n in fair.FIELDS}}}) + "\n"
    )
    with pytest.raises(SystemExit) as stopped:
        fair.main(["--quick" if "--steps" in words[:1] else "--table", "--out", str(tmp_path / "found"), *words])
    assert said in f"{stopped.value} {capsys.readouterr().err}"


def test_a_damaged_line_is_named(grid: Any, tmp_path: Path) -> None:
    (tmp_path / "found").write_text('{"setting": {"steps": 4}}\n{"method": "sync"}\n')
    with pytest.raises(SystemExit, match=r"found, line 2 is no line of `diloco.py fair`"):
        grid.Found(tmp_path / "found")
