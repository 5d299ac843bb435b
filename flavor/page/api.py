"""The addresses below `/api/`, as the page asks them: JSON of what `flavor.view` knows.

Every answer is read in a thread, of which there are few, so that a store that hangs holds up no stream.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flavor.bus.connection import is_away
from flavor.errors import BusUnavailable, DamagedRecord, FlavorError, InvalidSetting, RunNotFound, StoreError
from flavor.page.answer import answered, refused
from flavor.page.source import Source
from flavor.page.store_looks import Kind, StoreLooks, TooManyWaiting
from flavor.view.strip import RoundRow

_MOST_THREADS = 8
_MOST_WAITING = 64
"""How many questions wait for a thread."""
_MOST_EVENTS = 500
_MOST_SITES = 50
_MOST_KINDS = 100
_OF_ROUNDS = ("rounds", "plain", "weighted", "lowest", "highest", "reporting", "contributors")
"""What curves have for each round."""
_ENTRY = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

Look = Callable[[Request], Any]
Answer = Callable[[Request], Awaitable[Response]]


class Api:
    """Answers what the page asks."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._waiting = 0
        self._threads: anyio.CapacityLimiter | None = None
        self._looks = StoreLooks()

    def routes(self) -> list[Route]:
        """Return the addresses. Each answers GET and HEAD."""
        looks: dict[str, Look] = {
            "/api/runs": lambda request: list(self._source.runs()),
            "/api/runs/{run}": lambda request: self._source.document(_run(request)),
            "/api/runs/{run}/rounds": self._rounds,
            "/api/runs/{run}/rounds/{round}": self._round,
            "/api/runs/{run}/curves": self._curves,
            "/api/runs/{run}/judged": self._judged,
            "/api/runs/{run}/evaluations": self._evaluations,
            "/api/runs/{run}/evaluation": self._evaluation,
            "/api/runs/{run}/events": self._events,
            "/api/runs/{run}/clients/{client}": self._client,
            "/api/runs/{run}/settings": lambda request: self._source.settings(_run(request)),
            "/api/runs/{run}/contributions": lambda request: self._source.contributions(_run(request)),
            "/api/queue": lambda request: self._source.queue(),
        }
        answers = {path: self._answering(look) for path, look in looks.items()}
        answers |= {
            "/api/runs/{run}/provenance": self._provenance,
            "/api/runs/{run}/reports": self._reports,
            "/api/runs/{run}/reports/image": self._image,
        }
        return [Route(path, answer, methods=["GET"]) for path, answer in answers.items()]

    async def _provenance(self, request: Request) -> Response:
        """The records of a run's rounds; with `verify=1`, every object that they name is read and checked."""
        verify, run = request.query_params.get("verify") == "1", _run(request)
        look = partial(self._source.provenance, run, verify=verify)
        return await self._from_store(request, Kind.OBJECTS if verify else Kind.RECORDS, (run,), look)

    async def _reports(self, request: Request) -> Response:
        """What the store has of one evaluation; with `site=`, what this site reports beside its metrics."""
        run, place, site = _run(request), _evaluation(request), request.query_params.get("site", "")

        def look() -> dict[str, Any]:
            history = self._source.history(run)
            return history.report_of_site(*place, site) if site else history.reports(*place)

        return await self._from_store(request, Kind.REPORTS, (run, *place, site), look)

    async def _image(self, request: Request) -> Response:
        """An image that a site reports."""
        run, place = _run(request), _evaluation(request)
        site, digest = (request.query_params.get(name, "") for name in ("site", "digest"))

        def look() -> tuple[bytes, str]:
            return self._source.history(run).report_image(*place, site, digest)

        return await self._from_store(request, Kind.REPORTS, (run, *place, site, digest), look, _image)

    async def _from_store(
        self,
        request: Request,
        kind: Kind,
        key: tuple[object, ...],
        look: Callable[[], Any],
        made: Callable[[Request, Any], Response] = answered,
    ) -> Response:
        """Answer with what a look into a store finds: those who ask for the same get the same answer."""
        try:
            found = await self._looks.ask(kind, key, look)
            return await self._in_thread(lambda: made(request, found))
        except TooManyWaiting:
            return refused(503, "too many wait for the store", "wait until it is read", headers={"retry-after": "30"})
        except FlavorError as error:
            return failed(error)

    def _answering(self, look: Look) -> Answer:
        async def answer(request: Request) -> Response:
            if self._waiting >= _MOST_WAITING:
                error = "the page's server has too much to look up"
                return refused(503, error, "load the page again", headers={"retry-after": "5"})
            self._waiting += 1
            try:
                return await self._in_thread(lambda: answered(request, look(request)))
            except FlavorError as error:
                return failed(error)
            finally:
                self._waiting -= 1

        return answer

    async def _in_thread(self, function: Callable[[], Response]) -> Response:
        self._threads = self._threads or anyio.CapacityLimiter(_MOST_THREADS)
        return await anyio.to_thread.run_sync(function, limiter=self._threads, abandon_on_cancel=True)

    def _rounds(self, request: Request) -> list[dict[str, Any]]:
        after = _number(request, "after")
        return [_row(row) for row in self._source.history(_run(request)).strip(after)]

    def _round(self, request: Request) -> dict[str, Any]:
        number = request.path_params["round"]
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise InvalidSetting(f"a round has a number, and not {number[:40]!r}")
        timeline = self._source.history(_run(request)).timeline(int(number))
        return {**asdict(timeline), "row": _row(timeline.row)}

    def _curves(self, request: Request) -> dict[str, Any]:
        """The curves of `metric`, or of the first metric, from the round after `after` on; `sites=` for no site."""
        after = _number(request, "after")
        history = self._source.history(_run(request))
        names = history.metric_names()
        metric = request.query_params.get("metric") or (names[0] if names else "")
        given = request.query_params.get("sites")
        sites = None if given is None else [site for site in given.split(",") if site][:_MOST_SITES]
        found = asdict(history.curves(metric, sites, most_sites=_MOST_SITES))
        return {**(_after(found, after) if after else found), "metrics": names}

    def _judged(self, request: Request) -> dict[str, Any]:
        """The curves of a `metric` of evaluations, or of the first one, from the round after `after` on."""
        after, history = _number(request, "after"), self._source.history(_run(request))
        names = history.judged_names()
        found = asdict(history.judged_curves(request.query_params.get("metric") or (names[0] if names else "")))
        return {**(_after(found, after) if after else found), "metrics": names}

    def _evaluations(self, request: Request) -> dict[str, Any]:
        """The newest evaluations as a table, by a `metric` or the first one; or those before the entry `before`."""
        before = _number(request, "before") if "before" in request.query_params else None
        return self._source.history(_run(request)).evaluations(request.query_params.get("metric", ""), before)

    def _evaluation(self, request: Request) -> dict[str, Any]:
        """One evaluation with what each site has measured: the newest one, of a `round`, of a number (`evaluation`)."""
        number = _number(request, "evaluation") if "evaluation" in request.query_params else None
        return self._source.history(_run(request)).evaluation(_number(request, "round") or None, number)

    def _events(self, request: Request) -> list[Any]:
        """The newest entries of the log, or those `before` one, oldest first; of a `client`, of a `kind` (again)."""
        before = request.query_params.get("before", "")
        if before and not _ENTRY.fullmatch(before):
            raise InvalidSetting(f"before={before[:40]!r}: the id of an entry is expected, such as 1700000000000-0")
        given = (kind for each in request.query_params.getlist("kind") for kind in each.split(","))
        kinds = list(dict.fromkeys(kind for kind in given if kind))
        if len(kinds) > _MOST_KINDS:
            raise InvalidSetting(f"kind= names {len(kinds)} kinds of events, and {_MOST_KINDS} at most are taken")
        return list(
            self._source.entries(
                _run(request),
                before=before,
                most=min(_number(request, "most") or _MOST_EVENTS, _MOST_EVENTS),
                client=request.query_params.get("client", ""),
                kinds=kinds,
            )
        )

    def _client(self, request: Request) -> Any:
        return self._source.client(_run(request), str(request.path_params["client"]))


