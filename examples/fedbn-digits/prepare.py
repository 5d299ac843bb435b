"""Give each of three sites a third of scikit-learn's handwritten digits, as its own scanner shows them: site1/, …"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits

SCANNERS = {"site1": (1.0, 0.0), "site2": (0.5, 0.4), "site3": (1.5, -0.2)}  # contrast and brightness

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32)
labels = torch.tensor(labels)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))

for (site, (contrast, brightness)), rows in zip(SCANNERS.items(), order.tensor_split(3), strict=True):
    seen = contrast * images[rows] + brightness
    Path(site).mkdir(exist_ok=True)
    dataset = {
        "train": (seen[:-120], labels[rows[:-120]]),
        "test": (seen[-120:], labels[rows[-120:]]),  # the site's own images, as those that it will judge
    }
    torch.save(dataset, f"{site}/digits.pt")
    print(f"{site}: {len(rows)} images, contrast {contrast}, brightness {brightness}, mean {seen.mean():.2f}")
