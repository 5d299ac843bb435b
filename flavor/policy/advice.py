"""The words of reasons: whom a run waits for, what an operator can do about it, and what every site may read."""

from __future__ import annotations

import math
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence

from flavor.config import RunConfig
from flavor.counted import are, counted
from flavor.policy.standing import Standing


class Reason(str):
    """Why a decision was taken. The text is for the operator; `public` is the part that every site may read."""

    __slots__ = ("public",)
    public: str

    def __new__(cls, text: str, public: str = "") -> Reason:
        """Make a reason. Leave `public` out where the text says nothing about a single site."""
        made = super().__new__(cls, text)
        made.public = public or text
        return made


def public(reason: str) -> str:
    """Return what every site may read of a reason."""
    return reason.public if isinstance(reason, Reason) else reason


_FACT = re.compile(r"""(?:(?<!\w)'(?:[^'\\]|\\.)*'|(?<!\w)"(?:[^"\\]|\\.)*"|(?!; ).)*""", flags=re.DOTALL)
_LONGEST_GIST = 120
_MANY = 3
"""So many sites that have one reason are told of together."""
MENDED = "what was refused: until the deadline a site may hand in again, mended and started anew"
"""What a round that was resumed waits for, where it lacks refused updates alone."""
PUT_BACK = (
    "put the global model back into the store as it was, or let aggregators and sites read it (a bucket may keep "
    "versions, and restores what it has archived)"
)
"""What to do about a global model that is gone from the store, changed or withheld there."""


def gist(reason: str) -> str:
    """Shorten the reason of a refusal to what is wrong: the log has all of it once, with advice, at the refusal.

    Keeps what stands before the first semicolon that is in no quotation marks, and at most 120 characters of that.
    """
    found = _FACT.match(reason)
    fact = found.group() if found else reason
    if len(fact) <= _LONGEST_GIST:
        return fact
    return textwrap.shorten(fact, _LONGEST_GIST, placeholder=" …") + ('"' if fact.startswith('"') else "")


def finished_early(closed: int, rounds: int, left: Sequence[str], *, remain: int, needed: int) -> Reason:
    """Say why a run is finished before its last round: training scripts have ended, and what to do about that."""
    one = len(left) == 1
    whose = f"{left[0]}'s script" if one else f"the scripts of {some(left)}"
    sites = f"{remain} sites remain" if remain > 1 else f"{remain or 'no'} site remains"
    why = (
        f"ended before round {closed + 1}, and {sites} of the {needed} that a round needs; if that is not meant, let "
        f"{'it' if one else 'them'} loop until WaitEvent says that the run is over, TOTAL_ROUNDS rounds"
    )
    when = f"early, after round {closed} of {rounds}"
    return Reason(f"{when}: {whose} {why}", f"{when}: {counted(len(left), 'script')} {why}")


