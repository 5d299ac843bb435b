"""The trainer of `uneven.py`: trains one of its tasks, and waits until the round has taken a given time."""

from __future__ import annotations

import os
import pickle
import sys
import time
from pathlib import Path

from uneven_tasks import TASKS

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent


def main(task: str, waits_s: str, seed: int) -> None:
    """Train in each round. `waits_s` are seconds of a round at each site, by commas; the first model is given."""
    number = int(os.environ["FLAVOR_CLIENT"].removeprefix("site")) - 1
    whole_s, site = float(waits_s.split(",")[number]), TASKS[task].site(number, seed)
    SetEvent("TrainInitDone")
    while True:
        round_ = WaitEvent("TrainStarted")
        begun = time.monotonic()
        model = site.trained(pickle.loads(Path(os.environ["GLOBAL_MODEL_PATH"]).read_bytes())["state_dict"])
        time.sleep(max(0.0, whole_s - (time.monotonic() - begun)))
        Path(os.environ["LOCAL_MODEL_PATH"]).write_bytes(pickle.dumps({"state_dict": model}))
        counts = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
        metadata = {"epoch": round_, "datasetSize": site.num_examples, "importance": 1.0}
        SaveInfoJson({"metadata": metadata, "metrics": counts})
        SetEvent("TrainFinished")


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
