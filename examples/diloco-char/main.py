"""DiLoCo: a small transformer learns to write like Shakespeare, as one site of a federation.

Each round is H steps of this site's own AdamW, whose state stays here and lives on from round to round.
"""

import argparse
import math
import os
from pathlib import Path

import torch
from model import CharModel, batch, encoded, evaluated

from flavor.cook.utils import Report, SaveInfoJson, SetEvent, WaitEvent

torch.set_num_threads(1)  # the sites share a machine here


def parsed():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20, help="H, the local steps of a round")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--warmup", type=int, default=40, help="steps in which the learning rate grows")
    parser.add_argument("--tested", type=int, default=256, help="pieces of 64 characters to test on in each round")
    return parser.parse_args()


def learning_rate(options, step, steps):
    """Linear warm-up, then a cosine down to a tenth at the last step of the last round."""
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, steps - options.warmup)
    return options.lr * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)


def train(model, optimizer, pieces, options, first, last):
    total = 0.0
    for step in range(first, first + options.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(options, step, last)
        optimizer.zero_grad()
        loss = model(*pieces())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
        Report(step - first + 1, options.steps, loss=loss.item())  # how far this round is, for `flavor status`
    return total / options.steps


def main():
    options = parsed()
    folder = Path(os.environ["INPUT_PATH"])
    text, held_out = (encoded((folder / name).read_text()) for name in ("train.txt", "test.txt"))
    torch.manual_seed(0)  # without pre-trained weights all sites start from the same ones
    model = CharModel()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    rounds = int(os.environ["TOTAL_ROUNDS"])

    # (Handle Events) Tell the server that all preparations for training have been completed.
    SetEvent("TrainInitDone")

    for _ in range(rounds):
        # (Handle Events) Wait for the server; this returns the number of the round
        round_ = WaitEvent("TrainStarted")

        # The global model is where this round's steps start; the optimizer stays as it is.
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            model.load_state_dict(torch.load(os.environ["GLOBAL_MODEL_PATH"])["state_dict"])
        loss = evaluated(model, held_out, most=options.tested)

        own_loss = train(
            model,
            optimizer,
            lambda: batch(text, options.batch, generator),
            options,
            (round_ - 1) * options.steps,
            rounds * options.steps,
        )

        torch.save({"state_dict": model.state_dict()}, os.environ["LOCAL_MODEL_PATH"])
        output = {}
        output["metadata"] = {"epoch": round_, "datasetSize": len(text), "importance": 1.0}
        output["metrics"] = {
            "basic/confusion_tp": -1,  # -1: not tracked
            "basic/confusion_fp": -1,
            "basic/confusion_fn": -1,
            "basic/confusion_tn": -1,
            "loss": loss,  # of the global model, on text that no site trains on
            "own_loss": own_loss,
        }
        SaveInfoJson(output)

        # (Handle Events) Tell the server that this round of training work has ended.
        SetEvent("TrainFinished")


if __name__ == "__main__":
    main()
