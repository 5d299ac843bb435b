"""Find the update that makes the result of a round infinite or too large, where each update is fine by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flavor.errors import AggregationError, AggregatorFailed, NoModelPossible, UpdatesRefused

Try = Callable[[Sequence[str]], bool]
"""Aggregates the updates of these clients, and returns whether the result can be used."""

BEGIN_BOUNDED = "begin a new run from an earlier model (--init-model), with --max-update-norm, which bounds each update"
"""What to do about a global model whose own values are too large to go on with."""
MAY_BE_EARLIER = f"an update of an earlier round may be to blame: {BEGIN_BOUNDED}"


def refusal(reach: Mapping[str, float], what: str, aggregated: Try) -> AggregatorFailed:
    """Return the error of a round whose result cannot be used; `what` says what it is: "is not finite in 'w'".

    Leaves out clients, first the one that reaches farthest, until the result of the others can be used. Takes back each
    client with which it still can, first the one that reaches least. `reach` has all clients.
    """
    left = sorted(reach, key=lambda client: -reach[client])
    removed: list[str] = []
    while left and not (removed and _is_usable(aggregated, left)):
        removed.append(left.pop(0))
    for client in reversed(removed[:-1] if left else removed):  # with the last one of them the others cannot be used
        if _is_usable(aggregated, [*left, client]):
            left.append(client)
            removed.remove(client)
    if not left and len(reach) > 1:
        return NoModelPossible(
            f"the new global model {what}, whichever clients are left out, so no other attempt helps: lower the "
            f"learning rate of the server step; {MAY_BE_EARLIER}"
        )
    reason = f"with this update the new global model, or the server's state, {what}"
    return UpdatesRefused(dict.fromkeys(removed, reason))


def _is_usable(aggregated: Try, clients: Sequence[str]) -> bool:
    try:
        return aggregated(clients)
    except AggregationError:  # too few for the rule: the coordinator says what the rule needs
        return True


def told(names: Sequence[str]) -> str:
    """Return the first of these names, and how many there are more."""
    first = ", ".join(repr(name) for name in names[:3])
    return first + (f" and {len(names) - 3} more" if len(names) > 3 else "")
