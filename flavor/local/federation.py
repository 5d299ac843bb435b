"""Start a federation on this machine, watch it, end it, collect what it made."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flavor.bus.address import to_environment
from flavor.bus.connection import connect, wait_for_server
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.bus.state import RoundState, RunState, RunView
from flavor.errors import IllegalMove, RunError, RunExists
from flavor.local.plan import Layout, Site
from flavor.local.processes import ProcessGroup
from flavor.local.progress import Progress, counted
from flavor.local.results import Results, collect, round_result
from flavor.process import described_exit
from flavor.store.cache import cache_environment
from flavor.store.objects import open_store
from flavor.store.paths import run_record_path

_LOOK_MS = 200
_END_S = 30.0
_RESTARTS = 3


@dataclass(frozen=True)
class Federation:
    """A local run: what to start. `serve_options` are those of `flavor serve`, as words."""

    run: str
    rounds: int
    sites: Sequence[Site]
    main: str
    preprocess: str | None
    layout: Layout
    redis_url: str | None = field(default=None, repr=False)
    store: str | None = None
    serve_options: Sequence[str] = ()
    edge_options: Sequence[str] = ()
    """Further options of each `flavor-fl`, as words."""
    format: str | None = None
    workers: int = 1
    aggregator_main: str | None = None
    init_once: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def carry_out(self, progress: Progress) -> Results:
        """Run to the end. Whatever happens, Ctrl-C included, no process is left behind.

        Raises `FlavorError` when nothing could be started; otherwise the results say how the run ended.
        """
        self.layout.check_unused()
        if self.store is not None and open_store(self.store, create=True).exists(run_record_path(self.run)):
            raise RunExists(f"run {self.run!r} is in the store {self.store} already: choose another --run")
        with contextlib.ExitStack() as stack:
            url = self.redis_url or stack.enter_context(embedded_server())
            redis = connect(url, patience_s=10.0, client_name="flavor-run")
            wait_for_server(redis, url)
            runs = RunStore(redis, self.run, url)
            if runs.find() is not None:
                raise RunExists(f"there is a run {self.run!r} on this Redis already: choose another --run")
            self.layout.prepare()  # not before it is clear that something will start
            progress.tell(f"run {self.run}: {counted(len(self.sites), 'edge')}, {counted(self.rounds, 'round')}")
            processes = stack.enter_context(ProcessGroup())
            store_url = open_store(self.store or str(self.layout.store), create=True).url
            self._start(processes, url, store_url)
            try:
                with progress:
                    view = self._watch(runs, processes, progress)
            except BaseException:
                with contextlib.suppress(Exception):  # edges and coordinator are stopped by signal then
                    runs.end(RunState.STOPPED, "interrupted")
                processes.wait(self._ending(processes), 2.0)
                raise
            processes.wait(self._ending(processes), _END_S)
            results = collect(runs, open_store(store_url), self.layout.out)
            if view.state is RunState.FINISHED and self.store is None:
                shutil.rmtree(self.layout.store, ignore_errors=True)
            return results

    def _ending(self, processes: ProcessGroup) -> list[str]:
        """Those that still run and end by themselves when the run has."""
        ours = {"coordinator", *(site.client for site in self.sites)}
        return [name for name in processes.running if name in ours]

    def _start(self, processes: ProcessGroup, url: str, store: str) -> None:
        environment = {
            **to_environment(os.environ, url),
            **self.environment,
            "FLAVOR_STORE": store,
            **cache_environment(),
            "FLAVOR_RUN": self.run,
            "PYTHONUNBUFFERED": "1",
        }
        for variable in (
            "FLAVOR_CLIENT",
            "FLAVOR_WORKSPACE",
            "INPUT_PATH",
            "OUTPUT_PATH",
            "LOCAL_MODEL_PATH",
            "GLOBAL_MODEL_PATH",
            "LOG_PATH",
            "FLAVOR_KEY",
        ):
            environment.pop(variable, None)  # each edge has folders of its own
        queue = f"flavor-{self.run}"
        serve = ["serve", "--rounds", str(self.rounds), "--queue", queue, *self.serve_options]
        processes.start(
            "coordinator",
            "flavor.cli.main",
            serve,
            environment=environment,
            log=self.layout.log("coordinator"),
        )
        for number in range(1, self.workers + 1):
            name = "aggregator" if self.workers == 1 else f"aggregator-{number}"
            processes.start(
                name,
                "flavor.cli.aggregator",
                ["--queue", queue, *self._aggregator_words()],
                environment=environment,
                log=self.layout.log(name),
            )
        for site in self.sites:
            words = ["-m", self.main, "--client", site.client, "--input", str(site.input)]
            words += ["--workspace", str(self.layout.workspace(site.client))]
            words += ["-p", self.preprocess] if self.preprocess else []
            words += ["--format", self.format] if self.format else []
            words += ["--report-output", *self.edge_options]  # site and operator are the same here
            processes.start(
                site.client,
                "flavor.cli.edge",
                words,
                environment=environment,
                log=self.layout.log(site.client),
            )

    def _aggregator_words(self) -> list[str]:
        words = ["--workspace", str(self.layout.workspace("aggregator"))]
        if self.aggregator_main is None:
            return words
        words += ["-m", self.aggregator_main]
        return [*words, "--init-once"] if self.init_once else words

    def _watch(self, runs: RunStore, processes: ProcessGroup, progress: Progress) -> RunView:
        """Follow the run's log until the run has ended."""
        newest = "0"
        shown = 0
        told: set[str] = set()
        looked = 0.0
        while True:
            batches = runs.redis.xread({runs.keys.log: newest}, block=_LOOK_MS)
            entries = batches[0][1] if batches else []
            newest = entries[-1][0] if entries else newest
            for _, fields in entries:
                if fields["event"] in ("update.refused", "client.lost", "round.attempt_failed", "round.note"):
                    progress.tell(f"{fields.get('client') or 'aggregator'}: {fields['reason']}{_report(runs, fields)}")
            view = runs.find()
            if view is not None:
                shown = self._show_closed(runs, view, progress, shown)
                if view.state.ended:
                    return view
                if progress.is_live and time.monotonic() - looked > _LOOK_MS / 1000:
                    progress.look(runs, view)
                    looked = time.monotonic()
            self._check(runs, view, processes, progress, told)

    def _show_closed(self, runs: RunStore, view: RunView, progress: Progress, shown: int) -> int:
        store = None
        for number in range(shown + 1, view.round + 1):
            round_ = runs.read_round(number)
            if round_ is None or round_.state is not RoundState.CLOSED:
                break
            store = store or open_store(view.config["store"])
            info = json.loads(store.local(round_.info_path).read_text())
            progress.closed(round_result(round_, info), round_.size_bytes * len(round_.expected))
            shown = number
        return shown

    def _check(
        self,
        runs: RunStore,
        view: RunView | None,
        processes: ProcessGroup,
        progress: Progress,
        told: set[str],
    ) -> None:
        """End the run when a process without which it cannot go on has ended."""
        for name in [name for name in processes.names if name not in told and processes.exit_code(name) is not None]:
            told.add(name)
            code = processes.exit_code(name)
            is_edge = any(site.client == name for site in self.sites)
            reason = f"{name}: {processes.last_line(name)}"
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
                reason = f"{name}: {client['reason']}" if client.get("reason") else reason
                if report := client.get("report"):
                    progress.tell(f"{name}: {report}")
            progress.tell(f"{reason}; its log: {self.layout.log(name)}")
            kind = "an edge" if is_edge else "the coordinator" if name == "coordinator" else "an aggregator"
            with contextlib.suppress(IllegalMove):
                runs.end(RunState.FAILED, f"{kind} ended with exit code {code}", detail=reason)


def _report(runs: RunStore, entry: Mapping[str, str]) -> str:
    """What the site itself says about this entry of the log, to be put behind it: here its user is the operator."""
    client = entry.get("client", "")
    if entry["event"] == "client.lost":
        report = runs.clients([client])[client][0].get("report")
    elif entry["event"] == "update.refused":
        report = runs.updates(int(entry["round"]), [client]).get(client, {}).get("report")
    else:
        report = None
    return f" ({report})" if report else ""
