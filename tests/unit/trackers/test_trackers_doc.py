"""What docs/trackers.md has people type."""

from __future__ import annotations

import re
from pathlib import Path

from flavor.checkpoints.format import Format

DOC = Path(__file__).parents[3] / "docs" / "trackers.md"


def test_the_model_from_mlflow_has_the_name_under_which_a_torch_script_saves_it() -> None:
    (name,) = re.findall(r"torch\.load\(f\"\{folder\}/([^\"]+)\"", DOC.read_text(encoding="utf-8"))
    assert name == f"global_model{Format.TORCH.extension}"
