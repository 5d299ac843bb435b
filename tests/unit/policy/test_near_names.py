"""What somebody reads who has named a metric that is not there."""

from __future__ import annotations

import pytest

from flavor.policy.near_names import there_are

MANY = [
    *("accuracy", "accuracy (weighted)", "count/n", "loss", "Overall/recall", "val/accuracy"),
    *(f"pooled/{name}" for name in ("accuracy", "auc", "auc_bound", "average_precision", "f1", "mcc", "precision")),
]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("f1_score", "the nearest of 10 is pooled/f1"),
        ("F1", "the nearest of 10 is pooled/f1"),
        ("Recall", "the nearest of 10 is Overall/recall"),
        ("overal/recal", "the nearest of 10 is Overall/recall"),
        ("acuracy", "the nearest of 10 are accuracy, pooled/accuracy, val/accuracy"),
        ("worst/acuracy", "the nearest of 10 are accuracy, pooled/accuracy, val/accuracy"),
        ("central/auc", "the nearest of 10 is pooled/auc"),
        ("precision", "the nearest of 10 are pooled/precision, pooled/average_precision"),
        ("xyz", "there are Overall/recall, accuracy, loss, pooled/accuracy, pooled/auc and 5 more"),
        ("", "there are Overall/recall, accuracy, loss, pooled/accuracy, pooled/auc and 5 more"),
    ],
)
def test_of_many_metrics_the_nearest_are_named_and_it_is_said_that_there_are_others(wanted: str, said: str) -> None:
    assert there_are(wanted, MANY) == said


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "there are none"),
        (["loss"], "there is only loss"),
        (["loss", "pooled/auc", "pooled/auc_bound", "loss (weighted)"], "there are loss, pooled/auc"),
        ([f"count/{n}" for n in range(7)], "there are count/0, count/1, count/2, count/3, count/4 and 2 more"),
        (["\x1b[2Ja"], "there is only \\x1b[2Ja"),
    ],
)
def test_a_list_without_more_is_whole(names: list[str], said: str) -> None:
    assert there_are("accuracy", names) == said


def test_a_weighted_mean_is_named_to_who_asks_for_one() -> None:
    assert there_are("acuracy (weighted)", MANY).startswith("the nearest of 11 are accuracy (weighted)")
