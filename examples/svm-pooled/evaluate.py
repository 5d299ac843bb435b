"""Compare a global model with what each clinic could do alone, on tumours that none of them trained on."""

import sys
from pathlib import Path

import numpy as np
from model import fit, load, pool, support


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python evaluate.py GLOBAL_MODEL, in the folder where prepare.py ran")
    try:
        everyones = load(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"evaluate.py: {error}")
    clinics = {path.parent.name: np.load(path) for path in sorted(Path("sites").glob("*/data.npz"))}
    rows = {name: (data["x_train"], data["y_train"]) for name, data in clinics.items()}
    test = next((data["x_test"], data["y_test"]) for data in clinics.values())
    central = support(*pool(*rows.values()))

    print(f"accuracy on {len(test[1])} held-out tumours")
    for name, own in rows.items():
        print(f"  {name + ' alone':24} {fit(*own).score(*test):.3f}")
    print(f"  {'global model':24} {fit(*everyones).score(*test):.3f}")
    print(f"  {'all rows in one place':24} {fit(*central).score(*test):.3f}")

    kept = as_set(everyones)
    print(f"support vectors in the global model: {len(kept)} of {sum(len(own[1]) for own in rows.values())} rows")
    for name, own in rows.items():
        print(f"  {'from ' + name:24} {len(kept & as_set(own)):5} of {len(own[1])}")
    same = as_set(central)
    print(f"  {'also with all in one place':24} {len(kept & same)} of {len(same)}")


def as_set(model):
    return {(vector.tobytes(), int(label)) for vector, label in zip(*model, strict=True)}


if __name__ == "__main__":
    main()
