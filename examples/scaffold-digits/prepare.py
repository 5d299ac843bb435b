"""Split scikit-learn's handwritten digits over two sites, the even and the odd ones: site1/, site2/."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32)
labels = torch.tensor(labels)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
test, train = order[:360], order[360:]

for site, remainder in {"site1": 0, "site2": 1}.items():
    own = train[labels[train] % 2 == remainder]
    Path(site).mkdir(exist_ok=True)
    dataset = {
        "train": (images[own], labels[own]),
        "test": (images[test], labels[test]),  # all ten digits, the same at every site
    }
    torch.save(dataset, f"{site}/digits.pt")
    print(f"{site}: {len(own)} images of the {'odd' if remainder else 'even'} digits")
