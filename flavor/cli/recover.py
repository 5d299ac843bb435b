"""`flavor recover`: rebuild a run on Redis from the object store."""

from __future__ import annotations

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected
from flavor.cli.options import needed, patience_option, redis_option, run_option, store_option, store_settings
from flavor.cli.output import print_line, teller
from flavor.cli.program import one_line_errors
from flavor.cli.trust_options import check_ids, run_id_option, trust_option
from flavor.errors import InvalidSetting


@click.command(
    cls=GroupedCommand,
    example="flavor recover --run mammo --trust aggregator.key.pub \\\n"
    "  --redis-url redis://localhost --store s3://models/fl",
)
@run_option
@redis_option
@store_option
@trust_option
@run_id_option
@click.option("--head", metavar="SHA256", default="", help="SHA-256 that the newest manifest in the store must have.")
@click.option("--untrusted", is_flag=True, help="Accept records that are signed with any key, in place of --trust.")
@click.option(
    "--replace", is_flag=True, help="Replace the run in Redis, if Redis has an older state of the run than the store."
)
@patience_option
@one_line_errors
def recover(
    run: str,
    redis_url: str | None,
    store: str | None,
    trusted: tuple[str, ...],
    run_id: str,
    head: str,
    untrusted: bool,
    replace: bool,
    patience_s: float,
) -> None:
    """Rebuild a run on Redis from the object store.

    Use this command when Redis came back empty or with older data. The run is rebuilt as it was when its newest round
    was closed. Start the run's coordinator again afterwards, with the same options: `flavor serve`, or `aumai-fedtrain
    run` for a run that aumai_fedtrain began. It goes on with the next round, and edges that are started again join.
    Enroll sites again whose Redis users were lost with the old server. Updates of a round that was not closed are lost,
    and the round is repeated.

    A party that can write to the store could have put other records there, or the records of an earlier run. Name the
    keys of the aggregators with --trust, and what else you know of the run with --run-id and --head, or accept all
    records with --untrusted.
    """
    from flavor.bus.acl import enrolled
    from flavor.bus.connection import shown
    from flavor.bus.runs import RunStore
    from flavor.ledger.archive import Archive
    from flavor.ledger.recover import recover as rebuild
    from flavor.ledger.trust import Trust
    from flavor.records.names import checked_name
    from flavor.resume import coordinated_by
    from flavor.store.open import open_store

    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    check_ids(head, run_id)
    trust = Trust.read(trusted, records=bool(head or untrusted))
    if not (trust.workers or head or untrusted):
        given = "no trusted key is given"
        if clients := sorted(trust.clients):
            of = f"{'that' if len(clients) == 1 else 'those'} of {', '.join(map(repr, clients))}"
            given = f"no trusted key of an aggregator is given: with --trust only {of}, which signs updates at its site"
        raise InvalidSetting(
            f"{given}: name the aggregators' keys with --trust (aggregator.key.pub) or the SHA-256 of "
            "the newest manifest with --head, or accept all records in the store with --untrusted"
        )
    archive = Archive(
        open_store(needed(store, "--store", "FLAVOR_STORE"), settings=store_settings()), checked_name(run, "run")
    )
    redis, _ = connected(url, patience_s=patience_s, client_name=f"flavor-recover:{run}")
    runs = RunStore(redis, run, url)
    done = rebuild(
        archive,
        runs,
        url=url,
        replace=replace,
        trust=trust,
        head=head,
        run_id=run_id,
        tell=teller(""),
    )
    ending = "it is finished" if done.round >= done.rounds else f"{coordinated_by(runs.read())} goes on"
    click.echo(
        f"run {run} is rebuilt on {shown(url)} after round {done.round} of {done.rounds}, "
        f"with {len(done.clients)} known clients: {ending}",
        err=True,
    )
    if without := sorted(set(done.clients) - set(enrolled(redis, run, where=shown(url)))):
        names = ", ".join(without)
        print_line(
            f"Redis has no users of {names}: those that joined with tokens, and were not revoked since, are to be "
            "enrolled again (`flavor enroll`)",
            err=True,
        )
