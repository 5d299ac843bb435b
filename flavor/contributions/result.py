"""What each site contributes: by round, and over all rounds, as a table for people and as plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flavor.policy.selection import Select

VERSION = 1
FILE = "contributions.json"
"""The newest result in a result folder."""
_NOISE = 1e-12
"""Numbers that differ by less than this part of them differ by rounding alone."""
_NONE = "-"
_MOST_ON_PAGE, _MOST_JUDGES, _LONGEST_REASON = 200, 50, 300


def mean(values: Iterable[float]) -> float | None:
    """Return the mean; None for no values. What is left of values that cancel each other, as -5.6e-17, is 0."""
    known = list(values)
    if not known:
        return None
    found = math.fsum(value / len(known) for value in known)
    return 0.0 if abs(found) < _NOISE * max(map(abs, known)) else found


@dataclass(frozen=True)
class Compared:
    """What one site measures of the model of a round, and of the one without a site."""

    with_it: float
    without: float
    contribution: float


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
    with_it: float | None = None
    """The metric of the round's model, by those who have judged both models; None where it was not measured."""
    without: float | None = None
    """The metric of the round's model, aggregated without this site; None where it was not measured."""
    contribution: float | None = None
    """How much better the model is with the site; negative where it is better without it."""
    why_not: str = ""
    """Why the model without this site was not measured; '' where it was, or was not asked for."""
    judges: Mapping[str, Compared] = field(default_factory=dict)
    """What each site has measured that judged both models, where sites judge. The three means above are over these
    sites, but the site itself, whose own data favour its own update."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Site that should have judged both models, and has not, to why."""

    def compared(self, with_it: float, without: float, select: Select) -> Part:
        """Return it with what one judge has measured."""
        found = _compared(with_it, without, select)
        return replace(self, with_it=found.with_it, without=found.without, contribution=found.contribution)

    def by_sites(
        self, client: str, both: Mapping[str, tuple[float, float]], lacking: Mapping[str, str], select: Select
    ) -> Part:
        """Return the part of `client` with what sites have measured: with it and without it."""
        judges = {site: _compared(*values, select) for site, values in sorted(both.items())}
        others = [each for site, each in judges.items() if site != client]
        return replace(
            self,
            with_it=mean(each.with_it for each in others),
            without=mean(each.without for each in others),
            contribution=mean(each.contribution for each in others),
            why_not="" if others else "no other site has judged both models",
            judges=judges,
            lacking=dict(sorted(lacking.items())),
        )


def _compared(with_it: float, without: float, select: Select) -> Compared:
    sign = 1 if select.is_larger else -1
    is_same = math.isclose(with_it, without, rel_tol=_NOISE)  # sums in another order differ in their last digits
    return Compared(with_it, without, 0.0 if is_same else sign * (with_it - without))


@dataclass(frozen=True)
class OfRound:
    """One round's result."""

    round: int
    model: str
    """SHA-256 of its global model."""
    sites: Mapping[str, Part]
    value: float | None = None
    """The metric of its global model: the mean over the sites, where sites judge."""
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
        return cls(min(max(mean(known) or 0.0, lowest), highest), lowest, highest, len(known))

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
    with_it: Spread | None
    without: Spread | None
    contribution: Spread | None
    judges: Mapping[str, Spread]
    """Its contribution as each site measures it, itself as well, where sites judge."""
    why_not: str
    """Why it was not left out in the newest of these rounds; '' where it was, or was not asked for."""

    @property
    def at_home(self) -> Spread | None:
        """Its contribution by its own data, which favour its own update."""
        return self.judges.get(self.client)

    @property
    def others(self) -> list[str]:
        """The other sites that have judged the model with it and the one without it."""
        return [site for site in self.judges if site != self.client]


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
    by_sites: bool = False
    """Whether the sites of the run judge, and no command of the operator's."""

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
            with_it=Spread.of(part.with_it for part in parts),
            without=Spread.of(part.without for part in parts),
            contribution=Spread.of(part.contribution for part in parts),
            judges=_of_judges(parts),
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
            "by_sites": self.by_sites,
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
            "by_sites": self.by_sites,
            "rounds": [each.round for each in self.rounds],
            "lacking": {str(round_): why for round_, why in list(self.lacking.items())[-_MOST_ON_PAGE:]},
            "left_out": max(0, len(every) - _MOST_ON_PAGE),
            "sites": [_on_page(site) for site in every[:_MOST_ON_PAGE]],
        }
        return json.dumps(result, separators=(",", ":"), allow_nan=False)


