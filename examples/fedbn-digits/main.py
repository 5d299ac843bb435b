"""A small network with batch normalisation on handwritten digits, in PyTorch. Nothing in it knows of FedBN."""

import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

torch.set_num_threads(1)  # the sites share a machine here


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn1, self.hidden = nn.BatchNorm1d(64), nn.Linear(64, 64)  # `--local 'bn*'` finds its names
        self.bn2, self.output = nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x):
        return self.output(torch.relu(self.bn2(self.hidden(self.bn1(x)))))


def train(model, dataloader, optimizer):
    model.train()
    for x, y in dataloader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


@torch.no_grad()
def val(model, dataset):
    model.eval()
    x, y = dataset.tensors
    score = model(x)
    return {
        "accuracy": (score.argmax(dim=1) == y).float().mean(),
        "loss": nn.functional.cross_entropy(score, y),
    }


def main():
    # Load the uploaded dataset
    tensors = torch.load(os.path.join(os.environ["INPUT_PATH"], "digits.pt"))
    dataset = {name: TensorDataset(*pair) for name, pair in tensors.items()}
    dataloader = DataLoader(dataset["train"], batch_size=32, shuffle=True)
    torch.manual_seed(0)  # all sites start from the same weights
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    # (Handle Events) Tell the server that all preparations for training have been completed.
    SetEvent("TrainInitDone")

    for _ in range(int(os.environ["TOTAL_ROUNDS"])):
        # (Handle Events) Wait for the server; this returns the number of the round
        round_ = WaitEvent("TrainStarted")

        # Load checkpoint sent from the server (there is none in the first round, without pre-trained weights)
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            model.load_state_dict(torch.load(os.environ["GLOBAL_MODEL_PATH"])["state_dict"])

        # Evaluate the model as this site has it, before it is trained on
        metrics = val(model, dataset["test"])

        train(model, dataloader, optimizer)

        # Save checkpoint
        torch.save({"state_dict": model.state_dict()}, os.environ["LOCAL_MODEL_PATH"])

        # Save client information
        output = {}
        output["metadata"] = {"epoch": round_, "datasetSize": len(dataset["train"]), "importance": 1.0}
        output["metrics"] = {
            "basic/confusion_tp": -1,  # -1: not tracked
            "basic/confusion_fp": -1,
            "basic/confusion_fn": -1,
            "basic/confusion_tn": -1,
            **metrics,
        }
        SaveInfoJson(output)

        # (Handle Events) Tell the server that this round of training work has ended.
        SetEvent("TrainFinished")


if __name__ == "__main__":
    main()
