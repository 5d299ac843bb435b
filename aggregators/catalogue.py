"""The rules that come with this package, as entry points: each is a name and a class, as a third party's rule is.

The catalogue shows them in this order. `aggregators.entry_points` makes an entry of each.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint

GROUP = "flavor.aggregators"

_CLASSES = {
    "fedavg": "aggregators.algorithms:FedAvg",
    "diloco": "aggregators.algorithms:DiLoCo",
    "mean": "aggregators.mean:Mean",
    "median": "aggregators.order_statistics:Median",
    "trimmed_mean": "aggregators.order_statistics:TrimmedMean",
    "krum": "aggregators.krum:Krum",
    "multi_krum": "aggregators.krum:MultiKrum",
    "bulyan": "aggregators.krum:Bulyan",
    "geometric_median": "aggregators.geometric:GeometricMedian",
    "lora-exact": "aggregators.lora_exact:LoraExact",
    "norm_clip": "aggregators.clip:NormClip",
    "fednova": "aggregators.normalised:FedNova",
    "replace": "aggregators.server:Replace",
    "momentum": "aggregators.server:Momentum",
    "adagrad": "aggregators.server:Adagrad",
    "adam": "aggregators.server:Adam",
    "yogi": "aggregators.server:Yogi",
    "nesterov": "aggregators.server:Nesterov",
}

BUILT_IN = tuple(EntryPoint(name, target, GROUP) for name, target in _CLASSES.items())
