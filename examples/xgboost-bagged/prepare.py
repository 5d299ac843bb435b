"""Split scikit-learn's handwritten digits over four sites, each of which has many of few digits."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

SITES, FEW = 4, 10

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
test, train = order[:360], order[360:]

# A digit's images belong to one site, but for a few that each of the others has of it
owner = np.empty(len(labels), int)
for digit in range(10):
    rows = train[labels[train] == digit]
    owner[rows] = digit % SITES
    for number, other in enumerate(site for site in range(SITES) if site != digit % SITES):
        owner[rows[number * FEW : (number + 1) * FEW]] = other

for site in range(SITES):
    own = train[owner[train] == site]
    folder = Path("sites", f"site{site + 1}")
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "data.npz",
        x_train=images[own].astype(np.float32),
        y_train=labels[own],
        x_test=images[test].astype(np.float32),  # all ten digits alike, the same at every site
        y_test=labels[test],
    )
    print(f"{folder}: {len(own)} images; of the digits 0 to 9 {np.bincount(labels[own]).tolist()}")
