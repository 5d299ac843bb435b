"""Federated training by rounds: nodes train locally, a coordinator averages or takes DiLoCo's outer step.

Nodes may be simulated, called by a provider of your own, or real edges on the bus (`BusUpdateProvider`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aumai_fedtrain.core import CreditTracker, DiLoCoCoordinator, GradientAverager, HashVerifier, UpdateProvider
from aumai_fedtrain.models import (
    FederatedNode,
    GlobalState,
    LocalUpdate,
    OuterState,
    Reports,
    TrainingConfig,
    TrainingResult,
)
from aumai_fedtrain.simulation import SimulatedProvider
from flavor import __version__

if TYPE_CHECKING:
    from aumai_fedtrain.bus import BusUpdateProvider

__all__ = [
    "BusUpdateProvider",
    "CreditTracker",
    "DiLoCoCoordinator",
    "FederatedNode",
    "GlobalState",
    "GradientAverager",
    "HashVerifier",
    "LocalUpdate",
    "OuterState",
    "Reports",
    "SimulatedProvider",
    "TrainingConfig",
    "TrainingResult",
    "UpdateProvider",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "BusUpdateProvider":  # it needs Redis and RQ, which nothing else here does
        from aumai_fedtrain.bus import BusUpdateProvider

        return BusUpdateProvider
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
