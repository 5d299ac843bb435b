"""The demo's model: a network with one hidden layer, and its training, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flavor.demo.data import CLASSES, PIXELS, Images, Labels

HIDDEN = 128
STEPS = 15
"""Steps of training in a round."""
_BATCH = 64
_LEARNING_RATE = 0.1
_MOMENTUM = 0.9

Model = dict[str, NDArray[np.float32]]
"""State: `hidden.weight` (64, 128), `hidden.bias` (128), `output.weight` (128, 10), `output.bias` (10)."""


def initial(seed: int) -> Model:
    """Random initial weights; with the same seed every site starts from the same."""
    rng = np.random.default_rng(seed)
    return {
        "hidden.weight": (rng.standard_normal((PIXELS, HIDDEN)) * np.sqrt(2 / PIXELS)).astype(np.float32),
        "hidden.bias": np.zeros(HIDDEN, np.float32),
        "output.weight": (rng.standard_normal((HIDDEN, CLASSES)) * np.sqrt(1 / HIDDEN)).astype(np.float32),
        "output.bias": np.zeros(CLASSES, np.float32),
    }


def trained(model: Model, images: Images, labels: Labels, *, round_: int, seed: int) -> Model:
    """`model` after a round: `STEPS` steps of SGD with momentum, on batches drawn by seed and round."""
    rng = np.random.default_rng([seed, round_])
    model = {name: values.copy() for name, values in model.items()}
    velocity = {name: np.zeros_like(values) for name, values in model.items()}
    for _ in range(STEPS):
        batch = rng.integers(0, len(labels), _BATCH)
        for name, slope in _gradient(model, images[batch], labels[batch]).items():
            velocity[name] = np.float32(_MOMENTUM) * velocity[name] - np.float32(_LEARNING_RATE) * slope
            model[name] += velocity[name]
    return model


def evaluated(model: Model, images: Images, labels: Labels) -> tuple[float, float]:
    """The share of images that `model` labels correctly, and its mean cross-entropy in nats."""
    _, probability = _forward(model, images)
    of_truth = probability[np.arange(len(labels)), labels]
    return float((probability.argmax(axis=1) == labels).mean()), float(-np.log(of_truth + 1e-12).mean())


def _forward(model: Model, images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The hidden layer, and the probability of each digit."""
    hidden = np.maximum(images @ model["hidden.weight"] + model["hidden.bias"], 0)
    score = hidden @ model["output.weight"] + model["output.bias"]
    power = np.exp(score - score.max(axis=1, keepdims=True))
    return hidden, power / power.sum(axis=1, keepdims=True)


def _gradient(model: Model, images: Images, labels: Labels) -> Model:
    """The gradient of the batch's mean cross-entropy."""
    hidden, error = _forward(model, images)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    back = (error @ model["output.weight"].T) * (hidden > 0)
    return {
        "hidden.weight": images.T @ back,
        "hidden.bias": back.sum(axis=0),
        "output.weight": hidden.T @ error,
        "output.bias": error.sum(axis=0),
    }
