"""The checks of a training script: one table, in the order in which a run reaches them."""

from __future__ import annotations

from flavor.check.report import Check, Report
from flavor.checkpoints.kind import CheckpointKind

STARTS = Check(
    "starts",
    "the preprocess command, if there is one, ends with exit code 0, and the main command starts",
    "run the command by itself in this folder: it must end with exit code 0, in time",
)
READY = Check(
    "sets TrainInitDone",
    "the event is set, in time, once the script is ready to train",
    "call SetEvent('TrainInitDone') once, after loading data and building the model, before the loop",
)
WAITS = Check(
    "waits for TrainStarted",
    "each round begins with WaitEvent: nothing is written and TrainFinished is not set before TrainStarted",
    "call WaitEvent('TrainStarted') at the top of the loop, before training, in every round",
)
SAVES = Check(
    "saves a checkpoint",
    "a file is at $LOCAL_MODEL_PATH at the end of each round",
    "save the model to os.environ['LOCAL_MODEL_PATH'] in every round, before SetEvent('TrainFinished')",
)
STATE_DICT = Check(
    "has a state_dict",
    "the checkpoint is a torch, pickle, npz or safetensors file whose key state_dict is not empty",
    'save a dict with the key state_dict: torch.save({"state_dict": model.state_dict()}, path), or of scikit-learn '
    'pickle.dump({"state_dict": {"coef": model.coef_, "intercept": model.intercept_}}, file)',
)
TENSORS = Check(
    "holds only tensors",
    "everything in the state_dict is a tensor, an ndarray or a number; None and text may stand between them, and "
    "text stays at its site",
    "leave objects out of state_dict (beside it, under keys of their own, they do no harm)",
)
NO_FOLDER = (
    "the script saves a folder of safetensors shards, which a run takes and this check does not: for the check, save "
    "the model as one safetensors file"
)
"""The hint where there is no file, and a folder with shards."""
STATE_AVERAGED = (
    "state_dict has what looks like the state of an optimizer or a schedule, which is averaged with the weights, and "
    "may take part in a server step"
)
STATE_BESIDE = (
    "save it beside state_dict, where it stays at the site: "
    '{"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()} (of safetensors and npz: in a file of its '
    "own below $OUTPUT_PATH)"
)
"""What is seen, and the hint, where `state_dict` holds more than weights."""
FINITE = Check(
    "all values are finite",
    "no tensor holds NaN or infinity",
    "look for NaN in the data and at the loss: then lower the learning rate or clip gradients",
)
SHAPES = Check(
    "keeps names and shapes",
    "names, shapes and dtypes are the same in every round",
    "build the model once, before the loop, and save the same state_dict keys each time",
)
PARTS = Check(
    "shares a part of the model",
    "--share and --local, if they are given, divide the tensors into those that are shared and those that are not, "
    "and divide no tied weights",
    "give patterns that match the names of tensors, e.g. --local '*bn*'",
    if_used=True,
)
TIED = "give patterns that match both of these tensors, or neither: loaded into one model, one would replace the other"
"""The hint where the patterns divide tied weights."""
FORGOTTEN = (
    "to keep all normalisation at the site, give a pattern for the layers of these statistics as well (nn.Sequential "
    "calls its layers 0, 1, 2, so that no name says which is one)"
)
"""The hint where some normalisation layers stay at the site, and others are shared."""
TRAINS = Check(
    "changes the model",
    "what is handed in is not the global model that was handed out, unchanged",
    "save after training, not before; load the global model before training, not after; see that the learning rate "
    "is not 0",
)
SAME_AGAIN = "what was handed in is, bit for bit, what was handed in in round"
SAVE_THIS_ROUNDS = (
    "save in each round what was trained in it, not the best model of all rounds; if the training always ends at the "
    "same weights, this tells nothing"
)
"""What is seen, and the hint, where a model is handed in twice."""
INTEGERS = Check(
    "integers can be averaged",
    "no integer tensor looks like bytes, labels or the state of a random generator",
    "start the run with --keep NAME (the global model's stays) or --equal NAME (all sites must have the same)",
)
LOADS = Check(
    "trains from the global model",
    "from round two on, the model that is sent in follows the global model that was handed out",
    "after WaitEvent('TrainStarted') load os.environ['GLOBAL_MODEL_PATH'] into the model whenever the file is there; "
    "is the model loaded before WaitEvent? then it is that of an earlier round",
)
INFO = Check(
    "writes info.json",
    "a valid info.json is beside the local model at the end of each round",
    "write it with SaveInfoJson, before SetEvent('TrainFinished'); it says which field is wrong",
)
EPOCH = Check(
    "epoch goes up",
    "metadata.epoch in info.json is larger in each round than in the one before",
    'count rounds: SaveInfoJson({"metadata": {"epoch": epoch, ...}, ...}), with epoch + 1 in the next round',
)
FINISHED = Check(
    "sets TrainFinished",
    "the event is set in every round, in time, once both files are written and closed",
    "call SetEvent('TrainFinished') as the last step of every round, after saving model and info.json",
)
ENDS = Check(
    "ends",
    "after a round the script waits for the next one; after the last it ends by itself with exit code 0",
    "loop over TOTAL_ROUNDS rounds, or without end: WaitEvent then ends the script (do not catch SystemExit); a script "
    "that leaves its loop sooner, to stop early say, is missing from the run's other rounds",
)

