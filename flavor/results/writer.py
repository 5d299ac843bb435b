"""Writes the results of a run into a folder as rounds close, in a thread beside the coordinator."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.errors import InvalidSetting, RunExists, StateLost
from flavor.results.claim import check_own, names_in, owner_of
from flavor.results.folder import ResultFolder, recorded
from flavor.store.protocol import ObjectStore

_LOOK_MS = 1000
_PAUSE_S = 5.0


def make_folder(out: Path | None) -> None:
    """Make the folder for the results, if they are wanted. Raises `InvalidSetting` when it cannot be made."""
    try:
        if out is not None:
            out.mkdir(parents=True, mode=0o700, exist_ok=True)  # names and metrics of each site
    except OSError as error:
        raise InvalidSetting(f"--out {out}: {error.strerror}") from None


def check_out(runs: Callable[[], RunStore], run: str, out: Path | None, store: ObjectStore) -> None:
    """Raise `InvalidSetting` where a folder cannot take this run's results: it holds another's, or files of others.

    Redis is asked for the run only where something lies in the folder.
    """
    if out is None or (owner_of(out) is None and not names_in(out)):
        return
    found = runs()
    view = found.find()
    check_own(out, run, view, recorded(found, store, view) if view is not None else lambda _: "")


@contextlib.contextmanager
def written(
    run: str, out: Path | None, *, redis_url: str, store: ObjectStore, tell: Callable[[str], None]
) -> Iterator[None]:
    """Within it the results of `run` are written into `out`, by a thread; the last of them before it is left.

    A disk that is full, or a store that is away, is told once and tried again: the run goes on without its results.
    Raises `InvalidSetting` when the folder cannot be made.
    """
    make_folder(out)
    if out is None:
        yield
        return
    done = threading.Event()
    # quiet: the program itself says for how long it waits, which is longer
    redis = connect(redis_url, patience_s=10.0, client_name=f"flavor-results:{run}", quiet=True)
    runs, folder = RunStore(redis, run, redis_url), ResultFolder(out, tell)
    thread = threading.Thread(target=_follow, args=(runs, folder, store, tell, done), daemon=True)
    thread.start()
    is_refused = False
    try:
        yield
    except (StateLost, RunExists):  # what Redis has is not the run of this coordinator
        is_refused = True
        raise
    finally:
        done.set()
        thread.join()
        try:
            if not is_refused and runs.find() is not None:
                folder.end(runs, store)
                lacks = folder.lacks_plot()
                tell(f"results: {out}{f' ({lacks})' if lacks else ''}")
        except Exception as error:  # no error here changes how the run ended
            tell(f"the last results could not be written into {out}: {error}; the same command writes them later")
        redis.close()


def _follow(
    runs: RunStore, folder: ResultFolder, store: ObjectStore, tell: Callable[[str], None], done: threading.Event
) -> None:
    newest, told = "$", ""
    while not done.is_set():
        try:
            view = runs.find()
            if view is not None:
                folder.update(runs, store, view)
            batches = runs.redis.xread({runs.keys.log: newest}, block=_LOOK_MS, count=1000)
            newest = batches[0][1][-1][0] if batches else newest
            told = ""
        except Exception as error:  # no error here may end the run
            line = f"the results of newly closed rounds cannot be written into {folder.out} yet: {error}"
            if line != told:
                tell(line)
            told = line
            done.wait(_PAUSE_S)
