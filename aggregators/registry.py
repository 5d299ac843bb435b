"""Algorithms by name: what an operator writes on a command line, and the objects behind it.

A rule is `NAME` or `NAME:OPTION=VALUE,OPTION=VALUE`; `norm_clip` goes before another with a slash, as in
`norm_clip:c=median/trimmed_mean:f=2`. A third party adds reducers through entry points of the group
`flavor.aggregators`: a name and a class, whose options are the keyword arguments of its constructor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

from aggregators.clip import NormClip
from aggregators.geometric import GeometricMedian
from aggregators.krum import Bulyan, Krum, MultiKrum
from aggregators.mean import Mean
from aggregators.order import Median, TrimmedMean
from aggregators.protocols import Reducer, ServerStep
from aggregators.server import Adagrad, Adam, Momentum, Nesterov, Replace, Yogi
from flavor.errors import AggregationError, InvalidSetting

GROUP = "flavor.aggregators"

Convert = Callable[[str], Any]


@dataclass(frozen=True)
class Entry:
    """One algorithm: its name, what it is, where it comes from and when it may be used."""

    name: str
    kind: Literal["alias", "reducer", "server step"]
    description: str
    source: str
    condition: str
    build: Callable[..., Any] = field(repr=False)
    options: Mapping[str, Convert] | None = field(default_factory=dict, repr=False)
    required: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """How it is written: `multi_krum:f=,[m=]`."""
        if self.options is None:
            return f"{self.name}[:OPTION=VALUE,...]"
        parts = [f"{name}=" if name in self.required else f"[{name}=]" for name in self.options]
        return f"{self.name}:{','.join(parts)}" if parts else self.name


@dataclass(frozen=True)
class Algorithm:
    """A reducer and a server step, ready for `aggregators.run`."""

    reducer: Reducer
    server_step: ServerStep

    @property
    def needs_global(self) -> bool:
        """Whether it cannot run in a first round without pre-trained weights."""
        return self.reducer.needs_global or self.server_step.needs_global

    def without_global(self) -> Algorithm:
        """What stands in for it in a first round without pre-trained weights.

        There is nothing to step from or to measure a change against: the reduced model becomes the global one,
        and norm_clip lets every client through to the rule behind it.
        """
        reducer = self.reducer.then if isinstance(self.reducer, NormClip) else self.reducer
        return Algorithm(reducer, Replace())


def _bound(text: str) -> float | str:
    return text if text == "median" else float(text)


_FEDOPT = {"lr": float, "beta1": float, "tau": float}
_FEDOPT2 = {**_FEDOPT, "beta2": float}
_FEDOPT_SOURCE = "Reddi et al. 2020, arXiv 2003.00295, Algorithm 2"
_GLOBAL = "an old global model"

_ENTRIES = (
    Entry(
        "fedavg",
        "alias",
        "weighted mean that replaces the global model",
        "McMahan et al. 2017, arXiv 1602.05629",
        "n >= 1",
        lambda: Algorithm(Mean(), Replace()),
    ),
    Entry(
        "diloco",
        "alias",
        "weighted mean, then Nesterov momentum on the pseudogradient (lr 0.7, momentum 0.9)",
        "Douillard et al. 2023, arXiv 2311.08105, Algorithm 1",
        f"n >= 1 and {_GLOBAL}",
        lambda: Algorithm(Mean(), Nesterov()),
    ),
    Entry(
        "mean",
        "reducer",
        "mean weighted by num_examples",
        "McMahan et al. 2017, arXiv 1602.05629",
        "n >= 1",
        Mean,
    ),
    Entry(
        "median",
        "reducer",
        "median of each coordinate",
        "Yin et al. 2018, arXiv 1803.01498",
        "fewer than n/2 bad clients",
        Median,
    ),
    Entry(
        "trimmed_mean",
        "reducer",
        "mean of each coordinate without its f largest and f smallest values",
        "Yin et al. 2018, arXiv 1803.01498",
        "2f < n",
        TrimmedMean,
        {"f": int},
        ("f",),
    ),
    Entry(
        "krum",
        "reducer",
        "the one client nearest to its n - f - 2 nearest others",
        "Blanchard et al. 2017, NeurIPS 30",
        "2f + 2 < n",
        Krum,
        {"f": int},
        ("f",),
    ),
    Entry(
        "multi_krum",
        "reducer",
        "mean of the m clients best by Krum's score (m = n - f)",
        "Blanchard et al. 2017, NeurIPS 30",
        "2f + 2 < n, 1 <= m <= n - f",
        MultiKrum,
        {"f": int, "m": int},
        ("f",),
    ),
    Entry(
        "bulyan",
        "reducer",
        "n - 2f clients by iterated Krum, then the n - 4f values nearest each coordinate's median",
        "El Mhamdi et al. 2018, arXiv 1802.07927",
        "n >= 4f + 3",
        Bulyan,
        {"f": int},
        ("f",),
    ),
    Entry(
        "geometric_median",
        "reducer",
        "weighted geometric median by the smoothed Weiszfeld algorithm",
        "Pillutla et al. 2019 (RFA), arXiv 1912.13445",
        "bad clients hold less than half of the weight",
        GeometricMedian,
        {"rounds": int, "nu": float, "tol": float},
    ),
    Entry(
        "norm_clip",
        "reducer",
        "no client moves farther than c (a number, or median); goes before another: norm_clip:c=1/median",
        "Sun et al. 2019, arXiv 1911.07963",
        f"{_GLOBAL}, and that of the reducer behind",
        NormClip,
        {"c": _bound},
    ),
    Entry(
        "replace",
        "server step",
        "the reduced model becomes the global one",
        "McMahan et al. 2017, arXiv 1602.05629",
        "none",
        Replace,
    ),
    Entry(
        "momentum",
        "server step",
        "heavy-ball momentum on the pseudogradient (FedAvgM)",
        "Hsu et al. 2019, arXiv 1909.06335",
        _GLOBAL,
        Momentum,
        {"lr": float, "beta": float},
    ),
    Entry("adagrad", "server step", "FedAdagrad", _FEDOPT_SOURCE, _GLOBAL, Adagrad, _FEDOPT),
    Entry("adam", "server step", "FedAdam", _FEDOPT_SOURCE, _GLOBAL, Adam, _FEDOPT2),
    Entry("yogi", "server step", "FedYogi", _FEDOPT_SOURCE, _GLOBAL, Yogi, _FEDOPT2),
    Entry(
        "nesterov",
        "server step",
        "Nesterov momentum on the pseudogradient (DiLoCo's outer step)",
        "Douillard et al. 2023, arXiv 2311.08105",
        _GLOBAL,
        Nesterov,
        {"lr": float, "momentum": float},
    ),
)


def catalogue() -> tuple[Entry, ...]:
    """Return all that can be named: aliases, reducers, server steps, then third parties' reducers.

    A third party's name that is taken already is left out.
    """
    names = {entry.name for entry in _ENTRIES}
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    foreign = (
        Entry(point.name, "reducer", f"from {point.value}", point.value, "its own", _Loader(point), None)
        for point in found
        if point.name not in names
    )
    return (*_ENTRIES, *foreign)


def parse(text: str, server_step: str | None = None) -> Algorithm:
    """Return the algorithm written as `text`, an alias or a reducer, with the server step written so.

    `server_step` defaults to the alias's own, else to `replace`.

    Raises:
        InvalidSetting: one line that names what is wrong and lists what exists.

    """
    head, slash, behind = text.partition("/")
    built = _build(head, ("alias", "reducer"), "aggregator")
    if slash:
        if not isinstance(built, NormClip):
            raise InvalidSetting(f"{text!r}: only norm_clip can go before another aggregator")
        rest = parse(behind)
        built = Algorithm(NormClip(built.c, rest.reducer), rest.server_step)
    algorithm = built if isinstance(built, Algorithm) else Algorithm(built, Replace())
    if server_step is None:
        return algorithm
    return Algorithm(algorithm.reducer, parse_server_step(server_step))


def parse_server_step(text: str) -> ServerStep:
    """Return the server step written as `text`, like `nesterov:lr=0.7`; raises `InvalidSetting`."""
    step: ServerStep = _build(text, ("server step",), "server step")
    return step


def _build(text: str, kinds: tuple[str, ...], what: str) -> Any:
    name, _, tail = text.partition(":")
    entries = {entry.name: entry for entry in catalogue() if entry.kind in kinds}
    entry = entries.get(name)
    if entry is None:
        raise InvalidSetting(f"unknown {what} {name!r}; there are: {', '.join(entries)}")
    options: dict[str, Any] = {}
    for part in tail.split(",") if tail else []:
        option, equals, value = part.partition("=")
        if not equals or (entry.options is not None and option not in entry.options) or option in options:
            raise InvalidSetting(f"{text!r}: bad option {part!r}; write {entry.usage}")
        convert = _literal if entry.options is None else entry.options[option]
        try:
            options[option] = convert(value)
        except ValueError:
            raise InvalidSetting(f"{text!r}: {value!r} does not fit {option}; write {entry.usage}") from None
    if missing := [option for option in entry.required if option not in options]:
        raise InvalidSetting(f"{text!r}: {', '.join(missing)} is missing; write {entry.usage}")
    try:
        return entry.build(**options)
    except (AggregationError, TypeError) as error:
        raise InvalidSetting(f"{text!r}: {error}") from error


def _literal(text: str) -> int | float | str:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class _Loader:
    """Imports a third party's class when it is first used, so that a listing runs no foreign code."""

    point: Any

    def __call__(self, **options: Any) -> Reducer:
        try:
            reducer = self.point.load()(**options)
        except ImportError as error:
            raise AggregationError(f"{self.point.value} cannot be imported: {error}") from error
        if not isinstance(reducer, Reducer):
            raise AggregationError(f"{self.point.value} is no reducer: needs_global, check or plan is missing")
        return reducer
