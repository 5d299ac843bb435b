"""What a site's edge warns its user of, and may tell the run's operator: a few classes in words of this project.

Nothing of the site stands in them, such as the name of a tensor that is not shared: the site's own log has that.
"""

from __future__ import annotations

from enum import StrEnum

_MOST = 16


class Remark(StrEnum):
    """One thing that may not be meant. An earlier release knows no such word, and does not read them."""

    FORGOTTEN = "statistics-shared"
    """Some normalisation stays at the site, and other statistics are shared."""
    TRAINED = "own-trained"
    """The script trains what stays at the site, in a run that names what is shared."""
    TIED = "tied"
    """A tensor that stays at the site has the numbers of a shared one."""


_SENTENCES = {
    Remark.FORGOTTEN: "the run keeps the normalisation of some layers at the site, and shares the statistics of others",
    Remark.TRAINED: (
        "its script trains tensors that stay at the site: a whole model of the operator's has the initial model's in "
        "their place"
    ),
    Remark.TIED: (
        "after the training, a tensor that stays at the site is equal to one that is shared: if both are one tensor of "
        "the model (tied weights), what the sites average of it is lost at each load"
    ),
}


def sentence(remark: Remark) -> str:
    """Return the remark in words, with where to read on."""
    return f"{_SENTENCES[remark]}; its log names them, and docs/parts.md says what to do"


def to_text(remarks: set[Remark]) -> str:
    """Write remarks as they stand in a client's hash."""
    return " ".join(sorted(remarks))


def from_text(text: str) -> tuple[Remark, ...]:
    """Read what a client has written, also if it is invalid: words that this release does not know are left out."""
    words = dict.fromkeys(text.split(" ", _MOST)[:_MOST])
    return tuple(Remark(word) for word in words if word in tuple(Remark))
