"""Checks whether the numbers that arrived are those that were sent."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from aumai_fedtrain.models import LocalUpdate
from aumai_fedtrain.vectors import plain_dict


class HashVerifier:
    """Computes the SHA-256 of gradients; any implementation that writes the same JSON gets the same digest."""

    @staticmethod
    def compute_hash(gradients: Mapping[str, Any]) -> str:
        """SHA-256, in hex, of `json.dumps(gradients, sort_keys=True, separators=(",", ":"))` in UTF-8.

        Arrays are written as lists, and each float so that it reads back as the same bits. Pass an update's own
        `gradients`: there integers are floats already (`1` and `1.0` have different hashes).
        """
        text = json.dumps(plain_dict(gradients), sort_keys=True, separators=(",", ":"), default=_number)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def verify(cls, update: LocalUpdate, expected_hash: str) -> bool:
        """Whether the hash of the update's gradients is `expected_hash` (hex, either case)."""
        found = cls.compute_hash(update.gradients)
        return hmac.compare_digest(found.encode(), expected_hash.strip().lower().encode())


def _number(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"gradients hold numbers, not {type(value).__name__}")
