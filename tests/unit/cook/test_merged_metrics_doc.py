"""docs/merged-metrics.md: its example runs, prints what the page says, and is right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lazy import Lazy

reference = Lazy("sklearn.metrics")
PAGE = (Path(__file__).parents[3] / "docs" / "merged-metrics.md").read_text(encoding="utf-8")


def test_the_worked_example_prints_what_the_page_says_and_what_scikit_learn_computes(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (said,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", said)
    names: dict[str, Any] = {}
    exec(code.split("paths = []")[0], names)
    y, scores = (np.concatenate([site[at] for site in names["sites"].values()]) for at in (0, 1))
    shown = dict(line.split(": ", 1) for line in said.splitlines())
    assert float(shown["pooled/auc"]) == pytest.approx(reference.roc_auc_score(y, scores), abs=5e-5)
    assert float(shown["pooled/recall"]) == reference.recall_score(y, scores >= 0.5)
    tn, fp, _, _ = reference.confusion_matrix(y, scores >= 0.5).ravel()
    assert float(shown["pooled/specificity"]) == tn / (tn + fp)
    for y_of, scores_of, auc in names["sites"].values():
        if auc is not None:
            assert reference.roc_auc_score(y_of, scores_of) == auc


def test_the_page_links_to_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[3] / "docs" / target).exists(), target
