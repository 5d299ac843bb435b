"""What each site contributes: by round, and over all rounds, as a table for people and as plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 1
FILE = "contributions.json"
"""The newest result in a result folder."""
_NONE = "-"
_MOST_ON_PAGE, _LONGEST_REASON = 200, 300


@dataclass(frozen=True)
class Part:
    """One site's part in one round."""

    num_examples: int
    cosine: float | None = None
    """Cosine of the site's change of the model to the mean change of all; None where there is none."""
    norm: float | None = None
    """L2 norm of the site's change."""
    norm_ratio: float | None = None
    """That norm divided by the norm of the mean change."""
    without: float | None = None
    """The metric of the round's model, aggregated without this site; None where it was not measured."""
    contribution: float | None = None
    """How much better the model is with the site; negative where it is better without it."""
    why_not: str = ""
    """Why the model without this site was not measured; '' where it was, or was not asked for."""


@dataclass(frozen=True)
class OfRound:
    """One round's result."""

    round: int
    model: str
    """SHA-256 of its global model."""
    sites: Mapping[str, Part]
    value: float | None = None
    """The metric of its global model."""
    why_not: str = ""
    """Why no site was left out in this round; '' where they were, or where nothing asked for it."""
    not_compared: str = ""
    """Why the sites have no cosine in this round; '' where they have."""


@dataclass(frozen=True)
class Spread:
    """A number of a site over rounds: the mean, the lowest and the highest."""

    mean: float
    lowest: float
    highest: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Return that of the values that are not None; None where all are."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        lowest, highest = min(known), max(known)
        mean = math.fsum(value / len(known) for value in known)
        return cls(min(max(mean, lowest), highest), lowest, highest, len(known))

    def shown(self, *, signed: bool = False) -> str:
        """Return the mean, and in brackets the lowest and the highest where there are several rounds."""
        sign = "+" if signed else ""
        text = f"{self.mean:{sign}.4g}"
        return text if self.rounds == 1 else f"{text} ({self.lowest:{sign}.4g} … {self.highest:{sign}.4g})"


@dataclass(frozen=True)
class OfSite:
    """One site's result over all rounds in which it took part."""

    client: str
    rounds: int
    num_examples: int
    """In the newest of these rounds."""
    cosine: Spread | None
    norm_ratio: Spread | None
    without: Spread | None
    contribution: Spread | None
    why_not: str
    """Why it was not left out in the newest of these rounds; '' where it was, or was not asked for."""


@dataclass(frozen=True)
class Contributions:
    """The result of `flavor contributions`."""

    run: str
    run_id: str
    at_ms: int
    """When it was computed, in milliseconds since 1970 by this machine's clock."""
    metric: str
    """`NAME:max` or `NAME:min`; '' where no site was left out."""
    rounds: Sequence[OfRound]
    """Oldest first."""
    lacking: Mapping[int, str] = field(default_factory=dict)
    """Round that was asked for to why it was not looked at."""

    @property
    def sites(self) -> list[OfSite]:
        """The sites, the worst first: by contribution, and without one by cosine."""
        names = dict.fromkeys(client for each in self.rounds for client in each.sites)
        return sorted((self._of(client) for client in names), key=_worst_first)

    @property
    def is_judged(self) -> bool:
        """Whether a model without a site was measured."""
        return any(part.contribution is not None for each in self.rounds for part in each.sites.values())

    def _of(self, client: str) -> OfSite:
        found = [(each, each.sites[client]) for each in self.rounds if client in each.sites]
        parts = [part for _, part in found]
        newest, last = found[-1]
        return OfSite(
            client=client,
            rounds=len(parts),
            num_examples=last.num_examples,
            cosine=Spread.of(part.cosine for part in parts),
            norm_ratio=Spread.of(part.norm_ratio for part in parts),
            without=Spread.of(part.without for part in parts),
            contribution=Spread.of(part.contribution for part in parts),
            why_not=last.why_not or newest.why_not,
        )

    def described(self) -> dict[str, Any]:
        """Return it as plain values, which JSON can hold."""
        return {
            "version": VERSION,
            "run": self.run,
            "run_id": self.run_id,
            "at_ms": self.at_ms,
            "metric": self.metric or None,
            "sites": [asdict(site) for site in self.sites],
            "rounds": [asdict(each) for each in self.rounds],
            "lacking": {str(round_): why for round_, why in self.lacking.items()},
        }

    def for_page(self) -> str:
        """Return the sites' numbers over all rounds as JSON, for the page. Of very many sites the first are in it."""
        every = [asdict(site) for site in self.sites]
        result = {
            "at_ms": self.at_ms,
            "metric": self.metric or None,
            "rounds": [each.round for each in self.rounds],
            "lacking": {str(round_): why for round_, why in list(self.lacking.items())[-_MOST_ON_PAGE:]},
            "left_out": max(0, len(every) - _MOST_ON_PAGE),
            "sites": [{**site, "why_not": site["why_not"][:_LONGEST_REASON]} for site in every[:_MOST_ON_PAGE]],
        }
        return json.dumps(result, separators=(",", ":"), allow_nan=False)


