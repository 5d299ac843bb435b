"""Records the session of a training while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from pydantic import ValidationError

from aumai_fedtrain.files import explained
from aumai_fedtrain.models import GlobalState
from aumai_fedtrain.session import Session, Sessions, Status, open_sessions
from flavor.errors import AggregationError, FlavorError


@contextlib.contextmanager
def recorded(session: Session, redis_url: str | None, home: Path) -> Iterator[Callable[[GlobalState], None]]:
    """Record the session before, during and after the training in the body; yield a function for each new state.

    A simulation whose session cannot be recorded at its beginning prints why, and trains all the same.
    """
    with contextlib.ExitStack() as stack:
        sessions: Sessions | None = None
        try:
            sessions = stack.enter_context(open_sessions(redis_url, home))
            sessions.save(session.at(Status.RUNNING))
        except FlavorError as error:
            if session.run is not None:
                raise
            sessions = None
            click.echo(f"This session is not kept: {error}", err=True)
        newest: list[GlobalState] = []

        def save(status: Status, reason: str = "") -> None:
            if sessions is not None:
                sessions.save(session.at(status, newest[-1] if newest else None, reason))

        def record(state: GlobalState) -> None:
            newest[:] = [state]
            save(Status.RUNNING)

        try:
            yield record
        except ValidationError as error:
            reason = explained(error)
            with contextlib.suppress(FlavorError):
                save(Status.FAILED, reason)
            raise AggregationError(reason) from error
        except Exception as error:
            with contextlib.suppress(FlavorError):
                save(Status.FAILED, str(error))
            raise
        except BaseException:
            with contextlib.suppress(FlavorError):
                save(Status.INTERRUPTED)
            raise
        save(Status.FINISHED)
