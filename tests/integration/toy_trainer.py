"""A trainer that learns nothing but whose result is known: each round adds i to every weight of client i.

The client's i is the number at the end of its name. Flags make it misbehave at a chosen point, or hold there
until the test lets it go.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flavor.cook import utils
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

CLIENT = os.environ["FLAVOR_CLIENT"]
I = int("".join(c for c in CLIENT if c.isdigit()) or 1)  # noqa: E741


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", default="total", help="total, endless or a number; CLIENT:number for one client")
    parser.add_argument("--format", default="pickle", help="or that of each client: CLIENT:FORMAT,CLIENT:FORMAT")
    parser.add_argument("--only", default=CLIENT, help="the client that misbehaves")
    parser.add_argument("--fail", default="", help="how it fails; several, by commas: one a round from then on")
    parser.add_argument(
        "--at", type=int, default=2, help="the round in which it fails or holds; 0 before TrainInitDone"
    )
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--gate", default="", help="a FIFO to hold at instead, which needs no server")
    parser.add_argument(
        "--where", default="started", help="where in the round it holds: waiting, started, saved (before TrainFinished)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads that set TrainFinished at once")
    parser.add_argument("--elements", type=int, default=6, help="numbers in the weights")
    parser.add_argument("--own", type=float, default=0, help="the number with which the biases begin")
    parser.add_argument("--early", action="store_true", help="save the initial model before TrainInitDone")
    parser.add_argument("--twice", action="store_true", help="set every event twice")
    parser.add_argument("--say", default="")
    parser.add_argument("--report", default="", help="a message that it reports at the beginning of each round")
    options = parser.parse_args()
    if ":" in options.format:
        options.format = dict(pair.split(":") for pair in options.format.split(","))[CLIENT]
    return options


def acknowledged(event: str, round_: int) -> None:
    """Note, outside of Redis, that the server has taken an event: what a checker holds against what Redis knows."""
    with open(Path(os.environ["OUTPUT_PATH"]) / "acknowledged", "a") as journal:
        journal.write(f"{round_} {event}\n")


def hold(gate: str) -> None:
    if gate:
        with open(gate) as fifo:  # until somebody opens it for writing
            fifo.read()  # until they close it
        return
    from flavor.bus.connection import connect

    bus = connect(os.environ.get("TEST_BUS") or os.environ["FLAVOR_REDIS_URL"])  # the client's own user may not
    prefix = f"test:{os.environ['FLAVOR_RUN']}:{CLIENT}"
    bus.rpush(f"{prefix}:here", "1")
    bus.blpop([f"{prefix}:go"])
    bus.close()


def at_once(threads: int, call: Callable[[], None]) -> None:
    """Call it from so many threads at the same time."""
    ready = threading.Barrier(threads)

    def run() -> None:
        ready.wait()
        call()

    if threads == 1:
        call()
        return
    started = [threading.Thread(target=run) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


class Hostile:
    def __reduce__(self):
        return (os.system, (f"touch {os.environ['OUTPUT_PATH']}/owned",))


def fail(how: str) -> None:
    """The failures that end the process; those of what it writes are in `spoiled`."""
    match how:
        case "exit3":
            print("cannot read the data set", file=sys.stderr)
            sys.exit(3)
        case "silent":
            os._exit(7)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "flood":
            sys.stderr.write("noise " * 20 + "\n" + ("x" * 99 + "\n") * 10_000 + "the last words\n")
            sys.exit(1)
        case "flood-one-line":
            sys.stderr.write("y" * 1_000_000)
            sys.exit(1)
        case "exit0":
            sys.exit(0)
        case "hang":
            signal.pause()


def load() -> dict[str, np.ndarray] | None:
    path = Path(os.environ["GLOBAL_MODEL_PATH"])
    if not path.exists():
        return None
    if path.read_bytes()[:2] == b"PK":
        with np.load(path) as file:
            return {name: file[name] for name in file}
    if path.read_bytes()[8:9] == b"{":
        from safetensors.numpy import load_file

        return {name: array.copy() for name, array in load_file(path).items()}
    with path.open("rb") as file:
        return pickle.load(file)["state_dict"]


def save(state: object, format_: str) -> None:
    path = os.environ["LOCAL_MODEL_PATH"]
    if format_ == "npz":
        with open(path, "wb") as file:
            np.savez(file, **state)
    elif format_ == "safetensors":
        from safetensors.numpy import save_file

        save_file(state, path)
    else:
        with open(path, "wb") as file:
            pickle.dump(state if format_ == "bare" else {"state_dict": state}, file)


def spoiled(how: str, state: dict, info: dict) -> None:
    """Write what must be refused."""
    path = Path(os.environ["LOCAL_MODEL_PATH"])
    match how:
        case "no-checkpoint":
            SaveInfoJson(info)
            return
        case "npz-suffix":
            np.savez(str(path), **state)
        case "unread" | "unread-then-read":
            save(state, "pickle")
        case "no-state-dict":
            save({"weights": state}, "bare")
        case "nan":
            state["w"][0, 0] = np.nan
            save(state, "pickle")
        case "shape":
            save({**state, "w": np.zeros((7, 2), np.float32)}, "pickle")
        case "missing-tensor":
            save({"w": state["w"]}, "pickle")
        case "dtype":
            save({**state, "b": state["b"].astype(np.float64)}, "pickle")
        case "object-array":
            save({**state, "b": np.array([{}, None], dtype=object)}, "pickle")
        case "hostile":
            save({**state, "b": Hostile()}, "pickle")
        case "bomb":
            import zipfile

            packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)  # zlib's own level takes longer
            with packed, packed.open("w.npy", "w") as entry:
                np.lib.format.write_array(entry, np.zeros(10_000_000))
        case "entries":
            tensor = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
            text = ("{" + ", ".join(f'"t{i}": {tensor}' for i in range(100_001)) + "}").encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text)
        case "garbage":
            path.write_bytes(b"not a checkpoint at all")
        case "no-info":
            save(state, "pickle")
            return
        case "half-info":
            save(state, "pickle")
            (path.parent / "info.json").write_text('{"metadata": {"epoch": 1, "datas')
            return
        case "info-fields":
            save(state, "pickle")
            (path.parent / "info.json").write_text('{"metadata": {"epoch": 1}, "metrics": {}}')
            return
        case "huge" | "far":
            state["w"][0, 0] = -3.4e38 if how == "huge" else 1e30
            info["metadata"]["datasetSize"] = 10**12
            save(state, "pickle")
        case "info-nan":
            save(state, "pickle")
            try:
                SaveInfoJson({**info, "metrics": {**info["metrics"], "loss": "nan"}})
            finally:
                print("earlier info:", (path.parent / "info.json").exists())
        case "no-examples":
            save(state, "pickle")
            info["metadata"]["datasetSize"] = 0
        case "bad-event":
            SetEvent("TrainFinnished")
        case "error-event":
            SetEvent("Error")
            time.sleep(60)
    SaveInfoJson(info)


def read_at_finish() -> None:
    """Read the global model at once after the mark of TrainFinished, as the next pass of a script does."""
    events = utils._Session.current().events

    def setting(event: str, round_: int, set_: Callable[[str, int], None] = events.set) -> None:
        if event == "TrainFinished":
            load()
        set_(event, round_)

    events.set = setting


def main() -> None:
    options = parsed()
    limit = options.rounds
    if ":" in limit:
        client, _, number = limit.partition(":")
        limit = number if client == CLIENT else "endless"
    rounds = {"total": int(os.environ["TOTAL_ROUNDS"]), "endless": 10**9}.get(limit) or int(limit)
    times = 2 if options.twice else 1
    misbehaves = options.only == CLIENT
    holds = misbehaves and (options.hold or options.gate)

    def held_at(where: str, round_: int) -> None:
        if holds and where == options.where and round_ == options.at:
            hold(options.gate)

    failures = options.fail.split(",")
    if misbehaves and "unread-then-read" in failures:
        read_at_finish()
    if options.say:
        print(options.say)
        print(options.say, file=sys.stderr)
    if misbehaves and options.at == 0:
        if holds:
            hold(options.gate)
        fail(options.fail)
    state = {"w": np.zeros((options.elements // 2, 2), np.float32), "b": np.full(4, options.own, np.float32)}
    if options.early:
        save(state, options.format)
    for _ in range(times):
        SetEvent("TrainInitDone")
        acknowledged("TrainInitDone", 0)
    for i in range(rounds):
        held_at("waiting", i + 1)
        number = WaitEvent("TrainStarted")
        state = (None if misbehaves and failures[0].startswith("unread") else load()) or state
        print(f"round {number} starts from {float(state['w'][0, 0]):.4f}")
        if options.report:
            utils.Report(3, 10, options.report, loss=0.25)
        held_at("started", number)
        how = ""
        if misbehaves and 0 <= number - options.at < len(failures):
            how = failures[number - options.at]
            fail(how)
        for name in state:
            state[name] = state[name] + np.float32(I)
        info = {
            "metadata": {"epoch": 100 * I + number, "datasetSize": 10 * I, "importance": 1.0},
            "metrics": {
                **{f"basic/confusion_{cell}": I for cell in ("tp", "fp", "fn", "tn")},
                "accuracy": 0.1 * I + number,
                **({"rare": 5.0} if I == 1 else {}),
            },
        }
        if how:
            spoiled(how, state, info)
        else:
            save(state, options.format)
            SaveInfoJson(info)
        held_at("saved", number)
        for _ in range(times):
            at_once(options.threads, lambda: SetEvent("TrainFinished"))
            acknowledged("TrainFinished", number)


main()