def _worst_first(site: OfSite) -> tuple[float, float, str]:
    contribution = site.contribution.mean if site.contribution else math.inf
    return contribution, site.cosine.mean if site.cosine else math.inf, site.client


def table_of(found: Contributions) -> tuple[list[str], list[list[str]]]:
    """Return the heads of a table and its rows, a row for each site."""
    heads = ["SITE", "ROUNDS", "EXAMPLES", "COSINE", "NORM"]
    if found.metric:
        heads += ["WITHOUT IT", "CONTRIBUTION"]
    rows = []
    for site in found.sites:
        row = [site.client, str(site.rounds), str(site.num_examples), _cell(site.cosine), _cell(site.norm_ratio)]
        if found.metric:
            row += [_cell(site.without), _cell(site.contribution, signed=True)]
        rows.append(row)
    return heads, rows


def _cell(spread: Spread | None, *, signed: bool = False) -> str:
    return _NONE if spread is None else spread.shown(signed=signed)


def lines_of(found: Contributions) -> list[str]:
    """Return what stands above the table: which rounds were looked at, and which not, with the reason."""
    numbers = ", ".join(str(each.round) for each in found.rounds)
    lines = [f"the updates of round{'s' if len(found.rounds) > 1 else ''} {numbers} of run {found.run}"]
    lines += [f"round {round_} is not among them: {why}" for round_, why in found.lacking.items()]
    for each in found.rounds:
        if each.value is not None:
            metric = found.metric.rpartition(":")[0]
            lines.append(
                f"round {each.round}: aggregated again, all updates give the recorded model (SHA-256 "
                f"{each.model[:12]}…), whose {metric} is {each.value:.6g}"
            )
        if each.not_compared:
            lines.append(f"round {each.round}: no cosine: {each.not_compared}")
        if each.why_not:
            lines.append(f"round {each.round}: no site was left out: {each.why_not}")
        reasons: dict[str, list[str]] = {}
        for client, part in each.sites.items():
            if part.why_not:
                reasons.setdefault(part.why_not, []).append(client)
        lines += [f"round {each.round}: without {', '.join(clients)}: {why}" for why, clients in reasons.items()]
    return lines


def how_to_read(found: Contributions) -> str:
    """Return one sentence that says how to read the table."""
    several = len(found.rounds) > 1
    if not found.metric:
        return (
            "How to read: a cosine near 1 means that a site changes the model as all sites together do, and one below "
            "0 that it works against them; a site with other data differs honestly, and -e shows whether that hurts."
        )
    noise = (
        "one that is small against its spread over the rounds (in brackets) is noise"
        if several
        else "of a single round, a small one is noise"
    )
    return (
        f"How to read: a contribution says how much better {found.metric.rpartition(':')[0]} is with the site than "
        f"without it, so below 0 the site hurts; {noise}."
    )
