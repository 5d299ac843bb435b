"""`flavor contributions`: show which site helps a run, and which one hurts."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flavor.cli.by_sites import trial_by_sites
from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import named_store, opened_run, store_of_run
from flavor.cli.options import redis_option, store_option, store_settings
from flavor.cli.output import print_line, print_table
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.trust_options import trust_option
from flavor.errors import FlavorError, InvalidSetting, MisuseError, RunError

if TYPE_CHECKING:
    from flavor.contributions.by_command import ByCommand
    from flavor.contributions.kept import Kept
    from flavor.contributions.result import Contributions
    from flavor.contributions.trial import Trial
    from flavor.ledger.archive import Archive
    from flavor.policy.selection import Select


@click.command(
    cls=GroupedCommand,
    example="flavor contributions mammo --redis-url redis://localhost\n"
    "flavor contributions mammo --by-sites --metric accuracy:max \\\n    --redis-url redis://localhost\n"
    'flavor contributions flavor-runs/mammo -e "python evaluate.py" \\\n    --input data/test --metric accuracy:max',
)
@click.argument("run", metavar="RUN|FOLDER")
@click.option(
    "-e",
    "--evaluate-main",
    "evaluate_command",
    metavar="CMD",
    help="Command that judges one global model on this machine, e.g. 'python evaluate.py', as `flavor-fl -e` takes it. "
    "Each round's model is aggregated again without one site after another, and judged.",
)
@click.option(
    "--input",
    "input_path",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data with which the command of -e judges (INPUT_PATH).  [default: the current folder]",
)
@click.option(
    "--by-sites",
    "by_sites",
    is_flag=True,
    help="Have the sites of the run judge these models in place of a command. Only sites take part that allow others "
    "to judge their updates (flavor-fl --allow-cross).",
)
@click.option(
    "--metric",
    metavar="NAME:max|min",
    help="Metric by which the models are judged, and which of its values are better: NAME alone where its name says "
    "that, as of accuracy or loss.  [default: the run's --select]",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for the sites of --by-sites, for each model.  [default: the run's --evaluation-timeout-s]",
)
@click.option(
    "--rounds",
    "most",
    type=click.IntRange(min=1),
    help="Number of newest rounds to look at.  [default: as many as --keep-rounds keeps, 10 at most]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with each round in place of the table.")
@redis_option
@store_option
@trust_option
@one_line_errors
def contributions(
    run: str,
    evaluate_command: str | None,
    input_path: Path | None,
    by_sites: bool,
    metric: str | None,
    timeout_s: float | None,
    most: int | None,
    as_json: bool,
    redis_url: str | None,
    store: str | None,
    trusted: tuple[str, ...],
) -> None:
    """Show which site helps a run, and which one hurts.

    Compares the change that each site has made to the global model with the mean change of all sites, in the newest
    rounds whose updates are in the object store (--keep-rounds): its cosine, from -1 to 1, and its norm as a multiple
    of the mean's. That needs no evaluation.

    With -e it aggregates each round again without one site after another, by the run's own rule, and judges the models
    on this machine. The contribution of a site is how much better the model is with the site than without it. All
    updates together have to give the recorded global model bit for bit, or no site is left out.

    With --by-sites the sites of the run judge these models on their own data, also while the run goes on, or after its
    end where `flavor-fv` runs, which cannot reach a run in a result folder. What a site's own data say of its own
    update is shown apart. Ctrl-C gives up the evaluations that are open, and removes the models from the store.

    Every update is read by the digests of signed records. No site learns the result: Redis keeps the newest one for
    `flavor ui`, and a result folder gets it as contributions.json. RUN is the name of a run on Redis, or with --store
    of a run in the object store. FOLDER is the result folder of `flavor run`.
    """
    from flavor.contributions.kept import read_kept
    from flavor.ledger.trust import Trust
    from flavor.programs.command import parse_command

    raise_on_sigterm()
    command = parse_command(evaluate_command, "-e") if evaluate_command else None
    _check(is_judged=command is not None, by_sites=by_sites, metric=metric, input_path=input_path, timeout_s=timeout_s)
    input_path = input_path or Path.cwd()
    if not input_path.is_dir():
        raise InvalidSetting(f"--input {input_path}: there is no such folder")
    chosen = _chosen(metric)
    archive, run_id = _archive(run, redis_url, store)
    kept = read_kept(archive, Trust.read(trusted), most, run_id=run_id)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flavor-contributions-")))
        trial: Trial | None = None
        if by_sites:
            trial = trial_by_sites(run, redis_url, kept, archive.store, chosen, timeout_s, folder, stack)
        elif command is not None:
            trial = _trial(kept, command, input_path, chosen, folder)
        found = _measured(archive, kept, trial)
    if as_json:
        click.echo(json.dumps(found.described(), indent=2, allow_nan=False))
    else:
        _show(found)
    _keep(run, found)
    _publish(run, redis_url, found)
    if not trusted:
        print_line("not checked: whose key the records are signed with (--trust names those you know)", err=True)
    if trial is not None and not found.is_judged:
        raise RunError("no site could be left out in any round: the reasons are above (with --json: why_not)")


def _check(
    *, is_judged: bool, by_sites: bool, metric: str | None, input_path: Path | None, timeout_s: float | None
) -> None:
    """Raise `MisuseError` for options that do not go together; `is_judged` says that there is a command of -e."""
    if is_judged and by_sites:
        raise MisuseError("-e and --by-sites exclude each other: both name who judges the models")
    if input_path and not is_judged:
        raise MisuseError("--input is for a command that judges models: pass -e CMD")
    if metric and not (is_judged or by_sites):
        raise MisuseError("--metric is for models that are judged: pass -e CMD or --by-sites")
    if timeout_s and not by_sites:
        raise MisuseError("--timeout-s is for sites that judge models: pass --by-sites")


def _chosen(metric: str | None) -> Select | None:
    from flavor.policy.selection import Select
    from flavor.results.direction import direction_of

    try:
        return Select.parse(metric) if metric is not None else None
    except ValueError as error:
        if metric is not None and (direction := direction_of(metric.strip())):
            return Select(metric.strip(), direction > 0)
        raise InvalidSetting(f"--metric {metric!r}: {error}") from None


def _archive(run: str, redis_url: str | None, store: str | None) -> tuple[Archive, str]:
    """Return the run's records in its store, and its id as Redis has it; '' where Redis is not asked."""
    from flavor.ledger.archive import Archive
    from flavor.local.record import is_folder
    from flavor.records.names import checked_name
    from flavor.store.open import open_store

    run_id = ""
    if store or is_folder(run):
        name, url = named_store(run, store)
    else:
        with opened_run(run, redis_url) as found:
            view = found.runs.read()
            name, url, run_id = found.run, store_of_run(found.run, view.config), view.run_id
    return Archive(open_store(url, settings=store_settings()), checked_name(name, "run")), run_id


