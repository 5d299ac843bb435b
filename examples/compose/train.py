"""A site's training script: a small network on pictures of digits, in numpy alone.

What makes it federated are the three events and the two model paths; the rest is plain training.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

Weights = dict[str, np.ndarray]

HIDDEN, BATCH, LEARNING_RATE, LOCAL_EPOCHS = 48, 20, 0.2, 5


def initial(inputs: int) -> Weights:
    """The same start at every site: a mean of networks that share no start is no network."""
    random = np.random.default_rng(0)
    return {
        "hidden.weight": (random.normal(size=(inputs, HIDDEN)) / np.sqrt(inputs)).astype(np.float32),
        "hidden.bias": np.zeros(HIDDEN, np.float32),
        "out.weight": (random.normal(size=(HIDDEN, 10)) / np.sqrt(HIDDEN)).astype(np.float32),
        "out.bias": np.zeros(10, np.float32),
    }


def forward(weights: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hidden layer's values and each digit's score."""
    hidden = np.maximum(x @ weights["hidden.weight"] + weights["hidden.bias"], 0)
    return hidden, hidden @ weights["out.weight"] + weights["out.bias"]


def accuracy(weights: Weights, x: np.ndarray, y: np.ndarray) -> float:
    """The share of pictures that are read correctly."""
    return float((forward(weights, x)[1].argmax(axis=1) == y).mean())


def train(weights: Weights, x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> None:
    """Stochastic gradient descent, in place."""
    for batch in np.array_split(random.permutation(len(x)), max(1, len(x) // BATCH)):
        hidden, scores = forward(weights, x[batch])
        error = np.exp(scores - scores.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(batch)), y[batch]] -= 1
        error /= len(batch)
        back = (error @ weights["out.weight"].T) * (hidden > 0)
        gradients = {
            "hidden.weight": x[batch].T @ back,
            "hidden.bias": back.sum(axis=0),
            "out.weight": hidden.T @ error,
            "out.bias": error.sum(axis=0),
        }
        for name, gradient in gradients.items():
            weights[name] -= LEARNING_RATE * gradient


def main() -> None:
    """Take part in every round of the run."""
    data = Path(os.environ["INPUT_PATH"])
    x, y = np.load(data / "train.npz").values()
    test_x, test_y = np.load(data / "test.npz").values()
    random = np.random.default_rng()
    weights = initial(x.shape[1])
    SetEvent("TrainInitDone")

    for _ in range(int(os.environ["TOTAL_ROUNDS"])):
        round_ = WaitEvent("TrainStarted")
        global_model = Path(os.environ["GLOBAL_MODEL_PATH"])
        if global_model.exists():  # whenever a global model exists
            weights = {k: v.copy() for k, v in pickle.loads(global_model.read_bytes())["state_dict"].items()}
        read = accuracy(weights, test_x, test_y)

        for _ in range(LOCAL_EPOCHS):
            train(weights, x, y, random)
        local = accuracy(weights, test_x, test_y)
        print(f"round {round_:2}: global model {read:6.1%} right; after training on this site {local:6.1%}")

        Path(os.environ["LOCAL_MODEL_PATH"]).write_bytes(pickle.dumps({"state_dict": weights}))
        confusion = dict.fromkeys((f"basic/confusion_{cell}" for cell in ("tp", "fp", "fn", "tn")), -1)
        SaveInfoJson(
            {
                "metadata": {"epoch": round_, "datasetSize": len(x), "importance": 1.0},
                "metrics": {**confusion, "accuracy": read},
            }
        )
        SetEvent("TrainFinished")


if __name__ == "__main__":
    main()
