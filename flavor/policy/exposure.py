"""Which sites' updates other sites may be given, so that no update becomes known that its site keeps. Pure functions.

The global model of a round is a mean, which all sites read. Who knows it and the updates of all sites but one can
compute the one that is missing. With all but two, each of the two can compute the update of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from flavor.policy.advice import some

LEAST_KEPT = 3
"""So many sites of a round that keep their updates to themselves hide each other's."""
NOT_ALLOWED = "it does not allow it (flavor-fl --allow-cross)"


def keeping(contributors: Iterable[str], allowing: Collection[str]) -> list[str]:
    """Return the contributors of a round that do not allow that others judge their updates, in their order."""
    return [name for name in contributors if name not in allowing]


def why_exposed(contributors: Iterable[str], allowing: Collection[str]) -> str:
    """Return why no update of a round may be given to other sites; '' where those of `allowing` may be.

    `contributors` are those whose updates count in the mean: one with the weight 0 hides no other one. A model that
    lacks one site's update counts as that update: beside the global model, it says the same.
    """
    kept = keeping(contributors, allowing)
    if not kept or len(kept) >= LEAST_KEPT:
        return ""
    if len(kept) == 1:
        how = "does not allow it (flavor-fl --allow-cross), and its update could be computed from those of all others"
    else:
        how = (
            "do not allow it (flavor-fl --allow-cross), and each of them could compute the other's update from those "
            "of all others"
        )
    return f"{some(kept)} {how}"