REPORTS = Check(
    "reports its progress",
    "each call of Report (or of `flavor report`), if the script has one, gives numbers that flavor can show",
    "call Report(done, total, message, loss=0.3) with numbers; a report that cannot be made is left out, and training "
    "goes on",
    if_used=True,
)
ALGORITHM = Check(
    "calls what its algorithm needs",
    "a script that makes `proximal` or `Scaffold` of `flavor.cook` also calls it in every round",
    "docs/your-script.md shows the lines that each algorithm needs",
    if_used=True,
)
SEEDED = Check(
    "starts from the same weights",
    "started a second time without a global model, the script hands in nearly the same model in round "
    "one, because all sites must start alike",
    "set a seed before the model is built (torch.manual_seed(0), np.random.default_rng(0)), the same at every site, or "
    "start the run from one model with --init-model",
)
FROM_GLOBAL = Check(
    "starts from a global model",
    "started again when the run has a global model, the script loads it in its first pass, and trains from it",
    "create the parameters before the loop, and load os.environ['GLOBAL_MODEL_PATH'] in every pass in which the file "
    "is there: it is there in the first pass if the script is started again, or the run is resumed or has "
    "--init-model (scikit-learn creates coef_ in the first partial_fit: call it once with classes before the loop, or "
    "assign coef_, intercept_ and classes_)",
)

TRAINER_CHECKS: tuple[Check, ...] = (
    STARTS,
    READY,
    WAITS,
    SAVES,
    STATE_DICT,
    TENSORS,
    FINITE,
    INTEGERS,
    SHAPES,
    PARTS,
    TRAINS,
    LOADS,
    INFO,
    EPOCH,
    FINISHED,
    ENDS,
    REPORTS,
    ALGORITHM,
    SEEDED,
    FROM_GLOBAL,
)
CONTENT: tuple[Check, ...] = (STATE_DICT, TENSORS, FINITE, INTEGERS, SHAPES, LOADS, SEEDED)
"""The checks that are skipped for a checkpoint without tensors."""


def without_tensors(kind: CheckpointKind) -> str:
    """Return the reason to skip a check of tensors."""
    return f"the checkpoint is {kind.name}: it has no tensors to look at"


LATER: tuple[Check, ...] = (SHAPES, TRAINS, LOADS, EPOCH)
"""The checks that only a second round can decide."""
ONE_ROUND = "one round cannot show it"
"""The reason why one round leaves these unclear."""


def leave_out(report: Report, checkpoints: CheckpointKind, rounds: int, *, second_round: str) -> None:
    """Record which checks so many rounds of such checkpoints cannot make; `second_round` says how to get a second."""
    if not checkpoints.has_tensors:
        for check in CONTENT:
            report.skipped(check, without_tensors(checkpoints))
    if rounds == 1:
        for check in LATER:
            if checkpoints.has_tensors or check not in CONTENT:
                report.unclear(check, ONE_ROUND, hint=second_round)


STILL_TRAINS = f"give each step more time with --timeout-s if a round takes longer; if not, {FINISHED.hint}"
"""The hint where the time of a round is over, and the script still runs."""


def late_for_ready(limit: str, *, called: bool) -> tuple[str, str]:
    """Return the detail and the hint where a script still runs `limit` after its start, without TrainInitDone.

    `called` is whether it has called any of flavor's functions.
    """
    if called:
        return f"not set within {limit}", READY.hint
    return (
        f"still running after {limit}, without a call of SetEvent or WaitEvent: it may still import or load data",
        f"give each step more time with --timeout-s; if the script is further by then, {READY.hint}",
    )