def _measured(archive: Archive, kept: Kept, trial: Trial | None) -> Contributions:
    from aggregators.blocks import SMALL_ELEMENTS, threads_for
    from flavor.contributions.measure import measure

    is_told = trial is not None and trial.by_sites  # in lines, one for each evaluation
    with _progress(drawn=not is_told) as progress:
        return measure(kept, archive.store, threads=threads_for(SMALL_ELEMENTS), trial=trial, progress=progress)


def _trial(kept: Kept, command: Sequence[str], input_path: Path, select: Select | None, folder: Path) -> ByCommand:
    from flavor.contributions.by_command import ByCommand
    from flavor.contributions.judge import CommandJudge
    from flavor.evaluation_settings import select_of
    from flavor.policy.selection import Select
    from flavor.records.counts import CENTRAL_PREFIX
    from flavor.script_settings import settings_not_taken

    config = kept.rounds[-1].config
    if config.parts:
        raise MisuseError(
            f"-e: the run shares a part of the model ({config.parts.options}), so that only its sites have whole "
            "models: have them judge (--by-sites)"
        )
    of_run = select_of(config)
    option = f"--metric {select}" if select is not None else f"the run's --select {of_run}"
    select = select or of_run
    if select is None:
        raise MisuseError(
            "the run has no --select: name the metric of the command of -e, and which of its values are better, e.g. "
            "--metric accuracy:max"
        )
    select = Select(select.name.removeprefix(CENTRAL_PREFIX), select.is_larger)  # the command measures it by that name
    refused = settings_not_taken(config.settings)
    if refused:
        print_line(
            f"the command of -e does not get {', '.join(refused)}, which the run sets by --set and no program takes "
            "unseen: export what it needs before you call this",
            err=True,
        )
    judge = CommandJudge(
        command=command,
        input=input_path,
        folder=folder / "evaluator",
        run=kept.run,
        rounds=config.rounds,
        settings={name: value for name, value in config.settings.items() if name not in refused},
        kind=config.kind,
        select=select,
        option=option,
    )
    return ByCommand(judge, select, folder)


@contextlib.contextmanager
def _progress(*, drawn: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function (done, total), which draws a bar on stderr in a terminal, if it is to be `drawn`."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not (drawn and sys.stderr.isatty())) as bar:
        task = bar.add_task("models", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(found: Contributions) -> None:
    from flavor.contributions.result import how_to_read, lines_of, table_of

    for line in lines_of(found):
        print_line(line)
    heads, rows = table_of(found)
    print_table(heads, rows)
    print_line(how_to_read(found))


def _keep(run: str, found: Contributions) -> None:
    """Put the result into the result folder of a local run, which only this user's programs read."""
    from flavor.atomic import write_whole
    from flavor.contributions.result import FILE
    from flavor.local.record import is_folder

    if is_folder(run):
        write_whole(Path(run) / FILE, json.dumps(found.described(), indent=2, allow_nan=False), mode=0o600)


def _publish(run: str, redis_url: str | None, found: Contributions) -> None:
    """Put the result into Redis, for people who look at the run. What is in the way of that is told, and no error."""
    from flavor.local.record import is_folder

    if not redis_url and not is_folder(run):
        return
    try:
        with opened_run(run, redis_url) as opened:
            if not opened.runs.put_contributions(found.run_id, found.for_page()):
                raise RunError(f"Redis has no run {found.run!r} with the id {found.run_id}")
    except FlavorError as error:
        print_line(f"`flavor ui` does not show this result: {error}", err=True)
