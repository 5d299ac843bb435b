"""Judge a model on this site's test images, in PyTorch: the same network as in main.py."""

import os

import torch
from main import val
from torch import nn
from torch.utils.data import TensorDataset

from flavor.cook.metrics import multiclass_counts
from flavor.cook.torch import without_control_variates
from flavor.cook.utils import SaveInfoJson


def main():
    # Load the data of this site and the model
    tensors = torch.load(os.path.join(os.environ["INPUT_PATH"], "digits.pt"))
    dataset = TensorDataset(*tensors["test"])
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    checkpoint = torch.load(os.environ["WEIGHT_PATH"])
    model.load_state_dict(without_control_variates(checkpoint["state_dict"]))

    # Measure the model; the counts of all sites become metrics of all their images together
    metrics = val(model, dataset)
    with torch.no_grad():
        x, y = dataset.tensors
        counts = multiclass_counts(y, model(x).argmax(dim=1), classes=10)

    SaveInfoJson({"metadata": {"datasetSize": len(dataset)}, "metrics": {**metrics, **counts}})


if __name__ == "__main__":
    main()
