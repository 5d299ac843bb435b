"""An evaluation with a result, as people read it: what each site has measured, what that merges to, who is missing.

Its metrics are those of the global model of its round. Those that training scripts report in a round are not: see
`flavor.results.rounds`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from flavor.counted import counted
from flavor.errors import InvalidRecord
from flavor.printable import printable
from flavor.records.counts import CENTRAL_PREFIX, is_count
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationKind, EvaluationSummary, EvaluationView
from flavor.records.info import Info
from flavor.records.merging import sites_of, why_not_own
from flavor.records.not_finite import without_value
from flavor.records.reporters import reporters_of
from flavor.records.sound_counts import left_out_of
from flavor.records.subject import OfModel, Subject
from flavor.results.rounds import RoundResult, SiteResult, scalars
from flavor.results.site_measures import SiteMeasures
from flavor.results.site_results import SiteResults

FILE_VERSION = 1
"""The version of the files of evaluations in a result folder."""
OWN_DATA = "on the operator's own data"
TRAINS_ON = "it was not asked, because it trains on"
_WRITTEN_ELSEWHERE = ("sites", "spread", "merged_of", "central", "of", "left_out", "unread")
_READ_ELSEWHERE = ("sites", "merged_of", "central", "of")


@dataclass(frozen=True)
class Evaluated(OfModel):
    """One evaluation with a result."""

    run: str
    round: int
    """The round that has made the model."""
    number: int
    """`AUTOMATIC` for the evaluation that the coordinator has opened."""
    model: str
    """SHA-256 of the model."""
    opened_ms: int
    closed_ms: int
    expected: tuple[str, ...]
    """The sites that were to judge the model."""
    sites: Mapping[str, SiteMeasures]
    """The sites whose results count."""
    missing: Mapping[str, str]
    """Expected sites whose results do not count, and sites that were not asked because they trained on: why."""
    skipped: tuple[str, ...] = ()
    """Sites that were there and have no evaluator. Signed records do not name them."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The merged metrics, by their names in the merged information."""
    null: tuple[str, ...] = ()
    """The merged metrics that are `null` (0/0). Empty where the merged information was not read."""
    few: Mapping[str, int] = field(default_factory=dict)
    """Number of sites that report a metric, for those that not all report, by the name that they use."""
    reporters: Mapping[str, str] = field(default_factory=dict)
    """Who reports a metric, as digests; see `flavor.records.reporters`. Empty where that is worked out of `sites`."""
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest value, by metric, where the values of `sites` are not known."""
    merged_of: int = 0
    """Number of sites whose results were merged, where these are not known."""
    central: SiteMeasures | None = None
    """What an aggregator has measured of the model on the operator's own data; None where that is nothing."""
    of: Subject | None = None
    """Which model it is; None for that of the round."""
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Why counts of single sites are not in what is merged, by site and name; the first ones."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Why what a site has measured cannot be read, by site. What is merged has its part; its values are not known."""

    @property
    def is_central(self) -> bool:
        """Whether an aggregator has judged the model on the operator's own data, and no site has."""
        return self.number == CENTRAL

    @property
    def examples(self) -> int:
        """Number of examples of all sites whose results count, or of the operator's own data."""
        if self.is_central:
            return self.central.examples if self.central is not None else 0
        return sum(each.examples for each in self.sites.values())

    @property
    def name(self) -> str:
        """The evaluation's name in files: `round-0003`, `round-0003-central`, or `round-0003-1` for one asked for."""
        return name_of(self.round, self.number)

    @property
    def by(self) -> str:
        """`by 3 sites`, `by 2 of 3 sites`, or `on the operator's own data`."""
        return OWN_DATA if self.is_central else by_sites_of(len(self.sites), len(self.expected))

    @property
    def reported(self) -> dict[str, Collection[str]]:
        """The names of each site's metrics, by site."""
        return {site: (*of.metrics, *of.not_finite) for site, of in self.sites.items()}

    @property
    def lacks_values(self) -> bool:
        """Whether `sites` lack values that these sites have reported."""
        return bool(self.unread) or any(each.is_cut or each.are_words_cut for each in self.sites.values())

    @property
    def is_asked(self) -> bool:
        """Whether somebody has asked for it, so that it decides nothing in the run."""
        return EvaluationKind.of(self.number) is EvaluationKind.ASKED

    def to_json(self) -> str:
        """Write it for `from_json`, which a result folder keeps."""
        written: dict[str, Any] = {
            "version": FILE_VERSION,
            **{name: value for name, value in self.__dict__.items() if name not in _WRITTEN_ELSEWHERE},
            **({"central": self.central.to_plain()} if self.central is not None else {}),
            **({"subject": self.of.to_plain()} if self.of is not None else {}),
            **({"left_out": self.left_out} if self.left_out else {}),
            **({"unread": self.unread} if self.unread else {}),
            **({"spread": self.spread} if self.lacks_values else {}),
            "sites": {site: of.to_plain() for site, of in self.sites.items()},
        }
        return json.dumps(written, allow_nan=False)

    @classmethod
    def from_json(cls, text: bytes | str, where: str) -> Evaluated:
        """Read what `to_json` has written. Raises `InvalidRecord`, which names `where`."""
        from flavor.results.evaluation_shapes import EvaluationShape  # pydantic, which `flavor status` does without

        found = EvaluationShape.of_json(text, where)
        if found.version != FILE_VERSION:
            raise InvalidRecord(
                f"{where} is no {found.what}: version: another release of flavor wrote it: use that one"
            )
        try:
            of = Subject.of_fields({"subject": found.subject, "owner": found.owner}, found.round)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidRecord(f"{where} is no {found.what}: subject: {printable(str(error))[:200]}") from None
        return cls(
            **{each.name: getattr(found, each.name) for each in fields(cls) if each.name not in _READ_ELSEWHERE},
            of=of,
            sites={site: SiteMeasures.of_shape(each) for site, each in found.sites.items()},
            central=SiteMeasures.of_shape(found.central) if found.central is not None else None,
        )


