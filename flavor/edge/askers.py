"""The machines and jobs from which the script of one start asks its edge, and what its site is told of them."""

from __future__ import annotations

from flavor.counted import counted
from flavor.printable import printable
from flavor.programs.relay_folder import Asker

_MOST = 100
"""So many are told: a script can invent any number."""


class Askers:
    """Notes from where a script asks. Each method returns a line for this site's user, or ''."""

    def __init__(self) -> None:
        self._known: set[Asker] = set()
        self._round = 0
        self._hosts: set[str] = set()  # which have taken up that round
        self._is_told = False

    @property
    def are_known(self) -> bool:
        """Whether the script has asked for anything."""
        return bool(self._known)

    def greet(self, asker: Asker) -> str:
        """Return where the script runs, once for each machine and start of its job."""
        if asker in self._known or len(self._known) >= _MOST:
            return ""
        self._known.add(asker)
        job = f", in Slurm's job {asker.job}" if asker.job else ""
        times = f", which Slurm has started again (restart {asker.restarts})" if asker.restarts not in ("", "0") else ""
        return printable(f"the script runs on {asker.host}{job}{times}")

    def take(self, asker: Asker, round_: int) -> None:
        """Note that a process on this machine has taken up this round, and sees its files."""
        if round_ != self._round:
            self._round, self._hosts = round_, set()
        if len(self._hosts) < _MOST:
            self._hosts.add(asker.host)

    def finish(self, asker: Asker, round_: int) -> str:
        """Return a warning, once, if the script has trained this round on more machines than have taken it up."""
        took = len(self._hosts) if round_ == self._round else 0
        if self._is_told or not 0 < took < min(asker.nodes, _MOST):
            return ""
        self._is_told = True
        return (
            f"the script runs on {counted(asker.nodes, 'machine')}, of which {took} waited for round {round_}: on NFS "
            "the others may have loaded the global model of an earlier round, or none: let every process call "
            "WaitEvent('TrainStarted'), as 'Train on two nodes' in docs/slurm.md shows"
        )
