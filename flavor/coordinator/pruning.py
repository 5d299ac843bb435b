"""Removes what old rounds leave behind, in a thread beside the coordinator's loop, so that no round waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.asking import removing_models
from flavor.coordinator.handed_results import HandedResults
from flavor.coordinator.old_evaluations import OldEvaluations
from flavor.coordinator.removal import Removal
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.history import REPLACED
from flavor.ledger.manifest import Manifest
from flavor.store.paths import accepted_folder, client_of, global_folder, is_info, manifest_path, result_of, round_of
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import require_mounted

_KEPT_IN_REDIS = 50
"""Number of newest rounds whose hashes stay in Redis, and whose client information stays in the store.

A program that writes results while the run goes on may lag behind by so many rounds. The manifests have all rounds.
"""
_CATCH_UP = 20
"""How many rounds before the newest one to prune are looked at when a coordinator starts."""
_SWEEP_ROUNDS = 10
"""After so many rounds the folders are searched for objects that no verdict and no record names."""
_MOST_OF_A_CLIENT = 1000
"""How many objects of a client's folder are looked at each time, so that no site can delay the others.

Those that a signed record names do not count: in a bucket they stay."""
_END_S = 5.0


class Pruning:
    """Removes, in a thread of its own, what `--keep-rounds` and `--keep-globals` do not keep.

    Removes the updates of a round first, by the paths that were recorded. Removes the client information of the round
    and its keys in Redis later, once the manifest of the round is in the store. An error is reported once, and the
    removal is tried again after the next round. Objects that cannot be removed keep no others: what is left of a round
    is tried again when the folders are searched. The hashes of evaluations go with those of rounds. No global model is
    removed while a command asks for evaluations: it may have chosen that very model.
    """

    def __init__(self, runs: RunStore, store: ObjectStore, config: RunConfig, tell: Callable[[str], None]) -> None:
        self._runs, self._store, self._config, self._tell = runs, store, config, tell
        self._archive = Archive(store, runs.run)
        self._wake = threading.Condition()
        self._wanted: tuple[int, Collection[str]] | None = None
        self._closing = False
        self._evaluations = OldEvaluations(runs, store)
        self._results = HandedResults(self._archive)
        self._removal = Removal(store, runs.run, tell)
        self._pruned = 0  # the newest round whose updates are gone
        self._forgotten = 0  # the newest round whose hashes in Redis are gone
        self._swept = -_SWEEP_ROUNDS  # the round after which the folders were looked through
        self._recorded: int | None = None  # what the newest manifest that was looked at says of --keep-rounds
        self._missed: set[int] = set()  # rounds whose manifest was told to be gone
        self._told = ""
        self._thread: threading.Thread | None = None

    def after(self, closed: int, clients: Collection[str]) -> None:
        """Remove soon what is not kept after round `closed`. `clients` are all clients that were ever admitted."""
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
        """Wait for a removal that goes on, for five seconds at most."""
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
            except Exception as error:  # no error of a removal may end the rounds
                if (why := f"what old rounds left stays for now: {error}"[:500]) != self._told:
                    self._told = why
                    self._tell(why)
            else:
                self._told = ""

    def prune(self, closed: int, clients: Collection[str]) -> None:
        """Remove what is not kept after round `closed`. A second call does nothing.

        Raises `LocalFault` while the folder of the store is not mounted: nothing then counts as removed or as missing.
        """
        require_mounted(self._store, self._runs.run)
        with self._removal.apart():
            self._prune_rounds(closed, clients)
        with self._removal.apart():
            self._prune_globals(closed)

    def _prune_rounds(self, closed: int, clients: Collection[str]) -> None:
        """Remove the updates, the information and the hashes of rounds that are not kept after round `closed`."""
        mode = self._config.buffered
        if keep := self._kept_of(closed):
            still = mode.max_staleness if mode is not None else 0  # so many rounds back, tasks may still be done
            newest = closed - keep - still
            for old in range(max(self._pruned + 1, newest - _CATCH_UP, 1), newest + 1):
                self._remove_round(old, clients)
                self._pruned = old
            forgotten = closed - max(_KEPT_IN_REDIS, self._config.keep_rounds) - still
            self._forget_hashes(forgotten)
            self._evaluations.forget(forgotten)
            if newest > 0 and newest >= self._swept + _SWEEP_ROUNDS:
                self._sweep(newest, clients)
                self._swept = newest

    def _prune_globals(self, closed: int) -> None:
        """Remove the global models that are not kept after round `closed`."""
        if self._config.keep_globals:
            newest, told = closed - self._config.keep_globals, closed - max(_KEPT_IN_REDIS, self._config.keep_globals)
            with removing_models(self._runs) as may_be:  # else after a later round
                kept = self._judged_now()  # before the best, which one of them may become
                kept |= {best.round} if (best := self._runs.read().best) else set()
                if may_be:
                    self._remove_before(global_folder(self._runs.run), newest, infos=told, but=lambda: kept)

    def _judged_now(self) -> set[int]:
        """Return the rounds whose models are being judged: sites read these, and hand in results of these rounds."""
        return {round_ for round_, _ in self._runs.evaluating()}

    def _kept_of(self, closed: int) -> int:
        """Return the number of rounds whose updates are kept after round `closed`; 0 keeps the updates of all rounds.

        The number is never smaller than the one in the manifest of the round. When a run was resumed with a smaller
        --keep-rounds, the next manifest is the first one with the new number, and until then `flavor verify` would miss
        what is gone.
        """
        now = self._config.keep_rounds
        if not now or now == self._recorded:
            return now
        path = manifest_path(self._archive.run, closed)
        data = self._archive.data(closed)
        if data is None:  # not in its place yet, or removed: the next manifest says it, too
            return 0
        said = Manifest.parse(data, path).config.get("keep_rounds")
        if not isinstance(said, int):
            return now
        self._recorded = said
        return max(now, said) if said else 0

    def _remove_round(self, round_: int, clients: Collection[str]) -> None:
        """Remove the recorded updates of one round, and what its clients wrote into Redis."""
        view = self._runs.read_round(round_)
        if view is not None:
            self._removal.remove([verdict.update.object.path for verdict in view.verdicts.values() if verdict.update])
            require_mounted(self._store, self._runs.run)  # else they are still there, and only Redis names them
        self._runs.forget_round(round_, sorted(clients))

    def _forget_hashes(self, newest: int) -> None:
        """Remove the client information and the hashes of rounds up to `newest` whose manifests are in the store."""
        for old in range(max(self._forgotten + 1, newest - _CATCH_UP, 1), newest + 1):
            if not self._is_recorded(old):
                return
            if (view := self._runs.read_round(old)) is not None:
                self._removal.remove(
                    [
                        path
                        for verdict in view.verdicts.values()
                        if verdict.update and (path := verdict.update.info.path)
                    ]
                )
            self._runs.forget_round(old, (), whole=True)
            self._forgotten = old

    def _is_recorded(self, round_: int) -> bool:
        """Whether the manifest in the store is the one that Redis knows; put it back in its place where it is not.

        Once the hash in Redis is removed, nothing else can distinguish this manifest from another signed one.
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
        """Remove objects that no verdict and no record names: those refused, late, or never handed in.

        What sites hand in for an evaluation that is open stays, however old the round of its model is.
        """
        infos = min(newest, self._forgotten)
        with self._removal.apart():
            self._remove_before(accepted_folder(self._runs.run), newest, infos=infos)
        handed_in = list[str]()
        for client in clients:
            with self._removal.apart(client):
                found = self._results.listed(client, most=_MOST_OF_A_CLIENT)
                results = [path for path in found if (of := result_of(path)) is not None and of[1] <= newest]
                others = set(found).difference(results)
                self._removal.remove([path for path in sorted(others) if _is_of_rounds(path, newest, infos)])
                handed_in += results
        unnamed = self._results.unnamed(handed_in, but=self._runs.evaluating())
        for client in clients:
            with self._removal.apart(client):
                self._removal.remove([path for path in unnamed if client_of(path) == client])

    def _remove_before(
        self, folder: str, newest: int, *, infos: int, but: Callable[[], Collection[int]] = tuple
    ) -> None:
        """Remove the objects of rounds 1 to `newest` from a folder, and client information of rounds 1 to `infos`.

        The objects of the rounds `but` stay, which are asked for after the folder was listed.
        """
        found = list(self._store.list(folder))
        stay = but()
        self._removal.remove(
            [path for path in found if round_of(path) not in stay and _is_of_rounds(path, newest, infos)]
        )


def _is_of_rounds(path: str, newest: int, infos: int) -> bool:
    """Whether an object is of the rounds 1 to `newest`, and information of the rounds 1 to `infos`."""
    return 0 < round_of(path) <= (infos if is_info(path) else newest)