def name_of(round_: int, number: int) -> str:
    """Return the name of an evaluation in files."""
    return f"round-{round_:04d}" + {AUTOMATIC: "", CENTRAL: "-central"}.get(number, f"-{number}")


def by_of(name: str, sites: int) -> str:
    """Return who has measured a metric: `by 3 sites`, or `on the operator's own data`."""
    return OWN_DATA if name.startswith(CENTRAL_PREFIX) else by_sites_of(sites, 0)


def mean_of(name: str, sites: int, kind: str = "plain") -> str:
    """Return ` (plain mean)` for a metric of several sites, by its name in `--select`; '' where the name says more.

    What training scripts report is shown by another mean, the weighted one, and may stand beside it.
    """
    return "" if sites < 2 or why_not_own(name) or is_count(name) else f" ({kind} mean)"


def by_sites_of(sites: int, expected: int) -> str:
    """Return `by 3 sites`, or `by 2 of 3 sites`."""
    return f"by {counted(sites, 'site')}" if sites >= expected else f"by {sites} of {counted(expected, 'site')}"


def evaluated_of(
    run: str,
    view: EvaluationView,
    summary: EvaluationSummary | None = None,
    *,
    merged: Mapping[str, Any] | None = None,
    results: SiteResults | None = None,
) -> Evaluated:
    """Return a closed evaluation as Redis has it.

    Redis keeps the first metrics alone: `merged`, the merged information, and `results`, those of sites, have all, as
    far as they could be read in the store.
    """
    infos, unread = results or SiteResults({}, {})
    before = {site: each.unread for site, each in sorted(view.accepted.items()) if each.unread and site not in infos}
    unread = {**before, **unread}
    metrics, few = ({}, {}) if summary is None else (summary.metrics, summary.few)
    if merged is not None:
        metrics, few = scalars(merged["metrics"]), sites_of(merged)[0]
    found = Evaluated(
        run=run,
        round=view.round,
        number=view.number,
        model=view.model.model.digest,
        opened_ms=view.opened_ms,
        closed_ms=view.closed_ms or 0,
        expected=view.expected,
        sites={
            site: SiteMeasures.of_info(each.result.num_examples if each.result else 0, infos[site])
            if site in infos
            else SiteMeasures.of_verdict(each)
            for site, each in sorted(view.accepted.items())
        },
        missing=missing_of(
            {site: each.reason for site, each in view.verdicts.items() if not each.accepted}, view.training
        ),
        skipped=view.skipped,
        metrics=metrics,
        null=null_in(merged) if merged is not None else (),
        few=few,
        reporters=_reporters(view, few, infos, summary),
        merged_of=1 if view.is_central else 0,
        central=SiteMeasures(summary.examples if summary else 0, metrics, without_value(merged) if merged else {})
        if view.is_central
        else None,
        of=view.of,
        left_out=left_out_of(merged) if merged is not None else {},
        unread=unread,
    )
    return replace(found, spread=summary.spread) if found.lacks_values and summary is not None else found


def null_in(merged: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which metrics of merged information are `null`."""
    return tuple(name for name, value in merged["metrics"].items() if value is None)


def _reporters(
    view: EvaluationView, few: Mapping[str, int], infos: Mapping[str, Info], summary: EvaluationSummary | None
) -> Mapping[str, str]:
    if infos:
        return reporters_of(view.accepted, few, {site: info["metrics"] for site, info in infos.items()})
    return summary.reporters if summary is not None else {}


def missing_of(without: Mapping[str, str], training: Iterable[str]) -> dict[str, str]:
    """Return why sites have no result that counts: those with the reason of it, and those that trained on."""
    return {**dict(sorted(without.items())), **dict.fromkeys(training, TRAINS_ON)}


def numbers_of(summary: EvaluationSummary) -> Evaluated:
    """Return an evaluation of which only the merged numbers are known: it has no sites."""
    return Evaluated(
        run="",
        round=summary.round,
        number=summary.number,
        model="",
        opened_ms=summary.opened_ms,
        closed_ms=summary.closed_ms,
        expected=(),
        sites={},
        missing={},
        metrics=summary.metrics,
        few=summary.few,
        spread=summary.spread,
        merged_of=summary.sites,
        central=SiteMeasures(summary.examples, summary.metrics) if summary.number == CENTRAL else None,
        of=summary.of,
    )


def with_central(found: Evaluated, own: Evaluated | None) -> Evaluated:
    """Return an evaluation by sites with that of the same model on the operator's own data beside it."""
    if own is None or own.central is None:
        return found
    return replace(beside(found, own), metrics={**found.metrics, **own.metrics})


def beside(found: Evaluated, own: Evaluated) -> Evaluated:
    """Return an evaluation with that of the same model on the operator's own data: its values, and what is left out."""
    return replace(found, central=own.central, left_out={**found.left_out, **own.left_out})


def as_round(found: Evaluated) -> RoundResult:
    """Return an evaluation in the form of a round, for what draws and exports metrics of rounds. It has no bytes."""
    return RoundResult(
        round=found.round,
        seconds=(found.closed_ms - found.opened_ms) / 1000,
        clients=list(found.sites),
        examples=found.examples,
        bytes=0,
        metrics=dict(found.metrics),
        sites=[SiteResult(site, of.examples, 0, dict(of.metrics)) for site, of in found.sites.items()],
        few=dict(found.few),
        reporters=found.reporters,
    )
