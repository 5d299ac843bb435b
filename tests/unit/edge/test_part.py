"""A site's part in its run: which moves are legal from where, and what follows from each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flavor.edge.part import MOVES, Judgement, Move, Part, Phase
from flavor.errors import IllegalMove
from flavor.records.objects import ObjectRef
from flavor.records.update import Refused
from tests.recorded import accepted as accepted_update

BASE = ObjectRef("runs/r/global/0001-model", "d" * 64)

PARTS = {
    Phase.STARTING: Part(),
    Phase.IDLE: Part().got_ready(),
    Phase.WORKING: Part().got_ready().began(2, base=BASE),
    Phase.LEFT: Part().got_ready().left(),
}
DONE: dict[Move, Callable[[Part], Part]] = {
    Move.GET_READY: Part.got_ready,
    Move.BEGIN: lambda part: part.began(2, base=BASE),
    Move.FINISH: lambda part: part.finished(2),
    Move.SKIP: lambda part: part.skipped(2),
    Move.LEAVE: Part.left,
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("move", Move)
def test_every_move_does_what_the_table_says_and_no_other_is_made(phase: Phase, move: Move) -> None:
    assert PARTS[phase].phase is phase
    if (phase, move) not in MOVES:
        with pytest.raises(IllegalMove, match=f"cannot {move}: it is {phase}"):
            DONE[move](PARTS[phase])
        return
    after = DONE[move](PARTS[phase])
    assert after.phase is MOVES[phase, move]
    assert bool(after.round) is (after.phase is Phase.WORKING), (
        "a round is in hand while the trainer works, and only then"
    )


def test_a_site_that_has_left_moves_no_more() -> None:
    assert not any(phase is Phase.LEFT for phase, _ in MOVES)


def test_a_round_s_way() -> None:
    part = Part().got_ready().heard_of(1)
    assert part.may_begin
    part = part.began(1, base=BASE)
    assert (part.round, part.base, part.may_begin, part.is_ready) == (1, BASE, False, True)
    part = part.heard_of(2).heard_of(1)
    assert (part.newest, part.may_begin) == (2, False), "the trainer is in the round before"
    part = part.finished(1)
    assert (part.round, part.behind, part.may_begin) == (0, 1, True)
    part = part.skipped(2)
    assert (part.behind, part.may_begin) == (2, False)


def test_only_the_round_in_hand_is_finished() -> None:
    with pytest.raises(IllegalMove, match="in round 2, and not in round 1"):
        PARTS[Phase.WORKING].finished(1)


def test_a_round_that_an_earlier_process_trained_is_finished_before_the_trainer_is_ready() -> None:
    part = Part().finished(3)
    assert (part.phase, part.behind) == (Phase.STARTING, 3)
    assert not part.heard_of(4).may_begin
    assert part.heard_of(4).got_ready().may_begin


def test_a_trainer_that_waits_without_having_finished_its_round_is_stalled_in_that_round_alone() -> None:
    part = PARTS[Phase.WORKING]
    assert part.stalled == 0
    assert part.waits_without_finishing(1).stalled == 0
    stalled = part.waits_without_finishing(2)
    assert stalled.stalled == 2
    assert stalled.finished(2).stalled == 0
    assert stalled.finished(2).began(3, base=None).stalled == 0


def test_what_becomes_of_an_update() -> None:
    part = PARTS[Phase.IDLE].heard_of(1).handed_in(1, accepted_update().inspected)
    assert (part.unjudged, part.refused) == (1, 0)
    assert (part.awaits_verdict(1), part.awaits_verdict(2)) == (True, False)
    accepted = part.judged(accepted=True)
    assert (accepted.unjudged, accepted.refused, accepted.awaits_verdict(1)) == (0, 0, True)
    assert accepted.judged(accepted=False).refused == 1, "another structure of the round undid it"
    refused = part.judged(accepted=False)
    assert (refused.unjudged, refused.refused) == (0, 1)
    assert refused.heard_of(2).judged(accepted=False).refused == 1, "it was told already that another try may follow"
    for over in (part.judged(accepted=False, late=True), part.heard_of(2).judged(accepted=False)):
        assert (over.unjudged, over.refused) == (0, 0)
        assert over.update is not None
        assert over.update.judgement is Judgement.OVER


def test_what_the_edge_itself_refused_awaits_no_aggregator_and_may_be_tried_again() -> None:
    part = PARTS[Phase.IDLE].heard_of(1).handed_in(1, Refused("its checkpoint cannot be used"))
    assert part.unjudged == 0
    assert part.judged(accepted=False).refused == 1
