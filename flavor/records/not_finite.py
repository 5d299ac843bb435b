"""Metrics that a site has measured as infinite or NaN: they have no value that can be merged, and are not "missing".

The information of a site has None for such a metric, which JSON can hold. `metadata.notFinite` says beside it which
value it was, as a text of JSON: {"loss": "Infinity"}. A text is what each release takes in `metadata`. A metric of
None without an entry there could not be computed: its script has reported None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

FIELD = "notFinite"
NULL = "null"
"""The word of a metric that its script could not compute."""
WORDS = {"Infinity": "inf", "-Infinity": "-inf", "NaN": "NaN"}
"""The values as JSON's readers name them, and as people read them."""


def word_of(value: Any) -> str | None:
    """Return the name of a number that is infinite or NaN; None for any other value."""
    if not isinstance(value, float) or math.isfinite(value):
        return None
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def text_of(values: Mapping[str, str]) -> str:
    """Return what `metadata.notFinite` says of these metrics."""
    return json.dumps(dict(values), separators=(",", ":"))


def not_finite_of(info: Mapping[str, Any]) -> dict[str, str]:
    """Return which metrics of one site's information are infinite or NaN, with the name of the value.

    What a site has written there may be anything: an entry of a metric that has a value, or of an unknown word, is left
    out.
    """
    text, metrics = info["metadata"].get(FIELD), info["metrics"]
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return {name: word for name, word in read_words(found).items() if word != NULL and metrics.get(name, 0) is None}


def without_value(info: Mapping[str, Any]) -> dict[str, str]:
    """Return which metrics of one site's information have no finite value, with the name of the value, or `NULL`.

    A metric that the site does not report is not among them.
    """
    words = not_finite_of(info)
    return {name: words.get(name, NULL) for name, value in info["metrics"].items() if value is None}


def shown(word: str) -> str:
    """Return how people read the name of a value: `inf`, `-inf`, `NaN` or `null`."""
    return WORDS.get(word, NULL)


def read_words(given: Any) -> dict[str, str]:
    """Return what `without_value` has returned, read from JSON; what is none of it is left out."""
    if not isinstance(given, Mapping):
        return {}
    known = (*WORDS, NULL)
    return {str(name): word for name, word in given.items() if isinstance(word, str) and word in known}
