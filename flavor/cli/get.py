"""`flavor get`: write a global model of a run into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flavor.checkpoints.format import FORMATS, Format, format_of_ending, is_misleading
from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import opened_run, store_of_run
from flavor.cli.options import redis_option, store_option, store_settings, store_url
from flavor.cli.output import print_line
from flavor.cli.program import one_line_errors
from flavor.cli.round_option import chosen_round, round_option, why_pruned
from flavor.errors import InvalidSetting, RunError, StoreError

if TYPE_CHECKING:
    from flavor.records.objects import ObjectRef
    from flavor.records.run import RunView
    from flavor.store.protocol import ObjectStore


@click.command(
    cls=GroupedCommand,
    example="flavor get flavor-runs/mammo --output model.pth --format torch\n"
    "flavor get mammo --round 10 --redis-url redis://localhost",
)
@click.argument("run", metavar="RUN|FOLDER")
@round_option(
    "Number of the round whose global model is written, or `last` for the newest closed round, or `best` for the best "
    "by the run's --select."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="Format of the file. It is required if --output ends in .npz, .safetensors or .pkl and the default is another "
    "format. Other endings choose none: pass torch for a file that torch.load reads.  "
    "[default: the format in which the training scripts save]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Path of the file.  [default: RUN-round-NUMBER with the extension of the format, in the current folder]",
)
@click.option(
    "--whole",
    is_flag=True,
    help="Write the whole model of a run that shares a part of it: the other tensors are those of --init-model.  "
    "[default: the shared tensors]",
)
@redis_option
@store_option
@one_line_errors
def get(
    run: str,
    round_: int | None,
    format_: str | None,
    output: Path | None,
    whole: bool,
    redis_url: str | None,
    store: str | None,
) -> None:
    """Write a global model of a run into a file.

    Writes the global model that a round has made, and prints the path of the file. RUN is the name of a run on Redis.
    FOLDER is the result folder of `flavor run`, which needs no --redis-url. Metrics that sites report in round N belong
    to the model of round N-1, from which round N began, unless the training script evaluates the model that it has
    trained.
    """
    from flavor.checkpoints.kinds import kind_of_run
    from flavor.ledger.rounds import closed_round
    from flavor.results.whole_model import others_in, why_not_whole
    from flavor.store.open import open_store
    from flavor.store.trouble import require_mounted

    with opened_run(run, redis_url) as found_run:
        runs = found_run.runs
        view = runs.read_own()
        closed, _ = runs.closed(view)
        number = chosen_round(runs, view, closed, round_)
        store = store_url(store, found_run.store) or store_of_run(found_run.run, view.config)
        objects = open_store(store, settings=store_settings())
        try:
            found = closed_round(runs, objects, number, newest=view.round)
        except StoreError as error:
            raise RunError(f"the model of round {number} of run {found_run.run!r} cannot be read: {error}") from None
        if found is None or found.model is None:
            have = f"rounds 1 to {closed} are closed" if closed else "no round is closed yet"
            raise RunError(f"run {found_run.run!r} has no model of round {number or 1}: {have}")
        if not objects.exists(found.model.path):
            require_mounted(objects, found_run.run)
            raise RunError(why_pruned(found_run.run, number))
        kind = kind_of_run(view.config)
        saved = view.global_model.format if view.global_model else ""
        if format_ and format_ not in kind.formats:
            raise InvalidSetting(f"--format: this run's models are files that flavor does not look into ({kind.name})")
        ending = format_of_ending(output.name) if output and not format_ else None
        named = ending if ending in kind.formats else None
        if named and saved and named != saved and {named, saved} != {Format.PICKLE, Format.TORCH}:  # torch saves .pkl
            raise InvalidSetting(
                f"{output}: its ending stands for the format {named}, and the training scripts save {saved}: pass "
                f"--format {named} or --format {saved}"
            )
        chosen, format_ = format_, format_ or saved or named or kind.wire_format
        target = output or Path(f"{found_run.run}-round-{number:04d}{kind.extension(format_)}")
        if target.exists():
            raise InvalidSetting(f"{target} exists already: name another file by -o")
        if whole and (why := why_not_whole(view)):
            raise RunError(f"--whole: {why}")
        try:
            _write(view, objects, found.model, target, format_, whole=whole)
        except StoreError as error:
            raise RunError(f"the model of round {number} of run {found_run.run!r} cannot be read: {error}") from None
        except OSError as error:
            raise InvalidSetting(f"{target}: {error.strerror or error}") from None
    click.echo(str(target))
    if whole and (of_others := others_in(view)):
        print_line(of_others, err=True)
    if not chosen and is_misleading(target.name, format_):
        why = ", in which the training scripts save" if saved else ""
        print_line(
            f"{target.name} has the format {format_}{why}: torch.load cannot read it. Pass --format torch for a file "
            "that it can read",
            err=True,
        )


def _write(view: RunView, store: ObjectStore, model: ObjectRef, target: Path, format_: str, *, whole: bool) -> None:
    """Write a copy of the model: a link would be the store's own object, open to each process that writes to this."""
    from flavor.checkpoints.kinds import kind_of_run
    from flavor.results.whole_model import make_whole
    from flavor.store.digests import copy_of

    kind = kind_of_run(view.config)
    own = target if format_ == kind.wire_format else target.with_name(f".{target.name}.wire")
    try:
        copy_of(store, model, own)
        if whole:
            make_whole(view, store, own)
        if own != target:
            kind.from_wire(own, target, format_)
    finally:
        if own != target:
            own.unlink(missing_ok=True)
