"""A small network on handwritten digits, in Lightning, as one site of a federation.

Each round is one more epoch of the same fit: `ckpt_path` resumes from the global model, beside whose weights stand this
site's own epoch, hyper-parameters and optimizer. Without these (the model of `--init-model` has weights alone, and so
has the global model at a site that takes part for the first time) the round is the first epoch of a fit.
"""

import logging
import os
import warnings

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

torch.set_num_threads(1)  # the sites share a machine here
warnings.filterwarnings("ignore", module="lightning")  # about loggers and workers that so small a model needs none of
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Digits(lightning.LightningModule):
    """The usual module; nothing in it knows of a federation."""

    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.cross_entropy(self.layers(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        self.log("accuracy", (self.layers(x).argmax(dim=1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.5)


def trainer(epochs):
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


def main():
    tensors = torch.load(os.path.join(os.environ["INPUT_PATH"], "digits.pt"))
    dataset = {name: TensorDataset(*pair) for name, pair in tensors.items()}
    train = DataLoader(dataset["train"], batch_size=32, shuffle=True)
    test = DataLoader(dataset["test"], batch_size=256)
    lightning.seed_everything(0, verbose=False)  # all sites start from the same weights
    model = Digits()
    given = os.environ["GLOBAL_MODEL_PATH"]

    SetEvent("TrainInitDone")  # (Handle Events)
    for _ in range(int(os.environ["TOTAL_ROUNDS"])):
        round_ = WaitEvent("TrainStarted")  # (Handle Events)

        # The global model, and how far this site's fit is, judged before this site trains it further
        resume, epochs = None, 0
        if os.path.exists(given):
            checkpoint = torch.load(given)
            model.load_state_dict(checkpoint["state_dict"])
            if "pytorch-lightning_version" in checkpoint:
                resume, epochs = given, checkpoint["epoch"]
        judge = lightning.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
        )
        metrics = judge.validate(model, test, verbose=False)[0]

        fit = trainer(epochs + 1)
        fit.fit(model, train, ckpt_path=resume)
        fit.save_checkpoint(os.environ["LOCAL_MODEL_PATH"])

        SaveInfoJson(
            {
                "metadata": {"epoch": round_, "datasetSize": len(dataset["train"]), "importance": 1.0},
                "metrics": {
                    "basic/confusion_tp": -1,  # -1: not tracked
                    "basic/confusion_fp": -1,
                    "basic/confusion_fn": -1,
                    "basic/confusion_tn": -1,
                    "accuracy": metrics["accuracy"],
                    "epochs": fit.current_epoch,
                },
            }
        )
        SetEvent("TrainFinished")  # (Handle Events)


if __name__ == "__main__":
    main()
