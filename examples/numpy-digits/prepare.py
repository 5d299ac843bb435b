"""Split scikit-learn's handwritten digits over three sites. Each site gets some of the ten digits."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

DIGITS_OF_SITE = {"site1": [0, 1, 2, 3], "site2": [4, 5, 6], "site3": [7, 8, 9]}

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
order = np.random.default_rng(0).permutation(len(labels))
test, train = order[:360], order[360:]

for site, digits in DIGITS_OF_SITE.items():
    own = train[np.isin(labels[train], digits)]
    Path(site).mkdir(exist_ok=True)
    np.savez(
        f"{site}/data.npz",
        x_train=images[own],
        y_train=labels[own],
        x_test=images[test],  # all ten digits, the same at every site
        y_test=labels[test],
    )
    print(f"{site}: {len(own)} images of the digits {digits}")
