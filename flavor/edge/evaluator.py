"""Runs the site's evaluator: the command that judges one model, in folders of its own."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from flavor.edge.inbox import EvaluatorEnded, Inbox
from flavor.edge.joining import Site
from flavor.edge.workspace import Workspace
from flavor.ownfolder import make_own_folder
from flavor.programs.evaluator_environment import evaluator_environment
from flavor.programs.output_log import EVALUATOR_LOG_BYTES
from flavor.programs.process import ChildProcess, obituary
from flavor.programs.relayed_environment import relayed_environment

_STOP_S = 2.0


def evaluation_folders(workspace: Workspace) -> Workspace:
    """Return the files of evaluations, below the workspace's own folder; makes the folders.

    So an evaluator neither reads nor writes what the trainer works on. The model has the format of the trainer's.
    """
    root = workspace.root / "evaluation"
    found = replace(
        workspace,
        output=root / "output",
        local_model=root / "local" / workspace.local_model.name,
        global_model=root / "global" / workspace.global_model.name,
        given={},
    )
    for folder in (found.output, found.local_model.parent, found.global_model.parent):
        make_own_folder(folder, mode=0o700)
    return found


class Evaluator:
    """One run of the evaluator's command. Its end comes as `EvaluatorEnded` into the inbox."""

    def __init__(
        self,
        site: Site,
        files: Workspace,
        inbox: Inbox,
        command: tuple[str, ...],
        round_: int,
        *,
        again: bool,
    ) -> None:
        """Start the command; `again` says that this process has done so before. Raises `CommandNotFound`, `OSError`."""
        environment = evaluator_environment(
            os.environ,
            files,
            round_=round_,
            rounds=site.run.rounds,
            run=site.config.run,
            client=site.config.client,
            settings=site.script_settings,
        )
        if site.config.relays:  # it may run on another machine, as the trainer does
            environment = relayed_environment(environment)
        self._child = ChildProcess(
            command,
            environment=environment,
            log=site.workspace.log / "evaluator.log",
            most=EVALUATOR_LOG_BYTES,
            prefix=f"[{site.config.client}] ",
            echo=sys.stdout,
            private=True,
            again=again,
            ended=lambda code: inbox.put(EvaluatorEnded(self, code)),
        )

    def stop(self) -> None:
        """End the command, and all that it has started."""
        self._child.stop(_STOP_S)

    def obituary(self, code: int) -> str:
        """One line about its end, for the site's own user."""
        return obituary("the evaluator", code, self._child.last_lines)
