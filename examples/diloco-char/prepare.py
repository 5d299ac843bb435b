"""Give each of four sites a quarter of the text, and all of them one text to test on and the same first weights."""

import lzma
from pathlib import Path

import torch
from model import CharModel

SITES, HELD_OUT = 4, 20

with lzma.open("data/tragedies.txt.xz", "rt") as file:
    text = file.read()
size = len(text) // SITES
quarters = [text[size * number : size * (number + 1)] for number in range(SITES)]
kept = size - size // HELD_OUT  # the last twentieth of each quarter is for testing

for number, quarter in enumerate(quarters, start=1):
    site = Path(f"site{number}")
    site.mkdir(exist_ok=True)
    (site / "train.txt").write_text(quarter[:kept])
    (site / "test.txt").write_text("".join(other[kept:] for other in quarters))
    print(f"{site}: {kept:,} characters")

torch.manual_seed(0)
model = CharModel()
torch.save({"state_dict": model.state_dict()}, "initial.ckpt")
print(f"initial.ckpt: {sum(parameter.numel() for parameter in model.parameters()):,} parameters")
