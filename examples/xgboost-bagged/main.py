"""Boosted trees on one site's handwritten digits, as one site of a federation."""

import os

import numpy as np
import xgboost

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

PARAMETERS = {
    "objective": "multi:softprob",
    "num_class": 10,
    "base_score": 0.5,  # fixed: else each site would estimate its own, and their trees would not add up
    "max_depth": 4,
    "eta": 0.2,  # of one site; a round adds a step of each site, so the more sites, the smaller
    "nthread": 1,  # the sites share a machine here
}
ITERATIONS = 1  # new trees of a round, for each of the ten digits


def main():
    # Load the dataset of this site
    data = np.load(os.path.join(os.environ["INPUT_PATH"], "data.npz"))
    train = xgboost.DMatrix(data["x_train"], data["y_train"])
    test = xgboost.DMatrix(data["x_test"], data["y_test"])

    # Tell the server that all preparations for training have been completed
    SetEvent("TrainInitDone")

    for _ in range(int(os.environ["TOTAL_ROUNDS"])):
        # Wait for the server; this returns the number of the round
        round_ = WaitEvent("TrainStarted")

        # Load the global model, and evaluate it (there is none in the first round)
        model, metrics = None, {}
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            with open(os.environ["GLOBAL_MODEL_PATH"], "rb") as file:
                model = xgboost.Booster(PARAMETERS)
                model.load_model(bytearray(file.read()))
            metrics["accuracy"] = (model.predict(test).argmax(axis=1) == data["y_test"]).mean()

        # Boost it by this site's trees
        start = model.num_boosted_rounds() if model else 0
        model = xgboost.train(PARAMETERS, train, ITERATIONS, xgb_model=model)

        # Save the local model in XGBoost's own format, with a note where this site's trees begin
        model.set_attr(global_iterations=str(start))
        with open(os.environ["LOCAL_MODEL_PATH"], "wb") as file:
            file.write(model.save_raw("json"))

        # Save client information; -1 is for what is not tracked
        output = {}
        output["metadata"] = {"epoch": round_, "datasetSize": len(data["y_train"]), "importance": 1.0}
        output["metrics"] = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")} | metrics
        SaveInfoJson(output)

        # Tell the server that this round of training work has ended
        SetEvent("TrainFinished")


if __name__ == "__main__":
    main()
