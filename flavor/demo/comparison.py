"""Compares each site's own model with the global one, on the same test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from flavor.checkpoints import read
from flavor.demo.data import CLASSES, SITES, SiteData
from flavor.demo.model import evaluated
from flavor.demo.trainer import alone

_BAR = 25


@dataclass(frozen=True)
class Comparison:
    """The accuracy of each model (the share of the test set it labels correctly), and the numbers of images."""

    federated: float
    alone: dict[str, float]
    images: dict[str, int]
    tested: int

    @classmethod
    def measure(cls, data: Mapping[str, SiteData], global_model: Path, *, rounds: int, seed: int) -> Comparison:
        """Train each site alone for as many steps as it had in the run, and test all models."""
        test = next(iter(data.values()))
        federated, _ = evaluated(read(global_model).tensors, test.x_test, test.y_test)
        own = {
            name: evaluated(alone(site, rounds=rounds, seed=seed), test.x_test, test.y_test)[0]
            for name, site in data.items()
        }
        sizes = {name: len(site.y_train) for name, site in data.items()}
        return cls(federated, own, sizes, len(test.y_test))

    def table(self) -> Table:
        """A table for a terminal."""
        title = f"\nAccuracy on {self.tested} held-out images of all ten digits"
        table = Table(title=title, title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("")
        table.add_column("learns from")
        table.add_column("images", justify="right")
        table.add_column("accuracy")
        for name, accuracy in self.alone.items():
            row = (f"{name} alone", " ".join(map(str, SITES[name])), f"{self.images[name]}")
            table.add_row(*row, _bar(accuracy, "yellow"))
        everything = (" ".join(map(str, range(CLASSES))), f"{sum(self.images.values())}")
        table.add_row(Text("federated", style="bold"), *everything, _bar(self.federated, "green"))
        return table

    def conclusion(self) -> str:
        """The result in one sentence."""
        best = max(self.alone.values())
        if self.federated <= best:
            return (
                f"After so few rounds the global model ({self.federated:.1%}) is not better than the best "
                f"site alone ({best:.1%}): give it more --rounds."
            )
        return (
            f"Alone, no site gets beyond {best:.1%}, because it has never seen the other sites' digits; "
            f"together, and with no image leaving its site, they have a model that gets {self.federated:.1%}."
        )

    def to_mapping(self) -> dict[str, float | dict[str, float]]:
        """The numbers as plain JSON values."""
        return {"global": self.federated, "alone": self.alone}


def _bar(share: float, colour: str) -> Text:
    return Text.assemble(f"{share:6.1%}  ", ("█" * round(share * _BAR), colour))
