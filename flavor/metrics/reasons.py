"""Put the reason of a refused update into one of few classes, which a metric can have as a label.

A reason is a sentence for people, and may quote names that a site has chosen. The class only counts: no decision is
taken on it.
"""

from __future__ import annotations

import re
from enum import StrEnum


class ReasonClass(StrEnum):
    """Why an update was refused."""

    LATE = "late"
    """Its round no longer took updates."""
    SITE = "site"
    """The site's own edge refused what its training script had saved."""
    ADMISSION = "admission"
    """The run does not admit the site."""
    MODEL = "model"
    """The global model is at fault, and no site."""
    INSPECTION = "inspection"
    """Its inspection failed again and again."""
    SIGNATURE = "signature"
    """It is not signed, or not with the key that the run knows."""
    OBJECT = "object"
    """Its object is missing, withheld, changed, or under another path."""
    VALUES = "values"
    """It has NaN or infinite values, or makes the global model infinite."""
    BASE = "base"
    """It is a difference to another global model than that of the round."""
    LIMIT = "limit"
    """It is larger, or changes the model more, than the run allows."""
    INFO = "info"
    """Its info.json cannot be used."""
    STRUCTURE = "structure"
    """Its tensors' names, shapes or dtypes are not those of the global model."""
    CHECKPOINT = "checkpoint"
    """Its file is no checkpoint that can be read, or has another format than the run's."""
    OTHER = "other"


_PATTERNS: tuple[tuple[ReasonClass, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, flags=re.DOTALL))
    for kind, pattern in (
        (ReasonClass.LATE, r"late: round "),
        (ReasonClass.SITE, r'"|its edge refused it'),
        (ReasonClass.ADMISSION, r"the run does not admit "),
        (ReasonClass.MODEL, r"tensor .* has NaN, and the global model of this round is not finite|the global model "),
        (ReasonClass.INSPECTION, r"its inspection failed |unusable update: "),
        (ReasonClass.SIGNATURE, r"the \w+ is (not )?signed|the signature is not|.*\b(public key|ed25519)\b"),
        (ReasonClass.BASE, r"the update is a difference to "),
        (ReasonClass.LIMIT, r".* more than the \S+ that (this run allows|it may have)"),
        (ReasonClass.LIMIT, r"object .* has a header of |(object .*: )?larger than |object .* and no more than "),
        (
            ReasonClass.OBJECT,
            r"object (path )?\S+ (is (not in the store|no file any more|not what was|named without|refused)|has |was "
            r"changed|does not belong|is not in)|object .*(: its owner|: the store|: the bytes)|.*the bytes are not "
            r"those that were recorded|\S+ is a link: ",
        ),
        (ReasonClass.INFO, r"datasetSize |importance |\S*info\.json\b|metadata\.|.* SaveInfoJson"),
        (ReasonClass.VALUES, r".* (NaN|infinite values|is not finite in |have no room in )"),
        (
            ReasonClass.STRUCTURE,
            r"tensor .* (is missing; |is not in |is not shared |has shape .*; |is \S+; \S.* has )|the names differ by |"
            r"the tensors' names, shapes or dtypes|the checkpoint has no tensors",
        ),
        (
            ReasonClass.CHECKPOINT,
            r"checkpoint format |the update is compressed to |--strip-prefix |the run's checkpoints are in the format|"
            r".*(save|write|fetch|cast|rename|compare|check|use|give|let|keep|leave|follow|call|look|cannot be "
            r"(read|used)|damaged|at most|refused|not read|not Unicode|SHA-256 in hex|is an integer from|there are|"
            r"and no checkpoint|claim|cannot be averaged|a compressed update, |is in two shards|lies beside the index|"
            r"an index of over |has a name of )",
        ),
    )
)


_LONGEST = 400
"""Characters of a reason that are looked at: a site can make it long."""


def class_of(reason: str) -> ReasonClass:
    """Return the class of the reason of a refusal; `OTHER` for one that this release does not know."""
    text = reason[:_LONGEST]
    return next((kind for kind, pattern in _PATTERNS if pattern.match(text)), ReasonClass.OTHER)
