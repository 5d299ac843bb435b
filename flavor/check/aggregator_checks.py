"""The checks of an aggregator: a table for each way of starting it, in the order in which a run reaches them."""

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
WAITS = Check(
    "waits for AggregateStarted",
    "each round begins with WaitEvent: no model is written and AggregateFinished is not set before AggregateStarted",
    "call WaitEvent('AggregateStarted') at the top of the loop, before GetPaths, in every round",
)
INPUTS = Check(
    "leaves the local models alone",
    "the files at GetPaths('localModels') are what they were",
    "save to GetPaths('globalModel')[0]; the local models are the clients'",
)
WRITES = Check(
    "writes the global model",
    "a new file that is not empty is at GetPaths('globalModel')[0] at the end of each round",
    "save to GetPaths('globalModel')[0] exactly (np.savez may append .npz to a name: give it an open file)",
)
FINISHED = Check(
    "sets AggregateFinished",
    "the event is set in every round, in time, once the global model is written and closed",
    "call SetEvent('AggregateFinished') as the last step of every round, after saving the global model",
)
LOADABLE = Check(
    "is a checkpoint that can be read",
    "the global model is a torch, pickle, npz or safetensors file with tensors under the key state_dict",
    'save it under the key state_dict: torch.save({"state_dict": model}, path)',
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
INFO = Check(
    "leaves the merged info valid",
    "the file at GetPaths('globalInfo')[0] is still JSON with numbers, or lists of them, under metrics",
    "change only numbers under metrics in it, or leave it alone",
)
FOLLOWS = Check(
    "follows every local model",
    "run again with one of the local models changed, the command makes another global model, in each of its tensors",
    "read all of GetPaths('localModels'), in each round; one that picks a single model by design fails this",
)
WEIGHS = Check(
    "weighs by datasetSize",
    "each local model counts in the global one by its client's metadata.datasetSize",
    "the lists in GetPaths('globalInfo')[0] are in the order of GetPaths('localModels'); a rule that does not weigh by "
    "design (a median, say) keeps this warning",
)
ACCEPTED = Check(
    "is accepted by the trainer",
    "the trainer finishes the next round, which begins with the global model in the trainer's own format",
    "if check-fl passes, look at the values that the aggregator makes, e.g. variances below zero",
)
LIVES = Check(
    "goes on to the next round",
    "after AggregateFinished the process waits for the next round",
    "loop over WaitEvent('AggregateStarted'), aggregation, SetEvent('AggregateFinished'), or leave out --init-once",
)
ENDS = Check(
    "ends",
    "once the run is over the process ends by itself, in time, with exit code 0",
    "loop over WaitEvent, which then ends the process: do not catch SystemExit",
)

_RESULT = (LOADABLE, FINITE, SHAPES, INFO, FOLLOWS, WEIGHS, ACCEPTED)
ANEW_CHECKS: tuple[Check, ...] = (STARTS, EXITS, INPUTS, WRITES, *_RESULT)
"""The checks of an aggregator that is started in each round."""
ONCE_CHECKS: tuple[Check, ...] = (STARTS, WAITS, INPUTS, WRITES, FINISHED, *_RESULT, LIVES, ENDS)
"""The checks of an aggregator that is started once (`--init-once`)."""
CONTENT: tuple[Check, ...] = (LOADABLE, FINITE, SHAPES, WEIGHS)
"""The checks that are skipped for checkpoints without tensors."""
