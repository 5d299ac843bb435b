"""Takes over what an earlier process of this client left in Redis of the run's round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flavor.bus.events import ClientEvents
from flavor.edge.joining import Site
from flavor.edge.part import HandedIn, Judgement, Part
from flavor.records.names import Event
from flavor.records.run import RunView
from flavor.view.site_events import TrainedAgain


@dataclass(frozen=True)
class Past:
    """The point from which this process goes on."""

    part: Part
    trained: int = 0
    """The round that the earlier process's trainer had finished, whose files are still to be handed in; 0 for none."""


def take_over(site: Site, view: RunView, events: ClientEvents, *, has_files: Callable[[], bool]) -> Past:
    """Remove what an earlier process of this client left of the run's round, so that the round is trained again.

    A round whose training was finished is handed in as it is, if the trainer had taken the round up and its files are
    still there (`has_files`); the events that the trainer was told to be set stay set. An update that was refused is
    taken back, and the round is trained again.
    """
    round_, membership = site.newest_task(view.round), site.membership
    keys = site.runs.keys.client(site.config.client)
    of_round = [keys.event(round_, event) for event in Event]
    remove = [keys.started, keys.taken, keys.idle, keys.event(round_, Event.ERROR)]
    remove += [keys.event(other, event) for other in (0, view.round + 1) for event in Event]
    past = Past(Part())
    handed_in = round_ and membership.has_update(round_)
    answer = membership.answer(round_) if handed_in else None
    if answer is not None and not answer.accepted:
        told = membership.admission()
        until = (
            ", which counts once the quarantine of this site is over" if told is not None and told.quarantined else ""
        )
        site.observer.hear(TrainedAgain(f"the update was refused ({answer.reason}): training it again{until}", round_))
        remove += [keys.update(round_), *of_round]
    elif handed_in:  # the site goes on with the next task
        judgement = Judgement.AWAITED if answer is None else Judgement.ACCEPTED
        past = Past(Part(behind=round_, update=HandedIn(round_, judgement=judgement)))
    elif round_ and _is_finished(events, round_) and has_files():
        task = membership.task(round_)
        past = Past(Part(base=task.base.model if task is not None and task.base is not None else None), trained=round_)
        remove.remove(keys.taken)  # the round stays taken up until it is handed in, perhaps by a later process
    else:
        remove += of_round
    membership.clear(remove)
    return past


def _is_finished(events: ClientEvents, round_: int) -> bool:
    """Whether the trainer has taken up this round and finished it."""
    return events.is_set(Event.TRAIN_FINISHED, round_) and events.taken() >= round_