def _of_judges(parts: Sequence[Part]) -> dict[str, Spread]:
    names = sorted({name for part in parts for name in part.judges})
    found = {
        name: Spread.of(part.judges[name].contribution if name in part.judges else None for part in parts)
        for name in names
    }
    return {name: spread for name, spread in found.items() if spread is not None}


def _on_page(site: Mapping[str, Any]) -> dict[str, Any]:
    """Return a site without more words and judges than a page shows; the site itself stays among the judges."""
    own = {name: of for name, of in site["judges"].items() if name == site["client"]}
    judges = own | dict(list(site["judges"].items())[:_MOST_JUDGES])
    return {**site, "judges": judges, "why_not": site["why_not"][:_LONGEST_REASON]}


def _worst_first(site: OfSite) -> tuple[float, float, str]:
    contribution = site.contribution.mean if site.contribution else math.inf
    return contribution, site.cosine.mean if site.cosine else math.inf, site.client


def table_of(found: Contributions) -> tuple[list[str], list[list[str]]]:
    """Return the heads of a table and its rows, a row for each site."""
    heads = ["SITE", "ROUNDS", "EXAMPLES", "COSINE", "NORM"]
    if found.metric:
        heads += ["WITH IT"] if found.by_sites else []
        heads += ["WITHOUT IT", "CONTRIBUTION"]
        heads += ["AT HOME", "JUDGED BY"] if found.by_sites else []
    rows = []
    for site in found.sites:
        row = [site.client, str(site.rounds), str(site.num_examples), _cell(site.cosine), _cell(site.norm_ratio)]
        if found.metric:
            row += [_cell(site.with_it)] if found.by_sites else []
            row += [_cell(site.without), _cell(site.contribution, signed=True)]
            row += [_cell(site.at_home, signed=True), ", ".join(site.others) or _NONE] if found.by_sites else []
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
                f"{each.model[:12]}…), whose {metric} is {each.value:.6g}{' by the sites' if found.by_sites else ''}"
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
        missing: dict[tuple[str, str], list[str]] = {}
        for client, part in each.sites.items():
            for judge, why in part.lacking.items():
                missing.setdefault((judge, why), []).append(client)
        lines += [
            f"round {each.round}: without {', '.join(clients)}: not judged by {judge}: {why}"
            for (judge, why), clients in missing.items()
        ]
    return lines


def how_to_read(found: Contributions) -> str:
    """Return one sentence that says how to read the table."""
    several = len(found.rounds) > 1
    if not found.metric:
        return (
            "How to read: a cosine near 1 means that a site changes the model as all sites together do, and one below "
            "0 that it works against them; a site with other data differs honestly, and -e or --by-sites shows whether "
            "that hurts."
        )
    noise = (
        "one that is small against its spread over the rounds (in brackets) is noise"
        if several
        else "of a single round, a small one is noise"
    )
    metric = found.metric.rpartition(":")[0]
    where = " at the sites that JUDGED BY names" if found.by_sites else ""
    home = "; AT HOME is the same by its own data, which favour its own update" if found.by_sites else ""
    return (
        f"How to read: a contribution says how much better {metric} is with the site than without it{where}, so below "
        f"0 the site hurts{home}; {noise}."
    )
