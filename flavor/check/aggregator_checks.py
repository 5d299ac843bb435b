"""The checks of an aggregator: one table, in the order in which a run meets them."""

from __future__ import annotations

from flavor.check.report import Check

STARTS = Check(
    "starts",
    "the command can be started",
    "run the command by itself in this folder",
)
EXITS = Check(
    "ends with exit code 0",
    "started anew in each round, the command ends in time and with exit code 0",
    "let it end after one aggregation, with exit code 0",
)
WRITES = Check(
    "writes the global model",
    "a new file is at GetPaths('globalModel')[0] at the end of each round",
    "save to GetPaths('globalModel')[0] exactly (np.savez appends .npz to a name: give it an open file)",
)
LOADABLE = Check(
    "is a checkpoint like the trainers'",
    "the global model is a file of the same format as the local models, with tensors under the key state_dict",
    'save it as the trainer does, under the key state_dict: torch.save({"state_dict": model}, path)',
)
FINITE = Check(
    "all values are finite",
    "no tensor of the global model holds NaN or infinity",
    "look for a division by zero, e.g. by the sum of weights, and for sums that overflow float16",
)
SHAPES = Check(
    "keeps names and shapes",
    "names, shapes and dtypes of the global model are those of the local models",
    "write each tensor under its own name, as the shape and dtype it came in (integers too: round, then cast)",
)
FOLLOWS = Check(
    "follows every local model",
    "run again with one of the local models changed, the command makes another global model",
    "read all of GetPaths('localModels'), not the first alone; one that picks a single model by design fails this",
)
ACCEPTED = Check(
    "is accepted by the trainer",
    "the trainer finishes the next round, which begins with the global model",
    "if check-fl passes, the trainer misses something: keep the keys that its checkpoint has beside state_dict",
)
ANEW_CHECKS: tuple[Check, ...] = (STARTS, EXITS, WRITES, LOADABLE, FINITE, SHAPES, FOLLOWS, ACCEPTED)
