"""The rules that come with the engine, as an operator sees them: name, source, condition, options."""

from __future__ import annotations

from aggregators.clip import NormClip
from aggregators.entry import Algorithm, Entry
from aggregators.geometric import GeometricMedian
from aggregators.krum import Bulyan, Krum, MultiKrum
from aggregators.mean import Mean
from aggregators.order_statistics import Median, TrimmedMean
from aggregators.server import Adagrad, Adam, Momentum, Nesterov, Replace, Yogi


def _bound(text: str) -> float | str:
    return text if text == "median" else float(text)


_FEDOPT = {"lr": float, "beta1": float, "tau": float}
_FEDOPT2 = {**_FEDOPT, "beta2": float}
_FEDOPT_SOURCE = "Reddi et al. 2020, arXiv 2003.00295, Algorithm 2"
_GLOBAL = "an old global model"

ENTRIES = (
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
        "nothing",
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
