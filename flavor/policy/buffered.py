"""Buffered asynchronous rounds (FedBuff, arXiv 2106.06639): who trains on when a round closes early.

A task keeps the number of its round: it trains from the global model of the round before. A round closes with K
accepted updates. A client that still trains then is *carried*: it goes on with its task, and its update counts in the
round that is open when it comes. Its staleness τ is the number of that round minus that of its task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flavor.policy.mode import Buffered
from flavor.policy.standing import Client
from flavor.records.round import RoundView


def carried(closed: RoundView, clients: Mapping[str, Client], mode: Buffered) -> tuple[dict[str, int], dict[str, int]]:
    """Return who goes on with an earlier task in the round after `closed`, and whose task is too old for that.

    Both give the round of each client's task. A client without a verdict on its update goes on, also one that is away
    for now: its update counts when it comes. A client that is gone for good, is shut out or does not take part gets no
    task before it comes back. Any other client has handed in, and gets a task of the new round.
    """
    going, old = dict[str, int](), dict[str, int]()
    for name in closed.expected:
        client = clients.get(name)
        if name in closed.verdicts or client is None or client.state.gone or client.quarantined:
            continue
        if not (client.is_admitted and client.trains):
            continue
        task = closed.task_round(name)
        is_too_old = closed.round + 1 - task > mode.max_staleness
        (old if is_too_old else going)[name] = task
    return going, old


def given_up(closed: RoundView, opened: RoundView) -> dict[str, int]:
    """Return the round of each task of an asynchronous run that round `closed` was open for and `opened` is not.

    No update of these counts any more, and those that come, or have come since `closed` took none, are late.
    """
    tasks = {name: closed.task_round(name) for name in closed.expected if name not in closed.verdicts}
    return {name: task for name, task in tasks.items() if opened.since.get(name) != task}


def given_up_lately(closed: Sequence[RoundView], opened: RoundView) -> dict[str, int]:
    """Return the newest such task of each client over several rounds, oldest first, that lead up to round `opened`.

    A task that a later one of them has judged was not given up.
    """
    judged = {(name, view.task_round(name)) for view in (*closed, opened) for name in view.verdicts}
    tasks: dict[str, int] = {}
    for view in closed:
        tasks.update(given_up(view, opened))
    return {name: task for name, task in tasks.items() if (name, task) not in judged}


def outdated_after(closed: RoundView, old: Mapping[str, int]) -> dict[str, int]:
    """Return how many tasks in a row of each client were given up as too old, when the round after `closed` opens.

    `old` are the tasks that are given up then. An update that counts ends the row.
    """
    outdated = {
        name: number
        for name, number in closed.outdated.items()
        if (verdict := closed.verdicts.get(name)) is None or not verdict.accepted
    }
    outdated.update({name: outdated.get(name, 0) + 1 for name in old})
    return dict(sorted(outdated.items()))


def newcomers(round_: RoundView, clients: Mapping[str, Client]) -> tuple[str, ...]:
    """Return the clients that have become ready since the round was opened, sorted: they get its task at once."""
    expected = frozenset(round_.expected)
    return tuple(sorted(name for name, client in clients.items() if client.ready and name not in expected))