def way_on(
    run: str,
    round_: int,
    config: RunConfig,
    *,
    remain: int,
    of: int = 0,
    left: Sequence[str] = (),
    refused: Sequence[str] = (),
    untrained: Sequence[str] = (),
    doubted: Sequence[str] = (),
    unread: Sequence[str] = (),
    shut: Mapping[str, Standing] | None = None,
    ended: bool = False,
) -> list[str]:
    """Advise how to go on with a run whose missing clients do not come back by themselves: a line for each kind.

    Round `round_` has `of` clients (0 before it is open), and `remain` of them count. `left` names clients whose
    training script has ended, `refused` those whose update was refused, `untrained` those whose update was refused
    because of the global model of the round, `doubted` those of whose refusal it is no more than the likely cause, and
    `unread` those of which the store did not give it out. `shut` has for each client that an operator has to let in
    again SHUT or REVOKED. `ended` says whether the run has failed.
    """
    lines = []
    if left:
        one = len(left) == 1
        whose = f"{left[0]}'s script" if one else f"the scripts of {some(left)}"
        lines.append(f"{whose} ended before round {round_} of {config.rounds}: start {'it' if one else 'them'} again")
    if refused:
        one = len(refused) == 1
        what = "update was refused: its site tries" if one else "updates were refused: their sites try"
        lines.append(f"{_of(refused)} {what} again once flavor-fl is stopped and started there")
    if quarantined := [name for name, how in (shut or {}).items() if how is Standing.SHUT]:
        pardon = f"`flavor pardon {run} {shlex.quote(quarantined[0]) if len(quarantined) == 1 else 'SITE'}`"
        lines.append(f"{_are_named(quarantined)} quarantined: {pardon}, then stop and start flavor-fl there")
    if revoked := [name for name, how in (shut or {}).items() if how is Standing.REVOKED]:
        enroll = f"`flavor enroll {run} {shlex.quote(revoked[0]) if len(revoked) == 1 else 'SITE'}`"
        lines.append(f"{_are_named(revoked)} revoked: {enroll} lets it join with a new token")
    if unread:
        is_over = config.on_quorum_lost == "fail"
        on = f"`flavor resume {run}`" if is_over else f"stop and start flavor-fl at {some(unread)}"
        lines.append(f"{PUT_BACK}, then {on}")
    if doubted:
        lines.append(f"if an update is refused like that of {some(doubted)} again, {from_earlier(run, round_)}")
    if untrained:  # with fewer sites, the model is the same
        lines.append(from_earlier(run, round_))
    elif unread or doubted:
        return lines
    elif lines and not 0 < remain < len(quarantined):  # where most are refused, the model may well be to blame
        lines[-1] += f", or {_with_fewer(run, config, remain=remain, of=of, ended=ended)}"
    return lines


def from_earlier(run: str, round_: int) -> str:
    """Advise what to do about a run whose sites cannot train from the global model of this round."""
    if round_ <= 2:  # that of round 2 is the first that the run has made
        return "begin another run from a model that can be trained (--init-model FILE)"
    get = f"`flavor get {run} --round N`, with N below {round_ - 1}, writes one into a file"
    return f"begin another run from an earlier model (--init-model FILE): {get}"


def _with_fewer(run: str, config: RunConfig, *, remain: int, of: int, ended: bool) -> str:
    """Advise how to go on without the missing clients."""
    if not remain:
        return "begin another run" if ended else f"end the run (`flavor stop {run}`)"
    fewer = f"--min-clients {remain}"
    needed = config.quorum
    if isinstance(needed, float):  # a share, of those who are expected
        needed = math.ceil(needed * max(of, remain))
    if needed is not None and needed > remain:
        fewer += f" --quorum {remain}"
    again = f"`flavor resume {run} {fewer}`"
    return f"lower the quorum ({again})" if ended else f"lower the quorum (`flavor stop {run}`, then {again})"


def _of(names: Sequence[str]) -> str:
    return f"{names[0]}'s" if len(names) == 1 else f"the {len(names)} sites' ({some(names)})"


def _are_named(names: Sequence[str]) -> str:
    return f"{some(names)} {are(len(names))}"


def natural(name: str) -> tuple[list[int | str], str]:
    """Return what to sort names by so that site-2 comes before site-10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], name


def listed(reasons: Mapping[str, str]) -> str:
    """Say why each of these clients was lost; together for three or more that have one reason."""
    if not reasons:
        return "no client was lost"
    by_reason: dict[str, list[str]] = {}
    for name in sorted(reasons, key=natural):
        by_reason.setdefault(reasons[name], []).append(name)
    told: list[str] = []
    for reason, names in by_reason.items():
        if len(names) < _MANY:
            told += [f"{name}: {reason}" for name in names]
        else:
            told.append(f"{len(names)} sites ({some(names)}): {reason}")
    return "; ".join(told)


def some(names: Sequence[str], most: int = 5) -> str:
    """List the first `most` of these names in order, and say how many more there are."""
    shown = ", ".join(sorted(names, key=natural)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
