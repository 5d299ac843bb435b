"""Train a small model on plays by Shakespeare, and give it to three sites with other plays and one text to test on."""

import lzma
import sys
from pathlib import Path

import torch
from model import batch, encoded, loss_of, new_model

PARTS = 8  # about a play each
OF_SITES = {"site1": 5, "site2": 6, "site3": 7}
STEPS, HELD_OUT = 400, 20

with lzma.open(*sys.argv[1:] or ["../diloco-char/data/tragedies.txt.xz"], "rt") as file:
    text = file.read()
size = len(text) // PARTS
parts = [text[size * number : size * (number + 1)] for number in range(PARTS)]
kept = size - size // HELD_OUT  # the last twentieth of each site's part is for testing

torch.set_num_threads(1)
torch.manual_seed(0)
model = new_model()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
generator = torch.Generator().manual_seed(1)
learned = encoded("".join(parts[:2]))
for step in range(STEPS):
    optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 50) * (1 - step / STEPS)
    optimizer.zero_grad()
    loss = loss_of(model, batch(learned, 16, generator))
    loss.backward()
    optimizer.step()
    if step % 100 == 99:
        print(f"step {step + 1} of {STEPS}: loss {loss.item():.3f}")

for site, number in OF_SITES.items():
    folder = Path(site)
    folder.mkdir(exist_ok=True)
    (folder / "train.txt").write_text(parts[number][:kept])
    (folder / "test.txt").write_text("".join(parts[other][kept:] for other in OF_SITES.values()))
    model.save_pretrained(folder / "base")  # a site's copy of the frozen model, which never crosses the network
    print(f"{folder}: {kept:,} characters, and the frozen model")
