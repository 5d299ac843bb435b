"""Start a federation on this machine, watch it, end it, and go on with one that was ended."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flavor.bus.address import to_environment
from flavor.bus.connection import connect, wait_for_server
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import FlavorError, IllegalMove, InvalidSetting, RunError, RunExists
from flavor.local.beside import Beside, nothing_beside
from flavor.local.devices import SiteDevices
from flavor.local.forked import ForkServer
from flavor.local.mending import let_go_on, what_helps, without_failed
from flavor.local.plan import Layout, Site
from flavor.local.processes import ProcessGroup, Start, started
from flavor.local.progress import Progress
from flavor.local.rebuilt import rebuilt
from flavor.local.record import Record, own_server, recorded_url, told_if_damaged
from flavor.local.reports import shared, show, with_report
from flavor.local.site_warnings import site_warnings
from flavor.local.threads import limited, told
from flavor.local.waits import Waits, snapshot_if_there, why_ended
from flavor.printable import quoted
from flavor.programs.process import described_exit
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.results.folder import ResultFolder, Results
from flavor.results.rounds import RoundResult
from flavor.site_settings import settings_of
from flavor.store.open import open_store
from flavor.store.paths import run_record_path
from flavor.store.protocol import ObjectStore
from flavor.store.settings import DEFAULTS, StoreSettings
from flavor.view.blocked import VARIABLE
from flavor.view.client_events import ClientLost
from flavor.view.log import newest_entry, read_log
from flavor.view.snapshot import take_snapshot

_LOOK_MS = 200
_NOT_RECORDED = ("layout", "redis_url", "store_settings", "beside")
"""Fields that are not recorded: they are given again to go on with the run."""
_WAITS_S = 1.0
"""Seconds between two looks at what the run waits for."""
_END_S = 30.0
_RESTARTS = 3


@dataclass(frozen=True)
class Federation:
    """A local run: what to start."""

    run: str
    config: RunConfig
    """Its store and queue are set when the run starts."""
    sites: Sequence[Site]
    main: str
    preprocess: str | None
    layout: Layout
    redis_url: str | None = field(default=None, repr=False)
    store: str | None = None
    store_settings: StoreSettings = DEFAULTS
    init_model: Path | None = None
    begun_from: Mapping[str, Any] | None = None
    """The run that has made `init_model`, as `BegunFrom` of the ledger."""
    strip_prefix: bool = False
    format: str | None = None
    workers: int = 1
    devices: str = ""
    """The GPUs that the sites take by turns; see `flavor.local.devices`."""
    aggregator_main: str | None = None
    evaluator: str | None = None
    central: Sequence[str] | None = None
    """The command that judges models at an aggregator, and the folder of its data."""
    init_once: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)
    """The folder in which the commands start; they may name files relative to it."""
    beside: Beside = nothing_beside

    @classmethod
    def of(cls, out: Path, redis_url: str | None, store_settings: StoreSettings = DEFAULTS) -> Federation:
        """Read the federation of this folder, to go on with it. Raises `InvalidSetting` when that cannot be done."""
        record = Record.of(out)
        with told_if_damaged(out):
            fields = record.fields_of(out, cls)
            fields["sites"] = [Site(site["client"], Path(site["input"])) for site in fields["sites"]]
            fields["config"] = RunConfig.of_run(record.run, fields["config"], by=record.release)
            fields["init_model"] = Path(fields["init_model"]) if fields["init_model"] else None
        if record.embedded and redis_url:
            raise InvalidSetting(f"{out} has a server of its own: leave out --redis-url (and FLAVOR_REDIS_URL)")
        url = record.server(out, redis_url)
        with told_if_damaged(out):
            return cls(layout=Layout(out), redis_url=url, store_settings=store_settings, **fields)

    @property
    def rounds(self) -> int:
        """Rounds to run."""
        return self.config.rounds

    def _in(self, store: ObjectStore) -> Federation:
        """This federation with the settings that its coordinator gets: the store and the queue are set."""
        settings = {"store": store.url, "queue": f"flavor-{self.run}"}
        return replace(self, config=self.config.model_copy(update=settings))

    def _record(self, store: str) -> Record:
        fields = {name: value for name, value in self.__dict__.items() if name not in _NOT_RECORDED}
        fields["sites"] = [{"client": site.client, "input": str(site.input)} for site in self.sites]
        fields["environment"], fields["config"] = dict(self.environment), self.config.to_mapping()
        fields["init_model"] = str(self.init_model) if self.init_model else None
        return Record(self.run, store, self.redis_url is None, fields, recorded_url(self.redis_url))

    def _opened_store(self, url: str) -> ObjectStore:
        return open_store(url, create=True, settings=self.store_settings)

    def carry_out(self, progress: Progress) -> Results:
        """Run to the end. No process is left behind after any end, including Ctrl-C.

        Raises `FlavorError` when nothing could be started; otherwise the results say how the run ended.
        """
        self.layout.check_unused()
        self._gpus()
        if self.store is not None and self._opened_store(self.store).exists(run_record_path(self.run)):
            raise RunExists(f"run {self.run!r} is in the store {self.store} already: choose another --run")
        with contextlib.ExitStack() as stack:
            if self.redis_url:  # before the folder is made, which is done only for a run that can start
                runs = self._connected(self.redis_url)
                if runs.find() is not None:
                    raise RunExists(f"there is a run {self.run!r} on this Redis already: choose another --run")
            self.layout.prepare()
            if self.store is None:
                self.layout.store.mkdir(mode=0o700)
            start = self._starting(stack)
            url = self.redis_url or stack.enter_context(own_server(self.layout.redis))
            runs = self._connected(url)
            store = self._opened_store(self.store or str(self.layout.store))
            ready = self._in(store)
            ready._record(store.url).write(self.layout.out)
            progress.begin([site.input for site in self.sites])
            if line := told({**os.environ, **self.environment}, len(self.sites), self.config.settings):
                progress.tell(line)
            self._gpus().tell(progress.tell)
            return ready._followed(runs, store, progress, url, start)

    def go_on(
        self,
        progress: Progress,
        given: Mapping[str, Any],
        mended: Mapping[str, Any],
        check: Callable[[RunView, int], None] = lambda view, closed: None,
    ) -> Results:
        """Go on with the run in this folder: it was interrupted, failed or stopped, or is to have more rounds.

        `given` are the settings of the run that change, `mended` the commands (`main`, `preprocess`), which may change
        until a round has closed. Raises `FlavorError` when it cannot go on.
        """
        with contextlib.ExitStack() as stack:
            start = self._starting(stack)
            url = self.redis_url or stack.enter_context(own_server(self.layout.redis))
            runs = self._connected(url)
            store = self._opened_store(self.store or str(self.layout.store))
            ready = replace(self, **mended)._in(store)
            self._gpus().tell(progress.tell)
            if runs.find() is not None or rebuilt(runs, store, url, progress.tell):
                config = let_go_on(runs, given, mended, check, out=str(self.layout.out), tell=progress.tell)
                progress.rounds = config.rounds
                ready = replace(self, config=config, **mended)._in(store)
            ready._record(store.url).write(self.layout.out)
            return ready._followed(runs, store, progress, url, start)

    def _gpus(self) -> SiteDevices:
        """Return the GPUs of the sites. Raises `InvalidSetting` for those that are not there."""
        return SiteDevices(self.devices, [site.client for site in self.sites], {**os.environ, **self.environment})

    def _connected(self, url: str) -> RunStore:
        redis = connect(url, patience_s=10.0, client_name="flavor-run")
        wait_for_server(redis, url)
        return RunStore(redis, self.run, url)

    def _starting(self, stack: contextlib.ExitStack) -> Start:
        """The function that starts the processes: by a fork, where that is possible."""
        if not ForkServer.is_possible():
            return started
        environment = {**os.environ, **self.environment, "PYTHONUNBUFFERED": "1"}
        return stack.enter_context(ForkServer.of(environment)).start

    def _followed(self, runs: RunStore, store: ObjectStore, progress: Progress, url: str, start: Start) -> Results:
        """Start everything, follow the run to its end, and leave its results after any end."""
        folder = ResultFolder(self.layout.out, progress.tell, is_own=True)
        newest = newest_entry(runs)
        if (view := runs.find()) is not None:
            folder.update(runs, store, view)
        with self.beside(runs, url, store), ProcessGroup(self.folder, start=start) as processes:
            self._start(processes, url, store.url)
            waits = Waits({name: self.layout.blocked(name) for name in processes.names})
            try:
                with progress:
                    self._watch(runs, processes, progress, folder, store, newest, waits)
            except BaseException:
                with progress.saying_how_to_go_on(folder.out):  # also after a second interruption
                    with contextlib.suppress(Exception):
                        waits.look(snapshot_if_there(runs))
                    with contextlib.suppress(Exception):  # signals stop edges and coordinator in that case
                        runs.end(RunState.STOPPED, "interrupted")
                    processes.wait(self._ending(processes, runs), 2.0)
                    with contextlib.suppress(FlavorError):
                        progress.left(self._results(folder, runs, store, progress), waits.lines(at_least_s=0.0))
                raise
            processes.wait(self._ending(processes, runs), _END_S)
            sites = [site.client for site in self.sites]
            progress.warnings = site_warnings(self.layout.logs, sites)
            progress.what_helps = what_helps(runs, sites, str(self.layout.out))
            progress.other_way = "" if progress.what_helps else without_failed(runs, sites)
            return self._results(folder, runs, store, progress)

    def _results(self, folder: ResultFolder, runs: RunStore, store: ObjectStore, progress: Progress) -> Results:
        """Write the run's results into their folder.

        Where the folder cannot be written, returns what is known of a run that has not finished, and raises `RunError`
        for a run that has.
        """
        try:
            results = folder.end(runs, store)
            progress.lacks_plot = folder.lacks_plot()
            return results
        except (FlavorError, OSError) as error:
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            known = folder.known(runs)
            if known.state == RunState.FINISHED:
                raise RunError(
                    f"run {self.run!r} is over, and its results cannot be written: {why}; "
                    f"its models are in the store: `flavor get {shlex.quote(str(folder.out))}` writes one into a file"
                ) from None
            progress.tell(f"not all results could be written into {folder.out}: {why}")
            return known

    def _ending(self, processes: ProcessGroup, runs: RunStore) -> list[str]:
        """The processes that still run and will end with the run; an edge that has not joined would wait on."""
        edges = [site.client for site in self.sites]
        with contextlib.suppress(FlavorError):
            edges = [name for name, (_, alive) in runs.clients(edges).items() if alive]
        return [name for name in processes.running if name in {"coordinator", *edges}]

    def _start(self, processes: ProcessGroup, url: str, store: str) -> None:
        environment = {
            **to_environment(os.environ, url),
            **self.environment,
            "FLAVOR_STORE": store,
            **self.store_settings.environment(),
            "FLAVOR_RUN": self.run,
            "PYTHONUNBUFFERED": "1",
        }
        for variable in (
            *("FLAVOR_CLIENT", "FLAVOR_WORKSPACE", "FLAVOR_KEY", "FLAVOR_OUT", "FLAVOR_NO_OUTSIDE_MODELS"),
            *("INPUT_PATH", "OUTPUT_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH", "LOG_PATH"),
        ):
            environment.pop(variable, None)  # each edge has folders of its own
        processes.start(
            "coordinator",
            "flavor.cli.serve_local",
            [str(self.layout.out)],
            environment={**environment, VARIABLE: str(self.layout.blocked("coordinator"))},
            log=self.layout.log("coordinator"),
        )
        for number in range(1, self.workers + 1):
            name = "aggregator" if self.workers == 1 else f"aggregator-{number}"
            processes.start(
                name,
                "flavor.cli.flavor_agg",
                ["--queue", self.config.queue, *self._aggregator_words()],
                environment={**environment, VARIABLE: str(self.layout.blocked(name))},
                log=self.layout.log(name),
            )
        gpus, theirs = self._gpus(), limited(environment, len(self.sites), self.config.settings)
        theirs |= {"FLAVOR_STORE": ""} if self.config.signed_urls else {}
        for site in self.sites:
            words = ["-m", self.main, "--client", site.client, "--input", str(site.input)]
            words += ["--workspace", str(self.layout.workspace(site.client))]
            words += ["-p", self.preprocess] if self.preprocess else []
            words += ["-e", self.evaluator] if self.evaluator else []
            words += ["--format", self.format] if self.format else []
            words += ["--report-output", "--allow-cross", *shared(self.redis_url)]  # this user is site and operator
            words += self._consent(site.client)
            processes.start(
                site.client,
                "flavor.cli.flavor_fl",
                words,
                environment={**gpus.seen(theirs, site.client), VARIABLE: str(self.layout.blocked(site.client))},
                log=self.layout.log(site.client),
            )

    def _consent(self, client: str) -> list[str]:
        """The options by which this user's own sites take what this user's run asks of them."""
        words = ["--checkpoint", self.config.checkpoint, *([] if self.config.kind.is_safe else ["--opaque"])]
        words += [word for name in settings_of(self.config, client) for word in ("--allow-set", name)]
        return [*words, "--strip-prefix"] if self.strip_prefix else words

    def _aggregator_words(self) -> list[str]:
        words = ["--workspace", str(self.layout.workspace("aggregator"))]
        words += ["-e", self.central[0], "--evaluate-input", self.central[1]] if self.central else []
        if self.aggregator_main is None:
            return words
        words += ["-m", self.aggregator_main]
        return [*words, "--init-once"] if self.init_once else words

    def _watch(
        self,
        runs: RunStore,
        processes: ProcessGroup,
        progress: Progress,
        folder: ResultFolder,
        store: ObjectStore,
        newest: str,
        waits: Waits,
    ) -> RunView:
        """Follow the run's log, from its entry `newest` on, until the run has ended."""
        told: set[str] = set()
        looked, waits_looked = 0.0, time.monotonic()
        while True:
            for logged in read_log(runs, after=newest, wait_ms=_LOOK_MS):
                newest = logged.id
                show(progress, runs, logged.event, self.layout.logs, told)
            view = runs.find()
            if time.monotonic() - waits_looked > _WAITS_S:
                waits.look(snapshot_if_there(runs))
                waits_looked = time.monotonic()
                for line in () if progress.is_live else waits.news():
                    progress.tell(line)
            if view is not None:
                size = view.global_model.size_bytes if view.global_model else 0
                for closed in self._written(folder, runs, store, view, progress, told):
                    progress.closed(closed, size * len(closed.clients))
                if view.state.ended:
                    for logged in read_log(runs, after=newest):  # what came between the two looks
                        show(progress, runs, logged.event, self.layout.logs, told)
                    return view
                if progress.is_live and time.monotonic() - looked > _LOOK_MS / 1000:
                    progress.look(take_snapshot(runs), waits.lines())
                    looked = time.monotonic()
            self._check(runs, view, processes, progress, told)

    @staticmethod
    def _written(
        folder: ResultFolder, runs: RunStore, store: ObjectStore, view: RunView, progress: Progress, told: set[str]
    ) -> list[RoundResult]:
        """Write the results of newly closed rounds; a folder that cannot be written for now does not end the run."""
        try:
            return folder.update(runs, store, view)
        except Exception as error:
            line = f"the results of newly closed rounds cannot be written into {folder.out} yet: {error}"
            if line not in told:
                told.add(line)
                progress.tell(line)
            return []

    def _check(
        self,
        runs: RunStore,
        view: RunView | None,
        processes: ProcessGroup,
        progress: Progress,
        told: set[str],
    ) -> None:
        """End the run when a process has ended without which the run cannot go on."""
        for name in [name for name in processes.names if name not in told and processes.exit_code(name) is not None]:
            told.add(name)
            code = processes.exit_code(name)
            is_edge = any(site.client == name for site in self.sites)
            reason = f"{name}: {why_ended(runs, code, processes.last_line(name))}"
            if view is None:
                raise RunError(f"{reason} (exit code {code}; its log: {self.layout.log(name)})")
            remaining = sum(processes.exit_code(site.client) in (None, 0) for site in self.sites)
            if is_edge and (code == 0 or view.state is not RunState.WAITING or remaining >= view.config["min_clients"]):
                continue  # the coordinator decides
            if not is_edge and runs.read().state.ended:
                continue
            if not is_edge and code is not None and code < 0 and processes.restart(name, most=_RESTARTS):
                told.discard(name)
                progress.tell(f"{name} was {described_exit(code)} and is started again")
                continue
            if is_edge:
                client = runs.clients([name])[name][0]
                reason = f"{name}: {quoted(client.reason)}" if client.reason else reason
                if f"lost {name}" not in told:
                    told.add(f"lost {name}")
                    progress.tell(f"{with_report(reason, client.report)}; its log: {self.layout.log(name)}")
                    runs.log(ClientLost.name, client=name, reason=reason.removeprefix(f"{name}: "))
            else:
                progress.tell(f"{reason}; its log: {self.layout.log(name)}")
            kind = "an edge" if is_edge else "the coordinator" if name == "coordinator" else "an aggregator"
            with contextlib.suppress(IllegalMove):
                runs.end(RunState.FAILED, f"{kind} ended with exit code {code}", detail=reason)
