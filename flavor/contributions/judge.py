"""Judge one model by a command of the operator's on this machine. `by_sites` has the sites of the run judge."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from flavor.checkpoints.format import Format
from flavor.checkpoints.kind import CheckpointKind
from flavor.edge.workspace import Workspace
from flavor.errors import EvaluatorFailed, InvalidInfo
from flavor.policy.selection import Select, lacking, names_in, value_of
from flavor.programs.evaluator_environment import evaluator_environment
from flavor.programs.output_log import EVALUATOR_LOG_BYTES
from flavor.programs.process import ChildProcess, obituary
from flavor.programs.result_file import clear_result, read_measured
from flavor.records.evaluation import EvaluationSummary
from flavor.records.lacking import lacking_of
from flavor.records.merging import WEIGHTED, merge_infos
from flavor.records.not_finite import not_finite_of

CLIENT = "operator"
"""The evaluator's FLAVOR_CLIENT: it must not learn which site a model lacks."""
_STOP_S = 2.0


class ModelJudge(Protocol):
    """Measures a metric of models."""

    def value(self, model: Path, *, round_: int, format_: str) -> float:
        """Return the metric of a model, a file of the wire, which round `round_` has made or would have made.

        `format_` is the format in which scripts read it. Raises `EvaluatorFailed`.
        """


@dataclass(frozen=True)
class CommandJudge:
    """Runs the operator's command once for each model, in folders of its own below `folder`."""

    command: Sequence[str]
    input: Path
    folder: Path
    run: str
    rounds: int
    settings: Mapping[str, str]
    kind: CheckpointKind
    select: Select
    """The metric by the name that the command uses."""
    option: str
    """The option that names it, with its value, for messages."""

    def value(self, model: Path, *, round_: int, format_: str) -> float:
        """See `ModelJudge`."""
        files = Workspace.prepare(
            self.folder,
            environment={},
            input_path=self.input,
            format_=format_ if format_ in set(Format) else None,
            otherwise="pass --input",
        )
        files.clear_local()
        clear_result(files.output)
        files.global_model.unlink(missing_ok=True)
        self.kind.from_wire(model, files.global_model, format_)
        child = ChildProcess(
            self.command,
            environment=evaluator_environment(
                os.environ,
                files,
                round_=round_,
                rounds=self.rounds,
                run=self.run,
                client=CLIENT,
                settings=self.settings,
            ),
            log=files.log / "evaluator.log",
            most=EVALUATOR_LOG_BYTES,
            private=True,
        )
        try:
            code = child.wait()
        finally:
            child.stop(_STOP_S)  # what it has left behind, or all of it at Ctrl-C
        if code != 0:
            raise EvaluatorFailed(obituary("the command of -e", code or 0, child.last_lines))
        try:
            info, _ = read_measured(files.output, files.local_info, round_)
        except InvalidInfo as error:
            raise EvaluatorFailed(f"the command of -e has measured nothing that can be used: {error}") from None
        finally:
            files.global_model.unlink(missing_ok=True)
        merged = merge_infos([CLIENT], [info])["metrics"]
        metrics = {name: value for name, value in merged.items() if isinstance(value, int | float)}
        spread = {name: (value, value) for name, value in metrics.items() if not name.endswith(WEIGHTED)}
        summary = EvaluationSummary(round=round_, number=0, opened_ms=0, sites=1, metrics=metrics, spread=spread)
        odd = {CLIENT: not_finite_of(info)}
        summary = replace(summary, lacking=lacking_of(names_in([self.select]), {CLIENT: info["metrics"]}, {}, odd=odd))
        found = value_of(self.select.name, summary, is_larger=self.select.is_larger)
        if found is None:
            raise EvaluatorFailed(f"{self.option}: {lacking(self.select.name, summary)}")
        return found[0]
