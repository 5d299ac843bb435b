"""The parts of a training run: coordinator, averager, verifier, credits, provider."""

from aumai_fedtrain.averager import GradientAverager
from aumai_fedtrain.coordinator import DiLoCoCoordinator
from aumai_fedtrain.credit import CreditTracker
from aumai_fedtrain.provider import UpdateProvider
from aumai_fedtrain.verifier import HashVerifier

__all__ = ["CreditTracker", "DiLoCoCoordinator", "GradientAverager", "HashVerifier", "UpdateProvider"]
