"""What an edge says at the end of a run whose final global model it cannot place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flavor.edge.ending import Ending
from flavor.errors import InvalidUpdate, NotDivided, StoreError, StoreUnavailable
from flavor.records.states import RunState


@pytest.mark.parametrize(
    "error",
    [
        NotDivided("it has none of the other tensors", told="it has none"),  # a site that has never trained
        StoreUnavailable("it does not answer", passing=True),
    ],
)
def test_the_reason_is_one_line_of_the_same_error(error: InvalidUpdate | StoreError) -> None:
    def fails(_: object) -> None:
        raise error

    workspace = SimpleNamespace(global_model="/site/global/model")
    site: Any = SimpleNamespace(config=SimpleNamespace(run="mammo"), workspace=workspace)
    trainer: Any = SimpleNamespace(end_with_run=lambda: 0)
    transfers: Any = SimpleNamespace(carry=fails)
    ending = Ending(site, Any, trainer, transfers=transfers, models=Any)  # type: ignore[arg-type]
    with pytest.raises(type(error)) as found:
        ending.follow(SimpleNamespace(state=RunState.FINISHED))  # type: ignore[arg-type]
    assert str(found.value) == (
        "run 'mammo' is finished, and its final global model could not be placed at /site/global/model, which holds "
        f"the one before, if any: {error}"
    )
    assert vars(found.value) == vars(error)
