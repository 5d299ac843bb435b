"""What one site has measured of a model: its numbers, and the metrics that it reports without a finite value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flavor.records.counts import POOLED, bound_of, is_beside
from flavor.records.evaluation import MOST_METRICS, ResultVerdict, kept_words
from flavor.records.info import CONFUSION, Info
from flavor.records.merging import is_of_most, why_not_own
from flavor.records.not_finite import NULL, read_words, shown, without_value
from flavor.records.summary import kept_metrics
from flavor.results.rounds import measured_by_site, scalars

if TYPE_CHECKING:
    from flavor.results.evaluation_shapes import MeasuresShape


@dataclass(frozen=True)
class SiteMeasures:
    """What one site has measured of a model."""

    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Its finite numbers."""
    not_finite: Mapping[str, str] = field(default_factory=dict)
    """What it reports without a finite value: "Infinity", "-Infinity" or "NaN", or "null" where its evaluator has
    reported none. A metric that it does not report is not among them."""
    is_cut: bool = False
    """Whether it reports finite numbers that are not among `metrics`: Redis keeps the first ones."""
    are_words_cut: bool = False
    """Whether it reports metrics without a finite value that are not among `not_finite`."""

    @classmethod
    def of_info(cls, examples: int, info: Info) -> SiteMeasures:
        """Return what a site's information has, for tables and charts."""
        return cls(examples, measured_by_site(info["metrics"]), not_finite_by_site(info))

    @classmethod
    def of_verdict(cls, verdict: ResultVerdict) -> SiteMeasures:
        """Return what Redis keeps of a site's result: its first metrics."""
        examples = verdict.result.num_examples if verdict.result else 0
        metrics = measured_by_site(verdict.metrics)
        return cls(examples, metrics, verdict.not_finite, verdict.is_cut, verdict.are_words_cut)

    @classmethod
    def of_plain(cls, fields: Mapping[str, Any]) -> SiteMeasures:
        """Read what `to_plain` has written, or an earlier release. Raises `KeyError` and such for other values."""
        metrics, words = scalars(fields["metrics"]), read_words(fields.get("not_finite"))
        return cls(
            int(fields["examples"]), metrics, words, *(fields.get(name) is True for name in ("cut", "words_cut"))
        )

    @classmethod
    def of_shape(cls, shape: MeasuresShape) -> SiteMeasures:
        """Take it from a file that was checked."""
        return cls(shape.examples, shape.metrics, read_words(shape.not_finite), shape.cut, shape.words_cut)

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain values, which JSON can hold."""
        cut = {"cut": self.is_cut, "words_cut": self.are_words_cut}
        return {
            "examples": self.examples,
            "metrics": dict(self.metrics),
            "not_finite": dict(self.not_finite),
            **{name: True for name, is_so in cut.items() if is_so},
        }

    def may_have(self, name: str) -> bool:
        """Return whether it may report a metric that is not among those that are known."""
        return (self.is_cut or self.are_words_cut) and name not in self.metrics and name not in self.not_finite

    @property
    def diverged(self) -> dict[str, str]:
        """The metrics that are infinite or NaN, and not missing."""
        return {name: word for name, word in self.not_finite.items() if word != NULL}

    def text(self, name: str) -> str:
        """Return a metric as a table has it: `0.912`, `inf`, `-inf`, `NaN`, `null`; '' where it is not reported.

        What is computed of the operator's own data has its largest error behind it, where there is one: `0.9 ± 0.004`.
        """
        if (value := self.metrics.get(name)) is not None:
            return f"{value:.6g}{error_words(self.metrics.get(bound_of(name)))}"
        return shown(self.not_finite[name]) if name in self.not_finite else ""


def error_words(bound: float | None) -> str:
    """Return ` ± 0.004` behind a pooled value whose largest error is known; '' for none."""
    return f" ± {bound:.2g}" if bound is not None else ""


def not_finite_by_site(info: Info) -> dict[str, str]:
    """Return which of a site's metrics have no finite value, without counts and names that flavor has a meaning for."""
    return {
        name: word
        for name, word in without_value(info).items()
        if not (why_not_own(name) or is_beside(name) or name in CONFUSION)
    }


class Kept(NamedTuple):
    """What a verdict keeps of a site's information: fields of `ResultVerdict`."""

    metrics: dict[str, float]
    not_finite: dict[str, str]
    is_cut: bool
    are_words_cut: bool


def kept_of(info: Info, first: Iterable[str] = ()) -> Kept:
    """Return what a verdict keeps of a site's information; of many metrics, those named `first` before the others."""
    order = tuple(first)
    metrics, words = measured_by_site(info["metrics"]), not_finite_by_site(info)
    kept, kept_as_words = kept_metrics(_ordered(metrics, order), MOST_METRICS), kept_words(_ordered(words, order))
    return Kept(kept, kept_as_words, len(kept) < len(metrics), len(kept_as_words) < len(words))


_Of = TypeVar("_Of", float, str)


def _ordered(metrics: Mapping[str, _Of], first: Iterable[str]) -> dict[str, _Of]:
    return {**{name: metrics[name] for name in first if name in metrics}, **metrics}


def first_names(infos: Iterable[Info], ruled: Iterable[str]) -> list[str]:
    """Return the metrics that verdicts keep first: those of the run's rules, `ruled`, and those that most sites report.

    So the metrics of a site's own do not displace those by which the sites are compared.
    """
    every = [{**measured_by_site(info["metrics"]), **not_finite_by_site(info)} for info in infos]
    counts = Counter(name for names in every for name in names)
    of_most = [name for name, count in counts.most_common() if is_of_most(count, len(every))]
    return list(dict.fromkeys([*(name.removeprefix(POOLED) for name in ruled), *of_most]))
