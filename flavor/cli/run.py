"""`flavor run`: run a whole federation on this machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flavor.checkpoints.format import SITE_FORMATS
from flavor.cli.beside import PageBeside, ui_option
from flavor.cli.from_run import beginning_of, from_run_options
from flavor.cli.help import GroupedCommand
from flavor.cli.notify import notify_options, with_notices
from flavor.cli.options import redis_option, store_option, store_settings
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.run_checks import central_of, check_judged, check_named, check_own_aggregator
from flavor.cli.run_options import config_of, run_options
from flavor.cli.serve import check_initial, check_rule, init_model_option
from flavor.counted import are, counted

if TYPE_CHECKING:
    from flavor.local.federation import Federation
    from flavor.local.progress import Progress
    from flavor.records.run import RunView
    from flavor.results.folder import Results


NOTHING: Mapping[str, str] = {}


def result_options(function: Any) -> Any:
    """Add the options that name a local run and its results, which `flavor demo` has, too."""
    for option in reversed(
        [
            click.option("--run", "run_name", metavar="NAME", help="Name of the run.  [default: run-DATE-TIME-XXXX]"),
            click.option(
                "--out",
                type=click.Path(file_okay=False, path_type=Path),
                help="Folder for the results.  [default: flavor-runs/NAME]",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end and nothing else."),
        ]
    ):
        function = option(function)
    return function


@click.command(cls=GroupedCommand, example='flavor run -m "python main.py" --edges 3 --rounds 5')
@click.option(
    "-m",
    "--main",
    "main_command",
    metavar="CMD",
    help="Training command, e.g. 'python main.py'.  [required without --resume]",
)
@click.option(
    "-p",
    "--preprocess",
    "preprocess_command",
    metavar="CMD",
    help="Command that each edge runs once before the training command.",
)
@click.option(
    "-e",
    "--evaluate-main",
    "evaluator",
    metavar="CMD",
    help="Command that judges a global model at each edge, e.g. 'python evaluate.py'; --evaluate says which models.",
)
@click.option(
    "--central-evaluate",
    "central_evaluator",
    metavar="CMD",
    help="Command that judges global models on the data of --evaluate-input, beside the rounds, e.g. 'python "
    "evaluate.py'; --evaluate says which models.",
)
@click.option(
    "--evaluate-input",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the data on which --central-evaluate judges models.",
)
@click.option(
    "--edges",
    type=click.IntRange(min=1, max=1000),
    help="Number of edges to start.  [default: one for each folder of --input-glob]",
)
@click.option(
    "--resume",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Go on with the interrupted, failed or stopped run in this result folder. Options that `flavor resume` takes "
    "may change, and -m and -p may until a round has closed; all other settings stay as they were when the run began.",
)
@click.option(
    "--input",
    "input_path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="INPUT_PATH",
    show_envvar=True,
    help="Input folder of all edges.  [default: the current folder]",
)
@click.option(
    "--input-glob",
    metavar="PATTERN",
    help="Pattern of input folders, e.g. 'site*/': one edge starts for each matching folder.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(SITE_FORMATS),
    help="Format of the training script's checkpoints; 'sharded' is a folder of safetensors shards.  [default: the "
    "format in which it saves]",
)
@click.option(
    "--strip-prefix",
    is_flag=True,
    help="Remove the prefixes 'module.' (DataParallel) and '_orig_mod.' (torch.compile) from the names of tensors, and "
    "add them to the global model again.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Number of aggregators to start."
)
@click.option(
    "--devices",
    metavar="LIST",
    help="GPUs for the sites, which take them by turns, e.g. '0,1', or '0+1,2+3' for two GPUs each: numbers of "
    "nvidia-smi, or names of `nvidia-smi -L` (GPU-…, MIG-…). The scripts of a site find its GPUs in "
    "CUDA_VISIBLE_DEVICES.  [default: all scripts see all GPUs]",
)
@click.option(
    "-am",
    "--aggregator-main",
    "aggregator_main",
    metavar="CMD",
    help="Command of your own aggregator, e.g. 'python aggregate.py', which is started in each round.",
)
@click.option(
    "--init-once",
    is_flag=True,
    help="Start your own aggregator once, and drive it with events.  [default: start it in each round]",
)
@run_options(without=["queue"], defaults={"rounds": 5, "min_clients": None}, absent={"min_clients": "all edges"})
@init_model_option
@from_run_options
@result_options
@ui_option
@notify_options
@redis_option
@store_option
@one_line_errors
def run(
    main_command: str | None,
    resume: Path | None,
    preprocess_command: str | None,
    evaluator: str | None,
    central_evaluator: str | None,
    evaluate_input: Path | None,
    edges: int | None,
    input_path: Path | None,
    input_glob: str | None,
    format_: str | None,
    strip_prefix: bool,
    workers: int,
    devices: str | None,
    aggregator_main: str | None,
    init_once: bool,
    run_name: str | None,
    out: Path | None,
    as_json: bool,
    with_page: bool,
    ui_token: str | None,
    notify: tuple[str, ...],
    notify_after_s: float,
    redis_url: str | None,
    store: str | None,
    init_model: Path | None,
    from_run: str | None,
    from_round: int | None,
    **settings: Any,
) -> None:
    """Run a whole federation with your own training script on this machine.

    Starts a Redis server (unless --redis-url names one), a coordinator, an aggregator and one edge for each client,
    each with its own folders. Shows the run live, and writes models, client information, metrics and logs into the
    result folder. Ctrl-C stops all processes and keeps the closed rounds; the run goes on with --resume. The exit code
    is 0 only for a finished run.
    """
    beside = Beside(with_page, ui_token, notify, notify_after_s)
    if resume is not None:
        sys.exit(_resumed(resume.absolute(), redis_url, as_json, beside))
    from flavor.errors import InvalidSetting
    from flavor.local.devices import groups_of
    from flavor.local.federation import Federation
    from flavor.local.plan import Layout, new_run_name, sites
    from flavor.programs.command import parse_command
    from flavor.records.names import checked_name

    if main_command is None:
        raise click.UsageError("Missing option '-m' / '--main': the training command, e.g. -m 'python main.py'.")
    parse_command(main_command, "-m")
    if preprocess_command:
        parse_command(preprocess_command, "-p")
    if evaluator:
        parse_command(evaluator, "-e")
    central = central_of(central_evaluator, evaluate_input)
    given = click.get_current_context().get_parameter_source("input_path")
    if input_glob is not None and given is ParameterSource.ENVIRONMENT:
        input_path = None
    clients = sites(edges, input_path, input_glob)
    if devices is not None:
        groups_of(devices)
    name = checked_name(run_name or new_run_name(), "--run")
    clients_needed = settings["min_clients"] if settings["min_clients"] is not None else len(clients)
    if clients_needed > len(clients):
        there = f"there {are(len(clients))} {counted(len(clients), 'client')}"
        raise InvalidSetting(f"--min-clients {clients_needed}: {there}, so the run would never start")
    layout = Layout((out or Path("flavor-runs") / name).absolute())
    config = config_of({**settings, "min_clients": clients_needed}, store=store or str(layout.store))
    check_rule(config)
    check_own_aggregator(config, aggregator_main, init_once)
    if redis_url is None:  # on a server of the user's, others may judge the models (flavor-fv, flavor-agg -e)
        check_judged(config, evaluator, central)
        check_named(config, [site.client for site in clients])
    with beginning_of(init_model, from_run, from_round, redis_url) as given_beginning:
        beginning = given_beginning
        if beginning is not None:
            check_initial(beginning.path, config.kind, config.parts)
        elif config.parts and central is not None:
            raise InvalidSetting(
                f"--central-evaluate needs whole models, and only the sites have them ({config.parts.options}): leave "
                "it out, or pass --init-model"
            )
        if beginning is not None and beginning.begun_from is not None:  # to go on with the run, the file has to stay
            layout.check_unused()
            layout.make()
            kept = shutil.copy(beginning.path, layout.out / beginning.path.name)
            layout, beginning = replace(layout, is_begun=True), replace(beginning, path=Path(kept))
    federation = Federation(
        run=name,
        config=config,
        init_model=beginning.path.absolute() if beginning is not None else None,
        begun_from=beginning.begun_from.model_dump() if beginning is not None and beginning.begun_from else None,
        sites=clients,
        main=main_command,
        preprocess=preprocess_command,
        layout=layout,
        redis_url=redis_url,
        store=store,
        store_settings=store_settings(),
        strip_prefix=strip_prefix,
        format=format_,
        workers=workers,
        devices=devices or "",
        aggregator_main=aggregator_main,
        evaluator=evaluator,
        central=central,
        init_once=init_once,
    )
    raise_on_sigterm()
    sys.exit(beside.carry_out(federation, lambda ready, progress: ready.carry_out(progress), as_json=as_json))


@dataclass(frozen=True)
class Beside:
    """What goes on beside a run: a page, and notices."""

    with_page: bool
    token: str | None = field(repr=False)
    notify: tuple[str, ...] = field(repr=False)
    notify_after_s: float

    def carry_out(
        self, federation: Federation, begin: Callable[[Federation, Progress], Results], *, as_json: bool
    ) -> int:
        """Begin a run or go on with it, print how it has ended, and return its exit code."""
        from flavor.local.progress import Progress

        progress = Progress(federation.run, federation.rounds, quiet=as_json, redis_url=federation.redis_url)
        page = PageBeside(self.with_page, self.token, progress.tell, stays=False if as_json else None)
        federation = with_notices(page.added(federation), self.notify, self.notify_after_s, progress.tell)
        results = begin(federation, progress)
        with page.staying():
            return _shown(results, progress, as_json)


def _resumed(out: Path, redis_url: str | None, as_json: bool, beside: Beside) -> int:
    """Go on with the run in `out`. Options that are not settings that may change are refused by name."""
    from flavor.errors import InvalidSetting
    from flavor.programs.command import parse_command
    from flavor.resume import MAY_CHANGE

    context = click.get_current_context()
    commands = {"main_command": "main", "preprocess_command": "preprocess"}
    others = {"resume", "as_json", "with_page", "ui_token", "notify", "notify_after_s", "redis_url", "debug"}
    others |= {"insecure", "tls_ca", "tls_cert", "tls_key"}
    given = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name not in others
    }
    mended = {commands[name]: given.pop(name) for name in commands if name in given}
    for name, command in mended.items():
        parse_command(command, f"-{name[0]}")
    if fixed := sorted(set(given) - MAY_CHANGE):
        spelt = {parameter.name: parameter.opts[-1] for parameter in context.command.params}
        names = ", ".join(spelt.get(name, name) for name in fixed)
        raise InvalidSetting(f"{names}: with --resume it stays as it was when the run began: leave it out")
    return go_on_in(out, redis_url, as_json, beside, given=given, mended=mended)


def go_on_in(
    out: Path,
    redis_url: str | None,
    as_json: bool,
    beside: Beside,
    *,
    given: Mapping[str, Any],
    mended: Mapping[str, str] = NOTHING,
    check: Callable[[RunView, int], None] = lambda view, closed: None,
) -> int:
    """Go on with the run in `out` with these settings and commands; print how it has ended, and return the exit code.

    `check` gets the run and the number of its closed rounds, and may raise before anything changes.
    """
    from flavor.local.federation import Federation
    from flavor.resume import resumed_config

    federation = Federation.of(out, redis_url, store_settings())
    if redis_url is None and set(given) & {"evaluate", "stop_when", "stop_after_no_gain", "set_for"}:
        config, _ = resumed_config(federation.config.to_mapping(), given, closed=0)
        check_judged(config, federation.evaluator, federation.central)
        check_named(config, [site.client for site in federation.sites])
    raise_on_sigterm()
    return beside.carry_out(
        federation, lambda ready, progress: ready.go_on(progress, given, mended, check), as_json=as_json
    )


def _shown(results: Any, progress: Any, as_json: bool) -> int:
    """Print how a run ended, and return its exit code."""
    from flavor.errors import RunFinishedEarly, RunStopped

    if as_json:
        click.echo(results.to_json())
    else:
        progress.summary(results)
    early = len(results.rounds) < progress.rounds and not results.is_met
    return {"finished": RunFinishedEarly.exit_code if early else 0, "stopped": RunStopped.exit_code}.get(
        results.state, 1
    )
