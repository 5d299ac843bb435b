"""Draw three sites' private data: noisy, shifted pictures of digits, each site seeing mostly some of them.

    python data.py FOLDER      writes FOLDER/site-{a,b,c}/{train,test}.npz

The test set is the same everywhere and holds every digit as often, so that accuracies can be compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FONT = """
01110 00100 01110 11111 00010 11111 00110 11111 01110 01110
10001 01100 10001 00010 00110 10000 01000 00001 10001 10001
10011 00100 00001 00100 01010 11110 10000 00010 10001 10001
10101 00100 00010 00010 10010 00001 11110 00100 01110 01111
11001 00100 00100 00001 11111 00001 10001 01000 10001 00001
10001 00100 01000 10001 00010 10001 10001 01000 10001 00010
01110 01110 11111 01110 00010 01110 01110 01000 01110 01100
"""
HEIGHT, WIDTH = 9, 8
SITES = {"site-a": (range(4), 1800), "site-b": (range(3, 8), 1200), "site-c": (range(7, 10), 900)}
MOSTLY = 0.9


def glyphs() -> np.ndarray:
    """The ten digits as pictures of 7 by 5 pixels."""
    rows = [line.split() for line in FONT.split("\n") if line]
    return np.array([[[int(pixel) for pixel in row[digit]] for row in rows] for digit in range(10)], dtype=np.float32)


def drawn(digits: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A picture of each digit: somewhere in the frame, in some shade, under noise."""
    font = glyphs()
    pictures = random.normal(0.0, 0.3, (len(digits), HEIGHT, WIDTH)).astype(np.float32)
    for picture, digit in zip(pictures, digits, strict=True):
        top, left = random.integers(HEIGHT - 7 + 1), random.integers(WIDTH - 5 + 1)
        picture[top : top + 7, left : left + 5] += font[digit] * random.uniform(0.7, 1.3)
    return pictures.reshape(len(digits), -1)


def main(folder: Path) -> None:
    """Write all sites' files."""
    random = np.random.default_rng(7)
    test = np.arange(1000) % 10
    test_pictures = drawn(test, random)
    for site, (own, size) in SITES.items():
        is_own = random.random(size) < MOSTLY
        digits = np.where(is_own, random.choice(list(own), size), random.integers(10, size=size))
        home = folder / site
        home.mkdir(parents=True, exist_ok=True)
        np.savez(home / "train.npz", x=drawn(digits, random), y=digits)
        np.savez(home / "test.npz", x=test_pictures, y=test)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
