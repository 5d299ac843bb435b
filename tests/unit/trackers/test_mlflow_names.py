"""Names of metrics in MLflow: all of them are taken there, and no two metrics share one."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flavor.trackers.mlflow_names import mlflow_name


@settings(deadline=None)  # the first one imports MLflow
@given(st.text(min_size=1, max_size=300))
@example("a//b")
@example("../x")
@example(".")
@example("/")
@example("a/./b")
@example("x" * 300)
@example("\n")
@example("loss\n")
@example("flavor/round")
@example("weighted/loss")
@example(" (weighted)")
@example("../up (weighted)")
def test_mlflow_takes_every_name(metric: str) -> None:
    from mlflow.utils.validation import _validate_length_limit, _validate_metric_name

    name = mlflow_name(metric)
    _validate_metric_name(name)
    _validate_length_limit("name", 250, name)
    assert name == mlflow_name(metric)


def test_no_two_metrics_share_a_name_and_usual_ones_stay() -> None:
    usual = ["loss", "val/auc", "dice.mean", "f1-score", "top 5", "Größe"]
    assert [mlflow_name(name) for name in usual] == usual
    names = [
        *usual,
        "f(1)",
        "f[1]",
        "f_1_",
        "a//b",
        "a/b",
        "loss (weighted)",
        "weighted/loss",
        "flavor/round",
        "flavor_round",
    ]
    assert len({mlflow_name(name) for name in names}) == len(names)
    assert mlflow_name("loss (weighted)") == "weighted/loss"


@pytest.mark.parametrize("name", ["flavor/round", "flavor/x"])
def test_a_site_cannot_write_flavors_own_numbers(name: str) -> None:
    assert not mlflow_name(name).startswith("flavor/")
