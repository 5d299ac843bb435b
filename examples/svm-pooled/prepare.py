"""Split scikit-learn's breast cancer data over three clinics, by the size of the tumour."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

x, y = load_breast_cancer(return_X_y=True)  # 30 measurements each of 569 tumours; 0 is malignant, 1 benign
order = np.random.default_rng(0).permutation(len(y))
test, train = order[:171], order[171:]
radius = x[:, 0]
# One scale at all clinics, or their vectors could not be pooled; here it is taken as agreed beforehand
x = ((x - x[train].mean(axis=0)) / x[train].std(axis=0)).astype(np.float32)

by_size = train[radius[train].argsort()]
for name, own in zip(("small", "medium", "large"), np.array_split(by_size, 3), strict=True):
    clinic = Path("sites", name)
    clinic.mkdir(parents=True, exist_ok=True)
    np.savez(
        clinic / "data.npz",
        x_train=x[own],
        y_train=y[own],
        x_test=x[test],  # tumours of all sizes, the same at every clinic
        y_test=y[test],
    )
    print(f"{clinic}: {len(own)} tumours, {np.mean(y[own] == 0):.0%} of them malignant")
