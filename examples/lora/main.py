"""Fine-tune the adapters of a small transformer, as one site of a federation. The model itself stays frozen."""

import os
from pathlib import Path

import torch
from model import adapted, batch, encoded, evaluated, load_adapters, loss_of, save_adapters
from transformers import GPT2LMHeadModel

from flavor.cook.utils import Report, SaveInfoJson, SetEvent, WaitEvent

STEPS = int(os.environ.get("STEPS", "50"))
torch.set_num_threads(1)  # the sites share a machine here


def main():
    folder = Path(os.environ["INPUT_PATH"])
    text, held_out = (encoded((folder / name).read_text()) for name in ("train.txt", "test.txt"))
    base = GPT2LMHeadModel.from_pretrained(folder / "base")
    torch.manual_seed(0)  # the adapters of all sites start from the same numbers
    model = adapted(base)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=float(os.environ.get("LR", "1e-2")))
    generator = torch.Generator().manual_seed(sum(map(ord, folder.name)))

    # (Handle Events) Tell the server that all preparations for training have been completed.
    SetEvent("TrainInitDone")

    for _ in range(int(os.environ["TOTAL_ROUNDS"])):
        # (Handle Events) Wait for the server; this returns the number of the round
        round_ = WaitEvent("TrainStarted")

        # The global adapters are where this round starts; the optimizer stays as it is.
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            load_adapters(model, os.environ["GLOBAL_MODEL_PATH"])
        loss = evaluated(model, held_out)

        for step in range(STEPS):
            optimizer.zero_grad()
            own_loss = loss_of(model, batch(text, 8, generator))
            own_loss.backward()
            optimizer.step()
            Report(step + 1, STEPS, loss=own_loss.item())

        save_adapters(model, os.environ["LOCAL_MODEL_PATH"])
        SaveInfoJson(
            {
                "metadata": {"epoch": round_, "datasetSize": len(text), "importance": 1.0},
                "metrics": {
                    "basic/confusion_tp": -1,  # -1: not tracked
                    "basic/confusion_fp": -1,
                    "basic/confusion_fn": -1,
                    "basic/confusion_tn": -1,
                    "loss": loss,  # of the global adapters, on text that no site trains on
                    "own_loss": evaluated(model, held_out),  # of what this site has made of them
                },
            }
        )

        # (Handle Events) Tell the server that this round of training work has ended.
        SetEvent("TrainFinished")


if __name__ == "__main__":
    main()
