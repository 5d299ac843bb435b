"""Judge a model on this site's test images with scikit-learn's metrics, and report them in result.json."""

import json
import os
import pickle

import numpy as np
from main import probabilities
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score

DIGITS = [str(digit) for digit in range(10)]


def main():
    # Load the data of this site and the model
    data = np.load(os.path.join(os.environ["INPUT_PATH"], "data.npz"))
    with open(os.environ["WEIGHT_PATH"], "rb") as file:
        model = pickle.load(file)["state_dict"]

    # Measure the model
    x, y = data["x_test"], data["y_test"]
    p = probabilities(model, x).astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    predicted = p.argmax(axis=1)
    accuracy, loss = accuracy_score(y, predicted), log_loss(y, p, labels=range(10))
    recall = recall_score(y, predicted, labels=range(10), average=None, zero_division=np.nan)

    # Report what was measured. Values of tables are metrics; the confusion matrices of all sites are added up.
    results = {
        "tables": [{"title": "", "labels": ["accuracy", "loss"], "values": [accuracy, loss]}],
        "bars": [{"title": "Recall", "labels": DIGITS, "values": recall.tolist(), "y-axis": "recall"}],
        "heatmaps": [
            {
                "title": "Confusion matrix",
                "x-labels": DIGITS,
                "y-labels": DIGITS,
                "values": confusion_matrix(y, predicted, labels=range(10)).tolist(),
                "x-axis": "predicted",
                "y-axis": "true",
                "merge": "sum",
            }
        ],
    }
    with open(os.path.join(os.environ["OUTPUT_PATH"], "result.json"), "w") as file:
        json.dump({"metadata": {"datasetSize": len(y)}, "results": results}, file)


if __name__ == "__main__":
    main()
