"""`flavor demo`: run a whole federation on this machine, with data and a training script of its own."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flavor.cli.beside import PageBeside, ui_option
from flavor.cli.help import GroupedCommand
from flavor.cli.options import redis_option, store_option, store_settings
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.run import result_options
from flavor.cli.run_options import run_options
from flavor.config import RunConfig

if TYPE_CHECKING:
    from flavor.demo.data import SiteData
    from flavor.local.plan import Layout
    from flavor.local.progress import Progress
    from flavor.results.folder import Results


@click.command(cls=GroupedCommand, example="flavor demo")
@run_options(only=["rounds"], defaults={"rounds": 40})
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random seed for the data split, the first weights and the batches.",
)
@result_options
@ui_option
@redis_option
@store_option
@one_line_errors
def demo(
    *,
    rounds: int,
    seed: int,
    run_name: str | None,
    out: Path | None,
    as_json: bool,
    with_page: bool,
    ui_token: str | None,
    redis_url: str | None,
    store: str | None,
) -> None:
    """Federate handwritten digits over three sites on this machine.

    Each site has images of three or four of the ten digits. The sites train one model together, as `flavor run` does
    with your own training script. Then each site trains a model alone, with the same number of steps, and all models
    are tested on the same images. The exit code is 0 only for a finished run.
    """
    from flavor.demo.data import SITES, split
    from flavor.local.federation import Federation
    from flavor.local.plan import Layout, Site, new_run_name
    from flavor.local.progress import Progress
    from flavor.records.names import checked_name

    raise_on_sigterm()
    name = checked_name(run_name or new_run_name(), "--run")
    layout = Layout((out or Path("flavor-runs") / name).absolute())
    config = RunConfig.parse(
        {"rounds": rounds, "min_clients": len(SITES), "on_quorum_lost": "wait", "store": store or str(layout.store)}
    )
    data = split(seed)
    layout.check_unused()
    was_there = layout.out.exists()
    layout.make()
    for site, held in data.items():
        held.save(layout.out / "sites" / site)
    federation = Federation(
        run=name,
        config=config,
        sites=[Site(site, layout.out / "sites" / site) for site in data],
        main=f"{shlex.quote(sys.executable)} -m flavor.demo.trainer {seed}",
        preprocess=None,
        layout=replace(layout, is_begun=True),
        redis_url=redis_url,
        store=store,
        store_settings=store_settings(),
        environment={
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },  # small matrices, few cores
    )
    progress = Progress(name, rounds, quiet=as_json)
    shares = ", ".join(f"{site} has {own[0]} to {own[-1]}" for site, own in SITES.items())
    progress.console.print(f"Three sites learn handwritten digits; their images stay where they are: {shares}.")
    page = PageBeside(with_page, ui_token, progress.tell, stays=False if as_json else None)
    with _leaving_nothing_unbegun(layout.out, is_own=not was_there):
        results = page.added(federation).carry_out(progress)
    with page.staying():
        _tell_of(results, layout, data, progress, rounds=rounds, seed=seed, as_json=as_json)
    sys.exit(0 if results.state == "finished" else 1)


def _tell_of(
    results: Results,
    layout: Layout,
    data: Mapping[str, SiteData],
    progress: Progress,
    *,
    rounds: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare the model of all sites with those of each, and print that."""
    from flavor.atomic import write_json
    from flavor.demo.comparison import Comparison

    finished = results.state == "finished"
    comparison = None
    if finished and results.global_model is not None:
        comparison = Comparison.measure(data, Path(results.global_model), rounds=rounds, seed=seed)
    summary = {**results.written(), "accuracy": comparison.to_mapping() if comparison else None}
    write_json(layout.out / "summary.json", summary)
    if as_json:
        click.echo(json.dumps(summary))
    elif comparison:
        progress.console.print(comparison.table())
        progress.console.print(f"\n{comparison.conclusion()}\n")
        progress.tell(f"everything:  {results.out}")
        progress.tell('next:        flavor run -m "python your_script.py" --input-glob "data/site*/"')
    else:
        progress.tell(f"{results.state}: {results.reason}")
        progress.tell(f"everything:  {results.out}")


@contextlib.contextmanager
def _leaving_nothing_unbegun(out: Path, *, is_own: bool) -> Iterator[None]:
    """Remove what was made in `out` where the run does not begin, so that the same command can be given again.

    Removes `out`, too, if it `is_own`.
    """
    from flavor.local.record import Record

    try:
        yield
    except BaseException:
        if not Record.is_in(out):
            shutil.rmtree(out / "sites", ignore_errors=True)
            if is_own:
                with contextlib.suppress(OSError):  # something else is in it
                    out.rmdir()
        raise
