"""Names that sites choose: what looks like another name is told from it, and no cell is without bound."""

from __future__ import annotations

import pytest

from flavor.cli.status_lines import columns_of, summary_of
from flavor.printable import shown_name
from flavor.records.reported import Reported
from flavor.view.progress import words_of
from tests.unit.cli.test_status_frame import NOW, client, document, found_of

LIKE = [
    "accuracy ",
    " accuracy",
    "val  loss",
    "\u0430ccuracy",
    "\u0430\u0441\u0441",
    "\uff41\uff43\uff43",
    "\u00e9\u0441",
]


@pytest.mark.parametrize("name", LIKE)
def test_a_name_that_looks_like_another_is_quoted_and_in_ascii(name: str) -> None:
    assert shown_name(name) == ascii(name)


@pytest.mark.parametrize(
    "name",
    [
        "val_auc",
        "train/loss",
        "F1 (macro)",
        "Präzision",
        "\u0442\u043e\u0447\u043d\u043e\u0441\u0442\u044c",
        "\u03b2_loss",
        "准确率",
    ],
)
def test_other_names_stay_as_they_are(name: str) -> None:
    assert shown_name(name) == name


def test_the_status_tells_them_apart() -> None:
    last = {"round": 11, "metrics": {"accuracy": 0.5, "accuracy ": 0.9, "\u0430ccuracy": 1.0}, "contributors": 1}
    found = found_of(document({"a": client()}, last_round=last, metric="accuracy", best=None), NOW)
    (line,) = [line.text for line in summary_of(found) if line.text.startswith("round 11")]
    assert line == "round 11: accuracy 0.5, 'accuracy ' 0.9, '\\u0430ccuracy' 1"
    assert "'\\u0430ccuracy'" in [column.head for column in columns_of({**found, "metric": "\u0430ccuracy"})]


def test_a_report_is_short_in_a_table() -> None:
    names = {f"{number}{'x' * 63}": 0.123456 for number in range(20)}
    long = words_of(Reported(done=1, total=2, message="m" * 300, metrics=names))
    assert len(long) <= 160
    assert long.startswith('"0xxxxxxxxxxx … xxxxxxxxxxxx" 0.1235, "1xxx')
    assert long.endswith(f'm … {"m" * 20}"')
    short = words_of(Reported(done=1, total=2, message="epoch 3", metrics={"loss": 0.31, "val auc": 0.9}))
    assert short == 'loss 0.31, "val auc" 0.9, "epoch 3"'
