"""What a site is told of the machines from which its script asks."""

from __future__ import annotations

import pytest

from flavor.edge.askers import Askers
from flavor.programs.relay_folder import Asker


@pytest.mark.parametrize(
    ("took", "nodes", "is_told"),
    [(["a"], 1, False), (["a", "b"], 2, False), (["a", "a"], 2, True), (["a"], 2, True), ([], 2, False)],
)
def test_a_script_on_more_machines_than_have_waited_is_told_once(took: list[str], nodes: int, is_told: bool) -> None:
    askers = Askers()
    askers.take(Asker("z", nodes=nodes), 1)
    for host in took:
        askers.take(Asker(host, nodes=nodes), 2)
    told = [askers.finish(Asker("a", nodes=nodes), 2) for _ in range(2)]
    assert told[1] == ""
    assert ("let every process call WaitEvent('TrainStarted')" in told[0]) is is_told
    if is_told:
        assert "the script runs on 2 machines, of which 1 waited for round 2: " in told[0]


def test_invented_machines_do_not_fill_the_log() -> None:
    askers = Askers()
    assert len([line for number in range(500) if (line := askers.greet(Asker(f"h{number}")))]) == 100
