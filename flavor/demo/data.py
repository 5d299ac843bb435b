"""The demo's data: scikit-learn's 1797 handwritten digits, split by label over the sites."""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flavor.errors import MisuseError

SITES = {"site1": (0, 1, 2, 3), "site2": (4, 5, 6), "site3": (7, 8, 9)}
"""The digits that each site has examples of."""
FILE_NAME = "data.npz"
PIXELS, CLASSES = 64, 10
_TEST_SHARE = 0.2

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class SiteData:
    """The data of one site: its own images, and a copy of the test set of all ten digits.

    Images are float32 of shape (count, 64), in [0, 1]; labels int64 of shape (count,).
    """

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels

    def save(self, folder: Path) -> None:
        """Make `folder` and write `data.npz` into it."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / FILE_NAME,
            x_train=self.x_train,
            y_train=self.y_train,
            x_test=self.x_test,
            y_test=self.y_test,
        )

    @classmethod
    def load(cls, folder: Path) -> SiteData:
        """Read `data.npz` from `folder`."""
        with np.load(folder / FILE_NAME, allow_pickle=False) as file:
            return cls(file["x_train"], file["y_train"], file["x_test"], file["y_test"])


def split(seed: int) -> dict[str, SiteData]:
    """Split the digits over the sites. A fifth of each digit is held out for the test set; `seed` chooses which.

    Raises `MisuseError` when scikit-learn is not installed.
    """
    images, labels = digits()
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for digit in range(CLASSES):
        of_digit = rng.permutation(np.flatnonzero(labels == digit))
        held_out[of_digit[: round(len(of_digit) * _TEST_SHARE)]] = True
    data = {}
    for name, own in SITES.items():
        at_site = ~held_out & np.isin(labels, own)
        data[name] = SiteData(images[at_site], labels[at_site], images[held_out], labels[held_out])
    return data


def digits() -> tuple[Images, Labels]:
    """All images and labels.

    Reads the file where scikit-learn keeps it, because importing scikit-learn takes longer than the training.

    Raises `MisuseError` when it is not installed.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise MisuseError(
            "the digits come with scikit-learn, which is not installed: pip install '.[demo]' in flavor's folder"
        )
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table: NDArray[Any]
    if path.is_file():
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",")
    else:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        table = np.column_stack([bunch.data, bunch.target])
    return (table[:, :PIXELS] / 16).astype(np.float32), table[:, PIXELS].astype(np.int64)
