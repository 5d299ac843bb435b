"""A support vector machine on one clinic's tumours, as one site of a federation."""

import os

import numpy as np
from model import fit, load, pool, save, support

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent


def main():
    # Load the dataset of this clinic
    data = np.load(os.path.join(os.environ["INPUT_PATH"], "data.npz"))
    own = data["x_train"], data["y_train"]

    # Tell the server that all preparations for training have been completed
    SetEvent("TrainInitDone")

    for _ in range(int(os.environ["TOTAL_ROUNDS"])):
        # Wait for the server; this returns the number of the round
        round_ = WaitEvent("TrainStarted")

        # Add the support vectors of all clinics to this clinic's rows (there are none in the first round)
        rows, metrics = own, {}
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            everyones = load(os.environ["GLOBAL_MODEL_PATH"])
            rows = pool(own, everyones)
            metrics["accuracy"] = fit(*everyones).score(data["x_test"], data["y_test"])

        # Train on them, and save the support vectors as the local model
        save(os.environ["LOCAL_MODEL_PATH"], support(*rows))

        # Save client information; -1 is for what is not tracked
        output = {}
        output["metadata"] = {"epoch": round_, "datasetSize": len(own[1]), "importance": 1.0}
        output["metrics"] = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")} | metrics
        SaveInfoJson(output)

        # Tell the server that this round of training work has ended
        SetEvent("TrainFinished")


if __name__ == "__main__":
    main()
