"""Which sites' updates other sites may be given, so that no update becomes known that its site keeps. Pure functions.

The global model of a round is a mean, which all sites read. Who knows it and the updates of all sites but one can
compute the one that is missing. With all but two, each of the two can compute the update of the other. A rule that is
no weighted mean, as Krum or the median, takes single updates, or parts of them, into the model: none hides another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from aggregators.registry import averages
from flavor.errors import InvalidSetting
from flavor.policy.advice import some
from flavor.rule_settings import COMMAND

LEAST_KEPT = 3
"""So many sites of a round that keep their updates to themselves hide each other's."""
NOT_ALLOWED = "other sites judge a site's update only if it allows them to (flavor-fl --allow-cross)"
"""Why a site's update is kept from others. It may stand behind the names of several sites."""


@dataclass(frozen=True)
class Mixed:
    """What a round's record says of how its updates became one model."""

    rule: str
    """The aggregation rule by name; `COMMAND` for an operator's own aggregator, '' for a rule that is not known."""
    contributors: Collection[str]
    counting: Collection[str]
    """The contributors whose updates count in a weighted mean: one with the weight 0 hides no other one."""
    disclosed: Collection[str]
    """The contributors whose updates other sites were given before, or a model without them."""


def keeping(contributors: Iterable[str], allowing: Collection[str]) -> list[str]:
    """Return the contributors of a round that do not allow that others judge their updates, in their order."""
    return [name for name in contributors if name not in allowing]


def why_exposed(mixed: Mixed, allowing: Collection[str]) -> str:
    """Return why no update of a round may be given to other sites; '' where those of `allowing` may be.

    A model that lacks one site's update counts as that update: beside the global model, it says the same. An update
    that was disclosed before hides no other one, also where its site no longer allows it.
    """
    known = {*allowing, *mixed.disclosed}
    kept = keeping(mixed.contributors, known)
    if kept and not _is_mean(mixed.rule):
        return f"{_are_kept(kept)}, and {_named(mixed.rule)} may show parts of a single update"
    kept = keeping(mixed.counting, known)
    if not kept or len(kept) >= LEAST_KEPT:
        return ""
    how = "its update could be computed" if len(kept) == 1 else "each of them could compute the other's update"
    before = sorted(set(mixed.disclosed) & set(mixed.counting) - set(allowing))
    given = f"; that of {some(before)} was given to other sites before" if before else ""
    return f"{_are_kept(kept)}, and {how} from those of all others{given}"


def why_kept(client: str, mixed: Mixed, allowing: Collection[str]) -> str:
    """Return why the update of `client` may not be given to other sites now; '' where it may be.

    A site can take its word back at any time. So `allowing`, and what was disclosed, are read anew before each update
    is given away.
    """
    return why_exposed(mixed, allowing) if client in allowing else NOT_ALLOWED


def _are_kept(kept: Collection[str]) -> str:
    return f"{some(list(kept))} {'runs' if len(kept) == 1 else 'run'} without --allow-cross"


def _is_mean(rule: str) -> bool:
    if rule in ("", COMMAND):
        return False
    try:
        return averages(rule)
    except InvalidSetting:  # a rule of a package that is not installed here, or one of `aumai_fedtrain`
        return False


def _named(rule: str) -> str:
    return {COMMAND: "an aggregator of your own", "": "a rule that is not recorded"}.get(rule, rule)
