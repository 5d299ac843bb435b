"""Deadlines that are learned: how long a round waits follows from how long the sites took in the rounds before.

The deadline is the median of the sites' times plus k times their median absolute deviation (MAD), within a floor and a
ceiling. The MAD alone is too little: it is 0 where most sites keep one pace, and times of training are skewed, so that
some rounds of each site are far above the median. So the slack has a least value, a share of the median. It is large
where the work of a late site is lost: one site of three cannot have another shut out by keeping the third one's pace.

A site that had not handed in when its round closed took at least as long as the round had waited for it, or longer,
where it goes on with the task of an earlier round: since that was opened. Nothing more is known of it, and so it counts
with twice that time: otherwise a deadline that most sites miss would never grow again.
A single site among many does not move the median. Where its work is lost, the deadline is doubled for it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from flavor.counted import are, counted
from flavor.durations import shown_duration
from flavor.policy.advice import some
from flavor.policy.learned import Learned
from flavor.records.round import RoundView

_NOTHING: Mapping[int, int] = {}

LAST_ROUNDS = 5
"""The rounds whose times count."""
FEWEST_ROUNDS = 3
"""The rounds that have to be known before a deadline is learned."""
LATE_COUNTS = 2.0
"""How many times the time that was waited for it a late site counts with."""
MOST_MISSED = 3
"""The rounds in a row whose deadline a site may miss before it counts as slow."""
LEAST_SLACK = 0.5
"""The least time that is added to the median, as a share of it, where a late update counts in a later round."""
LEAST_SLACK_LOST = 3.0
"""The same where a late update is lost: see docs/resume.md for what that leaves."""


@dataclass(frozen=True)
class Times:
    """How long the sites took in one closed round, in seconds from the opening."""

    took_s: Mapping[str, float] = field(default_factory=dict)
    """Until the update of a client was there, and accepted."""
    late_s: Mapping[str, float] = field(default_factory=dict)
    """How long a client had worked on its task that had not handed in when the round closed."""


def times_of(
    view: RoundView, judged_ms: Mapping[str, int], late: Collection[str], begun_ms: Mapping[int, int] = _NOTHING
) -> Times:
    """Return the times of a closed round; empty for a round during which the run had ended.

    `judged_ms` says when each verdict was recorded, by the server's clock. `late` are the clients that have missed its
    deadline. The time of a client that went on with the task of an earlier round counts from when that was opened,
    which `begun_ms` says, and not where that is not known.
    """
    if view.pauses:
        return Times()
    begun = {client: begun_ms.get(view.since[client]) for client in view.since} | {
        client: view.opened_ms for client in view.expected if client not in view.since
    }
    known = {client: from_ms for client in view.expected if (from_ms := begun[client]) is not None}
    took = {
        client: max(0, judged_ms[client] - from_ms) / 1000
        for client, from_ms in known.items()
        if (verdict := view.verdicts.get(client)) is not None and verdict.accepted and judged_ms.get(client)
    }
    until_ms = view.aggregating_ms or view.opened_ms
    waited = {client: max(0, until_ms - from_ms) / 1000 for client, from_ms in known.items() if client in late}
    return Times(took, waited)


def missing(view: RoundView, gone: Collection[str] = ()) -> list[str]:
    """Return the clients of a closed round that had handed in nothing at its deadline, without the `gone` ones."""
    if view.aggregating_ms is None or view.aggregating_ms < view.deadline_ms:
        return []
    return [client for client in view.expected if client not in view.verdicts and client not in gone]


def missed_since(view: RoundView, after: RoundView) -> list[str]:
    """Return the clients that missed the deadline of round `view`, as was counted when the round `after` it opened."""
    return [client for client, number in after.missed.items() if number > view.missed.get(client, 0)]


def learned_timeout(
    learned: Learned, rounds: Sequence[Times], *, opening: int = 1, is_lost: bool = True
) -> tuple[float, str]:
    """Return how long the next round waits, in seconds, and why, in words.

    `rounds` are the newest closed ones, at most `LAST_ROUNDS` of them. A round that is opened again waits twice as long
    as in the `opening` before. `is_lost` says whether the work of a late site is lost: the slack is larger then, and
    the deadline is doubled while one of these rounds had a late site. A site that was late in `MOST_MISSED` of them
    doubles none.
    """
    known = [each for each in rounds if each.took_s or each.late_s][-LAST_ROUNDS:]
    if len(known) < FEWEST_ROUNDS:
        why = f"of {counted(FEWEST_ROUNDS, 'round')} from which it is learned, {len(known)} {are(len(known))} known"
        return learned.ceiling_s, f"deadline in {_shown(learned.ceiling_s)}: {why}"
    took = [seconds for each in known for seconds in each.took_s.values()]
    late = [seconds * LATE_COUNTS for each in known for seconds in each.late_s.values()]
    median = statistics.median([*took, *late])
    spread = statistics.median(abs(seconds - median) for seconds in (*took, *late))
    slack, share = learned.k * spread, LEAST_SLACK_LOST if is_lost else LEAST_SLACK
    added = f"{learned.k:g} × {_shown(spread)}"
    if slack < share * median:
        slack, added = share * median, f"{share:g} × {_shown(median)}, the least slack,"
    often = Counter(client for each in known for client in each.late_s)
    is_doubled = is_lost and any(number < MOST_MISSED for number in often.values())
    wanted = (median + slack) * (2 if is_doubled else 1) * 2.0 ** (opening - 1)
    seconds = min(learned.ceiling_s, max(learned.floor_s, wanted))
    why = f"median {_shown(median)} + {added} over the last {counted(len(known), 'round')}"
    if late:
        why += f", in which {len(late)} of {counted(len(took) + len(late), 'update')} came too late"
    if is_doubled:
        why += ", doubled as such updates are lost"
    if opening > 1:
        why += f", doubled for opening {opening}"
    if seconds != wanted:
        why += f"; the {'floor' if seconds > wanted else 'ceiling'} is {_shown(seconds)}"
    return seconds, f"deadline in {_shown(seconds)}: {why}"


def missed_after(view: RoundView, gone: Collection[str] = ()) -> dict[str, int]:
    """Return how many rounds in a row each client has missed the deadline of, once round `view` is closed.

    A client whose update of the round's own task was accepted has missed none. One that hands in an earlier task, whose
    update was refused, that is `gone`, or whose round closed before its deadline, keeps its number.
    """
    late, missed = missing(view, gone), dict(view.missed)
    for client in view.expected:
        if client in late:
            missed[client] = missed.get(client, 0) + 1
        elif client not in view.since and (verdict := view.verdicts.get(client)) is not None and verdict.accepted:
            missed.pop(client, None)
    return dict(sorted(missed.items()))


def slow_of(missed: Mapping[str, int]) -> list[str]:
    """Return the clients that have missed so many deadlines in a row that they count as slow."""
    return [client for client, number in missed.items() if number >= MOST_MISSED]


def not_awaited(missed: Mapping[str, int], expected: Collection[str], *, is_learned: bool) -> list[str]:
    """Return the slow clients for which a round that has its quorum does not wait.

    None where most of the `expected` clients are slow, and the deadline is learned: it then grows until they meet it.
    If it stayed as it is, the model would be that of the few who meet it.
    """
    slow = slow_of(missed)
    are_most = 2 * sum(client in slow for client in expected) > len(expected)
    return [] if is_learned and are_most else slow


def told_slow(
    missed: Mapping[str, int],
    before: Mapping[str, int],
    expected: Collection[str] = (),
    *,
    trains_on: bool,
    is_learned: bool = True,
) -> str:
    """Say which clients have missed one deadline too many, and what becomes of them; '' where none has just now.

    `before` is what was counted a round earlier. `trains_on` says whether the mode lets slow clients train on. The
    other arguments are those of `not_awaited`.
    """
    new = [client for client in slow_of(missed) if client not in slow_of(before)]
    if not new:
        return ""
    one = len(new) == 1
    told = f"{some(new)} {'has' if one else 'have'} missed the deadline of {MOST_MISSED} rounds in a row"
    if trains_on and not not_awaited(missed, expected, is_learned=is_learned):
        return f"{told}, and most sites are as slow: rounds wait for all, and the deadline grows until they meet it"
    if trains_on:
        them, their = ("it", "its update counts") if one else ("them", "their updates count")
        comes = "it comes" if one else "they come"
        return f"{told}: rounds no longer wait for {them}, and {their} in the round in which {comes}"
    return f"{told}: a run with --mode sync:slow=async would count late updates"


def _shown(seconds: float) -> str:
    return shown_duration(seconds) if seconds >= 9.95 else f"{seconds:.2g} s"
