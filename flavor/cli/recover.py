"""`flavor recover`: rebuild a run on Redis from the object store."""

from __future__ import annotations

import click

from flavor.cli.opened_run import connected
from flavor.cli.options import needed, patience_option, redis_option, run_option, store_option, store_settings
from flavor.cli.program import one_line_errors
from flavor.cli.trust_options import check_ids, run_id_option, trust_option
from flavor.errors import InvalidSetting
from flavor.say import say
from flavor.store.open import open_store


@click.command()
@run_option
@redis_option
@store_option
@trust_option
@run_id_option
@click.option("--head", metavar="SHA256", default="", help="The head that the store must have: its newest manifest.")
@click.option("--untrusted", is_flag=True, help="Rebuild from records signed with whatever keys, without --trust.")
@click.option("--replace", is_flag=True, help="Remove what Redis has of the run, where that is older than the store.")
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
    """Rebuild a run on Redis from the object store, as it was when its newest round was closed.

    For a Redis that came back empty or older. Start `flavor serve` with the same options afterwards: it goes on with
    the next round, and edges that are started again join as ever; sites whose Redis users went with the old server must
    be enrolled again. What was handed in for a round that was not closed is lost, and the round is done again.

    Whoever can write to the store could have put other records there, or those of an earlier run: name the aggregators'
    keys by --trust, and what else you know of the run by --run-id and --head, or say --untrusted.
    """
    from flavor.bus.acl import enrolled
    from flavor.bus.connection import shown
    from flavor.bus.runs import RunStore
    from flavor.ledger.archive import Archive
    from flavor.ledger.recover import recover as rebuild
    from flavor.ledger.trust import Trust
    from flavor.records.names import checked_name

    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    check_ids(head, run_id)
    trust = Trust.read(trusted, records=bool(head or untrusted))
    if not (trust.workers or head or untrusted):
        raise InvalidSetting(
            "whose records are to be believed? --trust names the aggregators' keys (aggregator.key.pub), --head the "
            "newest manifest by its SHA-256; --untrusted takes whatever lies in the store"
        )
    archive = Archive(
        open_store(needed(store, "--store", "FLAVOR_STORE"), settings=store_settings()), checked_name(run, "run")
    )
    redis, _ = connected(url, patience_s=patience_s, client_name=f"flavor-recover:{run}")
    done = rebuild(
        archive,
        RunStore(redis, run, url),
        url=url,
        replace=replace,
        trust=trust,
        head=head,
        run_id=run_id,
        tell=say,
    )
    ending = "it is finished" if done.round >= done.rounds else "`flavor serve` with the same options goes on"
    click.echo(
        f"run {run} is rebuilt on {shown(url)} after round {done.round} of {done.rounds}, "
        f"with {len(done.clients)} known clients: {ending}",
        err=True,
    )
    if without := sorted(set(done.clients) - set(enrolled(redis, run, where=shown(url)))):
        names = ", ".join(without)
        click.echo(
            f"Redis has no users of {names}: those that joined with tokens, and were not revoked since, are to be "
            "enrolled again (`flavor enroll`)",
            err=True,
        )
