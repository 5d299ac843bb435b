"""`flavor verify`: check the history of a run in its object store."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import named_store
from flavor.cli.options import store_option, store_settings
from flavor.cli.output import cell, print_line
from flavor.cli.program import one_line_errors
from flavor.cli.trust_options import check_ids, run_id_option, trust_option
from flavor.counted import counted
from flavor.sizes import shown_bytes

if TYPE_CHECKING:
    from flavor.ledger.audit import Audit
    from flavor.ledger.chain import Link
    from flavor.ledger.manifest import Contributor

_CLOSING_S = 10.0
"""Seconds that `flavor verify` waits for the manifest of a round that is being closed."""


@click.command(
    cls=GroupedCommand,
    example="flavor verify flavor-runs/mammo\nflavor verify mammo --store s3://models/fl --trust aggregator.key.pub",
)
@click.argument("run", metavar="RUN|FOLDER")
@store_option
@trust_option
@run_id_option
@click.option(
    "--head", metavar="SHA256", default="", help="Head that was printed earlier. It must still be in the chain."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the table.")
@one_line_errors
def verify(run: str, store: str | None, trusted: tuple[str, ...], run_id: str, head: str, as_json: bool) -> None:
    """Check the history of a run in the object store.

    Reads every manifest, signature and object of the run, and needs no Redis. Prints a table of who contributed to
    which global model. Prints a line with round and file for each thing that is wrong, and ends with exit code 1 in
    that case. Updates that --keep-rounds has pruned are known by their digests only. The run may go on while it is
    checked.

    Without --trust, a signature shows that the owner of a key made it, and not who the owner is: a party that can write
    to the store could replace the newest manifests by manifests that are signed with its own key. --trust or an earlier
    --head detects that. An earlier run of the same name that was restored as a whole is detected only by --run-id or
    --head.

    RUN is the name of a run in the object store of --store. FOLDER is the result folder of `flavor run`, which has its
    own store.
    """
    from flavor.ledger.archive import Archive
    from flavor.ledger.audit import audit
    from flavor.ledger.trust import Trust
    from flavor.records.names import checked_name
    from flavor.store.open import open_store

    check_ids(head, run_id)
    trust = Trust.read(trusted)
    run, store = named_store(run, store)
    archive = Archive(open_store(store, settings=store_settings()), checked_name(run, "run"))
    with _progress() as progress:
        found = audit(archive, trust, head=head, run_id=run_id, patience_s=_CLOSING_S, progress=progress)
    if as_json:
        click.echo(json.dumps(_described(found), indent=2))
    else:
        _show(found, trusted=bool(trust.workers))
    for notice in found.notices:
        print_line(f"notice: {notice}", err=True)
    for problem in found.problems:
        print_line(f"wrong: {problem}", err=True)
    sys.exit(1 if found.problems else 0)


def _progress() -> Any:
    """Return a context manager that yields a function (done, total), which draws a bar on stderr in a terminal."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress

    @contextmanager
    def shown() -> Any:
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("objects", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    return shown()


def _rounds(rounds: list[int]) -> str:
    """List the newest of these rounds."""
    newest = ", ".join(map(str, rounds[-10:]))
    return newest if len(rounds) <= 10 else f"…, {newest}"


def _verdict(found: Audit, link: Link) -> str:
    if any(problem.round == link.round for problem in found.problems):
        return "WRONG"
    gone = found.gone.get(link.round, [])
    return f"ok, {len(gone)} pruned" if gone else "ok"


def _named(of: Contributor, chosen: tuple[str, ...] | None) -> str:
    """Name a contributor, with a mark where the rule left its update out, or where it did the task of another round."""
    name = of.client if of.task_round is None else f"{of.client} (task of round {of.task_round})"
    return name if chosen is None or of.client in chosen else f"{name} (left out)"


def _show(found: Audit, *, trusted: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from flavor.ledger.keys import fingerprint

    chain = found.chain
    table = Table("round", "client", "examples", "key", "global model", "signed by", "", box=None, header_style="bold")
    for link in chain.links:
        manifest = link.manifest
        if manifest is None:
            table.add_row(str(link.round), "", "", "", "", "", "WRONG")
            continue
        parts = manifest.contributors
        table.add_row(
            str(link.round),
            cell(*(_named(each, manifest.chosen) for each in parts)),
            cell(*(str(each.num_examples) for each in parts)),
            cell(*(fingerprint(each.public_key) if each.signature else "unsigned" for each in parts)),
            cell(manifest.global_model.digest[:12]),
            fingerprint(manifest.public_key),
            _verdict(found, link),
        )
    Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 200).print(table)
    rounds = counted(chain.rounds, "round") if chain.rounds else "? rounds"
    said = counted(len(found.problems), "thing") + " wrong" if found.problems else "nothing is wrong"
    if chain.record:
        print_line(f"run id: {chain.record.run_id}")
        if chain.record.begun_from is not None:
            print_line(f"begun from: {chain.record.begun_from.words}")
    print_line(
        f"run {chain.run}: {chain.closed} of {rounds} closed, "
        f"{counted(found.checked, 'object')} read ({shown_bytes(found.bytes)}): {said}"
    )
    if found.evaluations:
        judged = sorted({record.manifest.round for record in found.evaluations})
        of = f"{'rounds' if len(judged) > 1 else 'round'} {_rounds(judged)}"
        click.echo(f"{counted(len(found.evaluations), 'evaluation')}, of the models of {of}")
    if found.gone:
        click.echo(
            f"not there any more, so known by digest alone: {counted(sum(map(len, found.gone.values())), 'object')}"
        )
    if chain.head:
        click.echo(f"head: {chain.head}")
    if not trusted and chain.links:
        click.echo("not checked: whose keys the manifests are signed with (--trust names those you know)", err=True)


def _described(found: Audit) -> dict[str, Any]:
    """Return the audit as plain values."""
    chain = found.chain
    return {
        "run": chain.run,
        "run_id": chain.record.run_id if chain.record else None,
        "rounds": chain.rounds or None,
        "closed": chain.closed,
        "head": chain.head,
        "objects_read": found.checked,
        "bytes_read": found.bytes,
        "chain": [
            {
                "round": link.round,
                "digest": link.digest,
                "verdict": _verdict(found, link),
                "gone": found.gone.get(link.round, []),
                "manifest": link.manifest.model_dump(mode="json") if link.manifest else None,
            }
            for link in chain.links
        ],
        "evaluations": [
            {
                "round": record.manifest.round,
                "evaluation": record.manifest.evaluation,
                "path": record.ref.path,
                "digest": record.ref.digest,
                "verdict": "WRONG" if record.problems else "ok",
                "manifest": record.manifest.model_dump(mode="json"),
            }
            for record in found.evaluations
        ],
        "notices": [notice.__dict__ for notice in found.notices],
        "problems": [problem.__dict__ for problem in found.problems],
    }