def _run(request: Request) -> str:
    return str(request.path_params["run"])


def _evaluation(request: Request) -> tuple[int, int]:
    """Return the round and the number of the evaluation that is asked for."""
    return _number(request, "round"), _number(request, "evaluation")


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidSetting(f"{name}={text[:40]!r}: a number is expected")
    return int(text)


def _image(request: Request, found: tuple[bytes, str]) -> Response:
    data, kind = found
    return Response(data, 200, {"cache-control": "no-store"}, media_type=kind)


def _row(row: RoundRow) -> dict[str, Any]:
    more = {"worked_from_ms": row.worked_from_ms, "seconds": row.seconds, "shown_metrics": row.shown_metrics}
    return {**asdict(row), **more}


def _after(curves: dict[str, Any], after: int) -> dict[str, Any]:
    """Cut what stands for each round to the rounds after this one."""
    first = next((at for at, round_ in enumerate(curves["rounds"]) if round_ > after), len(curves["rounds"]))
    cut = {name: curves[name][first:] for name in _OF_ROUNDS}
    return {**curves, **cut, "sites": {site: values[first:] for site, values in curves["sites"].items()}}


def failed(error: FlavorError) -> Response:
    """Answer with one of this project's errors."""
    text = " ".join(str(error).split())
    if isinstance(error, RunNotFound):
        return refused(404, text, "the first page lists the runs that there are; `flavor status` does so, too")
    if isinstance(error, BusUnavailable) and is_away(error):
        return refused(503, text, "this page goes on by itself once Redis answers", headers={"retry-after": "2"})
    if isinstance(error, StoreError):
        return refused(502, text, "what Redis has is shown all the same")
    if isinstance(error, BusUnavailable | DamagedRecord):
        return refused(500, text, "`flavor recover` rebuilds a run from its store")
    return refused(400 if isinstance(error, InvalidSetting) else 404, text)
