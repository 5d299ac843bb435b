"""One client of one run, from joining to leaving."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable, Iterator

from flavor import alive
from flavor.bus.connection import connect, wait_for_server, way_to
from flavor.bus.events import ClientEvents
from flavor.bus.patience import WaitLimit
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.config import RunConfig
from flavor.disk import FULL, found_no_room
from flavor.edge.belongings import Belongings
from flavor.edge.config import EdgeConfig
from flavor.edge.consent import check_consent, check_manifests, check_rights, check_store, in_wait_for_share
from flavor.edge.ending import Ending
from flavor.edge.evaluating import Evaluating
from flavor.edge.evaluator import evaluation_folders
from flavor.edge.exchange import Exchange
from flavor.edge.hold import Hold
from flavor.edge.inbox import Broken, Inbox, Listener, Woken, subscribed
from flavor.edge.joining import Site, await_run, tell_joining
from flavor.edge.loop import Loop
from flavor.edge.membership import Membership
from flavor.edge.meter import Meter
from flavor.edge.models import GlobalModels
from flavor.edge.notice import notice_of
from flavor.edge.past import take_over
from flavor.edge.pulse import PulseKeeper
from flavor.edge.relay import Relay
from flavor.edge.shared_log import SharedLog
from flavor.edge.standing import Standing
from flavor.edge.trainer import Trainer
from flavor.edge.training import Training
from flavor.edge.transfers import Transfers
from flavor.edge.trust import ModelTrust
from flavor.edge.updates import Updates
from flavor.edge.urls import UrlAsker
from flavor.edge.whole_model import own_files
from flavor.edge.workspace import Workspace
from flavor.errors import (
    DamagedRecord,
    InvalidUpdate,
    MisuseError,
    NotAdmitted,
    RunRebuilt,
    RunRefused,
    StoreError,
    TrainerFailed,
)
from flavor.ledger.keys import SigningKey
from flavor.outage import LONGEST_PAUSE_S, site_patience_s
from flavor.proxy import forget_password
from flavor.store.open import open_store
from flavor.store.protocol import ObjectStore
from flavor.store.signed import SignedStore
from flavor.store.trouble import StoreHealth
from flavor.view.observer import Observer, notices
from flavor.view.site_events import RunJoinedAgain, TrainedBefore


class Stopped(BaseException):
    """A signal has told the edge to stop."""


def take_part(config: EdgeConfig, *, observer: Observer, kind: type[Edge] | None = None) -> None:
    """Be this client of this run until the run ends; join a run again that is rebuilt from the store before that.

    `kind` is the class of the edge where that is not `Edge`. Raises what `Edge.run` raises.
    """
    while True:
        try:
            (kind or Edge)(config, observer=observer).run()
        except RunRebuilt as news:
            observer.hear(RunJoinedAgain(str(news)))
        else:
            return


class Edge:
    """One client of one run: `run()` joins, trains and leaves.

    The edge reports every failure of the trainer, and of the trainer's files, to the run as a class and an exit code.
    `run()` then raises `TrainerFailed` with the details. It raises

    - `RunFinishedEarly` when the run, or the trainer by itself, ended before the last round,
    - `RunRefused` when the site does not take what the run asks,
    - `RunError` when the run is over or ends badly,
    - `StateLost` when Redis no longer has what this edge has seen of the run,
    - `RunRebuilt` when the run was rebuilt from the store, so that the edge has to join it again,
    - `LeaseHeld` when another process runs this client already.
    """

    def __init__(self, config: EdgeConfig, *, observer: Observer) -> None:
        self._config, self._observer, self._tell = config, observer, notices(observer)
        self._limit = WaitLimit(site_patience_s() if config.patience_s is None else config.patience_s)
        self._redis = connect(config.redis_url, patience_s=self._limit, client_name=f"flavor-fl:{config.client}")
        self._runs = RunStore(self._redis, config.run, config.redis_url)
        self._membership = Membership(self._redis, config.redis_url, self._runs.keys, config.client)
        self._events = ClientEvents(config.redis_url, config.run, config.client, redis=self._redis)
        self._inbox: Inbox = queue.SimpleQueue()
        self._trust = ModelTrust.parse(config.trust)
        self._judge: Evaluating | None = None
        channel = self._runs.keys.client(config.client).urls
        self._asker = UrlAsker(self._membership, channel, has_ended=self._has_ended, tell=self._tell)

    def run(self) -> None:
        """Join the run, train until the run or the trainer ends, and leave."""
        if way := way_to(self._config.redis_url):
            self._tell(way)
        wait_for_server(self._redis, self._config.redis_url)
        subscription = subscribed(self._config, self._runs, limit=self._limit)
        site = self._join(subscription)
        standing = Standing(site)
        self._membership.keep(lost=lambda: self._inbox.put(Broken(self._membership.replaced())))
        identity = f"{site.run.run_id}/{site.config.client}"
        hold = Hold(f"client {site.config.client!r} of run {site.config.run!r}", identity, tell=self._tell)
        with contextlib.ExitStack() as leaving:  # ends in the reverse order
            leaving.callback(lambda: self._membership.leave(announce=not standing.noticed))
            leaving.callback(hold.leave)
            hold.take(site.workspace)
            leaving.callback(forget_password, site.workspace.root)
            with _giving_notice(standing):
                alive.ready()
                self._take_part(site, standing, subscription, leaving)

    def _join(self, subscription: Subscription) -> Site:
        """Wait for the run, and become its client. Raises `LeaseHeld` when another process is this client."""
        config = self._config
        view = await_run(config, self._runs, subscription, observer=self._observer)
        workspace = self._workspace()
        settings = RunConfig.of_run(config.run, view.config, by=view.release)
        key = SigningKey.load_or_create(config.key_path, config.client)
        self._membership.take(ttl_s=settings.heartbeat_timeout_s, told=self._tell)
        view = self._runs.read()  # the wait for another process to leave may have been long
        settings = RunConfig.of_run(config.run, view.config, by=view.release)
        meter = Meter(moved=self._membership.moved())
        site = Site(config, self._runs, self._membership, view, settings, workspace, key, self._observer, meter)
        self._limit.patience_s = site.patience_s
        # a server that is back gives its sites one lease time to take their leases again
        self._limit.longest_pause_s = min(LONGEST_PAUSE_S, settings.heartbeat_timeout_s / 3)
        return site

    def _workspace(self) -> Workspace:
        config = self._config
        return Workspace.prepare(
            config.workspace, environment=os.environ, input_path=config.input, format_=config.format
        )

    def _take_part(
        self, site: Site, standing: Standing, subscription: Subscription, leaving: contextlib.ExitStack
    ) -> None:
        """Train until the run or the trainer ends. `leaving` gets the callbacks that end what is begun here."""
        config = site.config
        transfers, store, belongings = self._begun(site, standing, leaving, config.command)
        assert transfers.health is not None
        exchange = self._exchange(site, store, site.workspace, belongings, standing)
        models, relay = GlobalModels(site, store, self._trust, exchange), self._relay(site)
        trainer = Trainer(site, self._inbox, relay if config.relays else None)
        updates = Updates(site, standing)
        training = Training(
            site,
            standing,
            updates,
            events=self._events,
            transfers=transfers,
            exchange=exchange,
            models=models,
            health=transfers.health,
        )
        if config.relays:
            relay.take_over(site.newest_task(site.run.round), self._events)
        else:
            relay.leave_off()
        past = take_over(site, site.run, self._events, has_files=exchange.has_local)
        standing.part = past.part
        standing.join()
        tell_joining(site)
        shared_log = SharedLog(self._membership, trainer.last_lines, most=config.share_log)
        leaving.callback(shared_log.end)
        self._keep_pulse(site, standing, transfers, leaving, further=shared_log.look)
        leaving.callback(relay.close)
        leaving.callback(trainer.stop)
        self._listen(subscription, leaving)
        evaluating = self._evaluating(site, store, transfers, belongings)
        if evaluating is not None:
            leaving.callback(evaluating.stop)
        if past.trained:
            self._observer.hear(TrainedBefore(round=past.trained))
            training.hand_in(past.trained)
        trainer.start()
        self._inbox.put(Woken((RESYNC,)))
        Loop(
            site,
            self._inbox,
            standing=standing,
            trainer=trainer,
            work=training,
            updates=updates,
            events=self._events,
            evaluating=evaluating,
            run_ended=Ending(site, standing, trainer, transfers=transfers, models=models).follow,
        ).run()

    def _relay(self, site: Site) -> Relay:
        config = self._config
        token, patience_s = site.membership.token, site.patience_s
        return Relay(
            site.workspace,
            config.client,
            config.run,
            run_id=site.run.run_id,
            events=lambda: ClientEvents(config.redis_url, config.run, config.client, edge=token, patience_s=patience_s),
            tell=self._tell,
        )

    def _begun(
        self, site: Site, standing: Standing, leaving: contextlib.ExitStack, command: tuple[str, ...]
    ) -> tuple[Transfers, ObjectStore, Belongings]:
        """Check that the site takes what the run asks, open the store, and take the workspace's files for this run."""
        config, settings = site.config, site.settings
        check_consent(
            config.run,
            settings,
            opaque=config.opaque,
            allow_set=config.allow_set,
            store=config.store,
            checkpoint=config.checkpoint,
            client=config.client,
            own=config.own_settings,
        )
        if site.uses_signed_urls:
            check_manifests(config.run, settings, has_keys=bool(self._trust.keys))
        transfers = self._transfers(standing)
        store = self._opened_store(site, transfers)
        belongings = Belongings.claim(site.workspace, site.run, config.client, command, tell=self._tell)
        leaving.callback(belongings.leave)
        return transfers, store, belongings

    def _exchange(
        self,
        site: Site,
        store: ObjectStore,
        files: Workspace,
        belongings: Belongings,
        standing: Standing | None = None,
    ) -> Exchange:
        """Make what moves checkpoints; `standing` is given where they are those that the trainer saves."""
        config, settings = site.config, site.settings
        return Exchange(
            store,
            files,
            run=config.run,
            format_=config.format,
            compress=settings.compress,
            statistics=settings.statistics,
            kind=settings.kind,
            bare=config.strip_prefix,
            parts=settings.parts,
            own=own_files(site, store, self._trust) if settings.parts else None,
            reads_here=not config.relays,
            habits=belongings.habits,
            learned=belongings.learn if standing is not None else None,
            remark=standing.remarks.add if standing is not None else lambda _: None,
            meter=site.meter,
            tell=self._tell,
        )

    def _keep_pulse(
        self,
        site: Site,
        standing: Standing,
        transfers: Transfers,
        leaving: contextlib.ExitStack,
        further: Callable[[], None] = lambda: None,
    ) -> None:
        pulse = PulseKeeper(
            self._membership,
            site.workspace.local_model,
            part=lambda: standing.part,
            moving=lambda: transfers.moving,
            moved=lambda: site.meter.moved,
            judged=lambda: self._judge.judged if self._judge is not None else None,
            shares=site.config.report,
            beat_s=site.settings.heartbeat_timeout_s / 3,
            further=further,
        )
        leaving.callback(pulse.stop)
        pulse.start()

    def _listen(self, subscription: Subscription, leaving: contextlib.ExitStack) -> None:
        listener = Listener(subscription, self._inbox, self._asker.heard)
        leaving.callback(listener.close)
        listener.start()

    def _evaluating(
        self,
        site: Site,
        store: ObjectStore,
        transfers: Transfers,
        belongings: Belongings,
        files: Workspace | None = None,
    ) -> Evaluating | None:
        """Make what judges models, for a site that has an evaluator; `files` are its, None for folders of its own."""
        if site.config.evaluator is None:
            return None
        assert transfers.health is not None
        files = files or evaluation_folders(site.workspace)
        exchange = self._exchange(site, store, files, belongings)
        self._judge = Evaluating(
            site,
            self._inbox,
            files,
            site.config.evaluator,
            store=store,
            transfers=transfers,
            exchange=exchange,
            models=GlobalModels(site, store, self._trust, exchange),
            health=transfers.health,
        )
        return self._judge

    def _transfers(self, standing: Standing) -> Transfers:
        return Transfers(
            self._inbox,
            broken=lambda item: isinstance(item, Broken),
            report=self._membership.report_transfer,
            observer=self._observer,
            patience_s=self._limit.patience_s,
            awaits=standing.await_store,
        )

    def _opened_store(self, site: Site, transfers: Transfers) -> ObjectStore:
        """Open the run's store, once its share is mounted: after a reboot the edge may start before that."""
        config, run_id = self._config, site.run.run_id
        if site.uses_signed_urls:
            return self._by_signed_urls(site, transfers)
        if site.settings.signed_urls:
            self._tell(
                "this site names --store (FLAVOR_STORE) itself: it uses its own credentials, and none of the URLs that "
                "the run's coordinator signs"
            )
        url = config.store or site.settings.store

        def opened() -> ObjectStore:
            with in_wait_for_share(url):
                return open_store(url, settings=config.store_settings.with_patience(site.patience_s))

        def checked() -> None:
            with in_wait_for_share(url):
                check_rights(store, config.run, config.client)
                check_store(store, config.run, run_id, tell=self._tell)

        store = transfers.carry(opened, quick=True)
        transfers.health = StoreHealth(store, config.run, run_id, site.workspace.global_model.parent)
        transfers.carry(checked)
        return store

    def _has_ended(self) -> bool:
        view = self._runs.find()
        return view is None or view.state.ended

    def _by_signed_urls(self, site: Site, transfers: Transfers) -> ObjectStore:
        """Return the store of a run whose coordinator signs URLs: it is the run's, by whose word they are."""
        settings = self._config.store_settings.with_patience(site.patience_s)
        store = SignedStore(site.settings.store, self._asker.ask, settings=settings, tell=self._tell)
        transfers.health = StoreHealth(store, self._config.run, site.run.run_id, site.workspace.global_model.parent)
        return store


@contextlib.contextmanager
def _giving_notice(standing: Standing) -> Iterator[None]:
    """Tell the run why this edge ends, unless the run has ended or another process has taken this client over."""
    try:
        yield
    except (TrainerFailed, NotAdmitted, RunRefused, DamagedRecord, MisuseError, StoreError, InvalidUpdate) as error:
        standing.give_notice(notice_of(error), str(error))
        raise
    except (Stopped, KeyboardInterrupt) as error:
        standing.give_notice(notice_of(error))
        raise
    except OSError as error:
        text = f"{error.filename or 'a file'}: {error.strerror}: check the disk and the paths"
        if error.errno in FULL:
            text = str(found_no_room(error))
        standing.give_notice(notice_of(error), text)
        raise StoreError(text) from error
