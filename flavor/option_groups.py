"""The titles under which `--help` lists options."""

from __future__ import annotations

from enum import StrEnum


class Group(StrEnum):
    """Groups of options, in the order of `--help`."""

    SCRIPT = "Your script"
    RUN = "Run, sites and data"
    RESULTS = "Results"
    MODEL = "The model: rule, weights, tensors"
    CLOSING = "When a round closes"
    EVALUATION = "Evaluation of models"
    LIMITS = "Limits, signatures, privacy"
    REDIS = "Redis"
    STORE = "Object store"
    AGGREGATORS = "Aggregators"
    OTHER = "Other"
