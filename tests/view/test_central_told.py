"""Each model that was judged on the operator's own data is told once, whenever its result comes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from flavor.coordinator.central import CentralEvaluations
from flavor.store.local import LocalStore
from flavor.view.evaluation_events import EvaluationClosed
from flavor.view.event import Event
from tests.driven import TOKEN, Driven


class Heard(list[Event]):
    """Remembers what it hears."""

    hear = list.append


class Jobs:
    """One worker can judge models, and no job waits."""

    def judges(self) -> int:
        return 1

    def judge(self, run: str, round_: int, *, attempt: int) -> None:
        """Take the job."""

    def waits_for_worker(self, *_: object, **__: object) -> bool:
        return False


def test_a_result_that_comes_when_the_next_model_is_about_to_be_judged_is_told_once(
    server: str, tmp_path: Path
) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True), select="central/accuracy:max", evaluate="every")
    heard, current = Heard(), SimpleNamespace(has_central_news=False, now_ms=run.runs.now_ms)
    parts: dict[str, Any] = {"jobs": Jobs(), "lease": SimpleNamespace(token=TOKEN), "observer": heard}
    central = CentralEvaluations(run.runs, run.config, cast(Any, current), **parts)
    for round_ in (1, 2, 3):
        run.open(["c1"])
        run.accept("c1", 10, {})
        run.close()
        central.begin(round_, ends=False)
        run.judge_centrally(50, {"central/accuracy": 0.5 + round_ / 10}, round_)  # after the last look
    current.has_central_news = True
    central.look()
    told = [each for each in heard if isinstance(each, EvaluationClosed)]
    assert [each.round for each in told] == [1, 2, 3]
    assert all("the best so far (--select central/accuracy:max)" in each.line for each in told)
