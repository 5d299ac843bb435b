"""Softmax regression on handwritten digits, in numpy, as one site of a federation."""

import os
import pickle

import numpy as np

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

STEPS, BATCH, LEARNING_RATE = 20, 64, 0.5


def probabilities(model, x):
    score = x @ model["weight"] + model["bias"]
    power = np.exp(score - score.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)


def train(model, x, y, rng):
    for _ in range(STEPS):
        batch = rng.integers(0, len(y), BATCH)
        error = probabilities(model, x[batch])
        error[np.arange(BATCH), y[batch]] -= 1
        model["weight"] -= LEARNING_RATE * x[batch].T @ error / BATCH
        model["bias"] -= LEARNING_RATE * error.mean(axis=0)


def val(model, x, y):
    p = probabilities(model, x)
    return {
        "accuracy": (p.argmax(axis=1) == y).mean(),
        "loss": -np.log(p[np.arange(len(y)), y] + 1e-12).mean(),
    }


def main():
    # Load the dataset of this site
    data = np.load(os.path.join(os.environ["INPUT_PATH"], "data.npz"))
    model = {"weight": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}
    rng = np.random.default_rng(0)

    # Tell the server that all preparations for training have been completed
    SetEvent("TrainInitDone")

    for _ in range(int(os.environ["TOTAL_ROUNDS"])):
        # Wait for the server; this returns the number of the round
        round_ = WaitEvent("TrainStarted")

        # Load the global model (there is none in the first round, without pre-trained weights)
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            with open(os.environ["GLOBAL_MODEL_PATH"], "rb") as file:
                model = pickle.load(file)["state_dict"]

        # Evaluate the global model, then train it on this site's images
        metrics = val(model, data["x_test"], data["y_test"])
        train(model, data["x_train"], data["y_train"], rng)

        # Save the local model
        with open(os.environ["LOCAL_MODEL_PATH"], "wb") as file:
            pickle.dump({"state_dict": model}, file)

        # Save client information; -1 is for what is not tracked
        output = {}
        output["metadata"] = {"epoch": round_, "datasetSize": len(data["y_train"]), "importance": 1.0}
        output["metrics"] = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")} | metrics
        SaveInfoJson(output)

        # Tell the server that this round of training work has ended
        SetEvent("TrainFinished")


if __name__ == "__main__":
    main()
