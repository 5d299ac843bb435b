"""Compare a global model with what each site could do alone, on images that none of them trained on."""

import sys
from pathlib import Path

import numpy as np
import xgboost
from main import PARAMETERS


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python evaluate.py GLOBAL_MODEL, in the folder where prepare.py ran")
    everyones = xgboost.Booster(PARAMETERS)
    try:
        everyones.load_model(bytearray(Path(sys.argv[1]).read_bytes()))
    except (OSError, ValueError) as error:  # XGBoost's own errors are ValueErrors, with a stack of its functions below
        sys.exit(f"evaluate.py: {sys.argv[1]} cannot be loaded: {str(error).splitlines()[0]}")
    sites = {path.parent.name: np.load(path) for path in sorted(Path("sites").glob("*/data.npz"))}
    rows = {name: (data["x_train"], data["y_train"]) for name, data in sites.items()}
    test = next((data["x_test"], data["y_test"]) for data in sites.values())

    # All get as many trees as the global model has
    iterations = everyones.num_boosted_rounds()
    print(f"accuracy on {len(test[1])} held-out images, with {iterations} trees for each digit")
    for name, own in rows.items():
        print(f"  {name + ' alone':22} {accuracy(trained(*own, iterations), *test):.3f}")
    print(f"  {'global model':22} {accuracy(everyones, *test):.3f}")
    everything = [np.concatenate(parts) for parts in zip(*rows.values(), strict=True)]
    print(f"  {'all rows in one place':22} {accuracy(trained(*everything, iterations), *test):.3f}")


def trained(x, y, iterations):
    return xgboost.train(PARAMETERS, xgboost.DMatrix(x, y), iterations)


def accuracy(model, x, y):
    return (model.predict(xgboost.DMatrix(x)).argmax(axis=1) == y).mean()


if __name__ == "__main__":
    main()
