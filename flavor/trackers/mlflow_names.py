"""Names of metrics as MLflow takes them.

MLflow takes letters, digits, `_`, `-`, `.`, `:`, `/` and spaces, in at most 250 characters, and no name that a path
would be spelled differently. A metric always has the same name there, independent of the other metrics of its run, and
no two metrics share one: a changed name ends with eight digits of the SHA-256 of the metric's name.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

from flavor.records.merging import WEIGHTED
from flavor.trackers.tracker import JUDGED

OWN, MEANS = "flavor/", "weighted/"
"""What the names of flavor's own numbers, and of means weighted by examples, begin with. See also `JUDGED`."""
_MOST = 250


def mlflow_name(metric: str) -> str:
    """Return the name under which MLflow has this metric."""
    return _named(metric, _MOST)


def judged_name(metric: str) -> str:
    """Return the name under which MLflow has this metric of evaluations: `evaluation/weighted/accuracy`."""
    return JUDGED + _named(metric, _MOST - len(JUDGED))


def _named(metric: str, most: int) -> str:
    if metric.endswith(WEIGHTED):
        inner = metric.removesuffix(WEIGHTED)
        return MEANS + _usable(inner, most - len(MEANS))
    return _usable(metric, most)


def _usable(name: str, most: int) -> str:
    changed = re.sub(r"[^\w\-./ :]", "_", name)
    if posixpath.normpath(changed) != changed or changed.startswith(("/", "..")) or changed in ("", "."):
        changed = changed.replace("/", "_").lstrip(".") or "_"
    if changed == name and len(name) <= most and not name.startswith((OWN, MEANS, JUDGED)):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{changed.replace('/', '_')[: most - 9]}-{digest}"
