"""What old rounds leave behind, removed beside the coordinator's loop: it holds up no round, and ends no run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.history import REPLACED
from flavor.ledger.manifest import Manifest
from flavor.store.paths import accepted_folder, client_folder, global_folder, is_info, manifest_path, round_of
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import require_mounted

_KEPT_IN_REDIS = 50
"""Rounds whose hashes stay in Redis, and whose information stays in the store, for those who follow the run.

Its manifests have all rounds. Information is small, and whoever writes the results must not be faster than the rounds.
"""
_CATCH_UP = 20
"""Rounds before the first to prune that are looked at when a coordinator starts."""
_SWEEP_ROUNDS = 10
"""So often the folders themselves are looked through, for what no verdict names."""
_MOST_OF_A_CLIENT = 1000
"""Objects that are looked at in a client's folder each time: what a site leaves there must not hold anybody up."""
_END_S = 5.0


class Pruning:
    """Removes, in a thread of its own, what `--keep-rounds` and `--keep-globals` do not keep.

    Of each round its updates, by the paths that were recorded; later its information and its keys in Redis, once its
    manifest is in the store. What goes wrong is told once, and tried again after the next round.
    """

    def __init__(self, runs: RunStore, store: ObjectStore, config: RunConfig, tell: Callable[[str], None]) -> None:
        self._runs, self._store, self._config, self._tell = runs, store, config, tell
        self._archive = Archive(store, runs.run)
        self._wake = threading.Condition()
        self._wanted: tuple[int, Collection[str]] | None = None
        self._closing = False
        self._pruned = 0  # the newest round whose updates are gone
        self._forgotten = 0  # the newest round whose hashes in Redis are gone
        self._swept = -_SWEEP_ROUNDS  # the round after which the folders were looked through
        self._recorded: int | None = None  # what the newest manifest that was looked at says of --keep-rounds
        self._missed: set[int] = set()  # rounds whose manifest was told to be gone
        self._told = ""
        self._thread: threading.Thread | None = None

    def after(self, closed: int, clients: Collection[str]) -> None:
        """Round `closed` is closed: what is older than what is kept may go, soon. `clients` are all there ever were."""
        if not (self._config.keep_rounds or self._config.keep_globals):
            return
        with self._wake:
            self._wanted = (closed, tuple(clients))
            self._wake.notify()
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="pruning", daemon=True)
            thread.start()  # a signal may end this process in here, and one that has not started cannot be joined
            self._thread = thread

    def close(self) -> None:
        """Finish what was asked for, if that does not take long."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(_END_S)

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._wanted or self._closing)
                wanted, self._wanted = self._wanted, None
            if wanted is None:
                return
            try:
                self.prune(*wanted)
            except Exception as error:  # whatever it is, the rounds go on
                if (why := f"what old rounds left stays for now: {error}"[:500]) != self._told:
                    self._told = why
                    self._tell(why)
            else:
                self._told = ""

    def prune(self, closed: int, clients: Collection[str]) -> None:
        """Remove what is not kept after round `closed`. Doing it again does nothing.

        Raises `LocalFault`, and what was not removed is told to be neither gone nor missing, while a folder store is
        not mounted.
        """
        require_mounted(self._store, self._runs.run)
        if keep := self._kept_of(closed):
            newest = closed - keep
            for old in range(max(self._pruned + 1, newest - _CATCH_UP, 1), newest + 1):
                self._remove_round(old, clients)
                self._pruned = old
            self._forget_hashes(closed)
            if newest > 0 and newest >= self._swept + _SWEEP_ROUNDS:
                self._sweep(newest, clients)
                self._swept = newest
        if self._config.keep_globals:
            newest, told = closed - self._config.keep_globals, closed - max(_KEPT_IN_REDIS, self._config.keep_globals)
            self._remove_before(global_folder(self._runs.run), newest, infos=told)

    def _kept_of(self, closed: int) -> int:
        """Rounds whose updates are kept after round `closed`; 0 for all.

        No fewer than its manifest says: of a run that was resumed to keep fewer, the next manifest is the first to say
        so, and until then `flavor verify` would miss what is gone.
        """
        now = self._config.keep_rounds
        if not now or now == self._recorded:
            return now
        path = manifest_path(self._archive.run, closed)
        data = self._archive.data(closed)
        if data is None:  # not in its place yet, or removed: what it says is not known, and the next one says it, too
            return 0
        said = Manifest.parse(data, path).config.get("keep_rounds")
        if not isinstance(said, int):
            return now
        self._recorded = said
        return max(now, said) if said else 0

    def _remove_round(self, round_: int, clients: Collection[str]) -> None:
        """The updates that were recorded of one round, and what its clients wrote into Redis."""
        view = self._runs.read_round(round_)
        if view is not None:
            self._store.delete([verdict.update.object.path for verdict in view.verdicts.values() if verdict.update])
            require_mounted(self._store, self._runs.run)  # else they are still there, and Redis alone names them
        self._runs.forget_round(round_, sorted(clients))

    def _forget_hashes(self, closed: int) -> None:
        """The information and the hashes of rounds long closed, if the store has them as manifests."""
        newest = closed - max(_KEPT_IN_REDIS, self._config.keep_rounds)
        for old in range(max(self._forgotten + 1, newest - _CATCH_UP, 1), newest + 1):
            if not self._is_recorded(old):
                return
            if (view := self._runs.read_round(old)) is not None:
                self._store.delete(
                    [
                        path
                        for verdict in view.verdicts.values()
                        if verdict.update and (path := verdict.update.info.path)
                    ]
                )
            self._runs.forget_round(old, (), whole=True)
            self._forgotten = old

    def _is_recorded(self, round_: int) -> bool:
        """Whether the manifest in the store is the one that Redis knows, and if need be put it in its place again.

        Without the hash in Redis nothing tells it from another that is signed, or that it was ever there.
        """
        view = self._runs.read_round(round_)
        if view is None or view.manifest is None:
            return self._archive.has(round_)
        digest, path = view.manifest.digest, manifest_path(self._archive.run, round_)
        data = self._archive.read_any(round_)
        if data is not None and sha256(data) == digest:
            return True
        require_mounted(self._store, self._runs.run)
        what = (
            REPLACED.format(round_, path) if data is not None else f"round {round_}: {path} was removed from the store"
        )
        done = self._archive.put_back(round_, digest)
        if done or round_ not in self._missed:
            self._tell(
                f"{what}; it is put back"
                if done
                else f"{what}, and what its aggregator staged is gone, too: put it back from a backup of the store; "
                "until then this round and those after it stay in Redis"
            )
        self._missed.add(round_)
        return done

    def _sweep(self, newest: int, clients: Collection[str]) -> None:
        """What no verdict names: refused, late, or never handed in."""
        infos = min(newest, self._forgotten)
        self._remove_before(accepted_folder(self._runs.run), newest, infos=infos)
        for client in clients:
            self._remove_before(client_folder(self._runs.run, client), newest, infos=infos, most=_MOST_OF_A_CLIENT)

    def _remove_before(self, folder: str, newest: int, *, infos: int, most: int | None = None) -> None:
        """The objects of rounds 1 to `newest` that lie in a folder; information of rounds 1 to `infos` alone."""
        self._store.delete(
            [
                path
                for path in self._store.list(folder, most=most)
                if 0 < round_of(path) <= (infos if is_info(path) else newest)
            ]
        )
