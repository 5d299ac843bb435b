"""Read a run's records from the store as a chain, and check each link against the one before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flavor.config import RunConfig
from flavor.counted import counted
from flavor.errors import InvalidRecord, InvalidSetting, ObjectWithheld, OtherProtocol, RunNotFound
from flavor.ledger.archive import Archive, Listing
from flavor.ledger.canonical import sha256
from flavor.ledger.manifest import Manifest, RunRecord
from flavor.ledger.signers import Signers
from flavor.ledger.trust import Trust, trust_hint
from flavor.ledger.witnesses import Witnesses, needed
from flavor.printable import printable
from flavor.records.names import is_name
from flavor.resume import fixed_settings_differ
from flavor.store.paths import global_prefix, is_update_of, manifest_path, run_record_path, staged_manifest_prefix


@dataclass(frozen=True)
class Problem:
    """One problem in a run's records."""

    round: int
    """0 for the run itself."""
    path: str
    """The file."""
    what: str

    def __str__(self) -> str:
        where = f"round {self.round}" if self.round else "the run"
        path = self.path if self.path.isprintable() else repr(self.path)  # any party may have put a file there
        return f"{where}: {path}: {printable(self.what)}"


@dataclass(frozen=True)
class Link:
    """The manifest of one round; None where it cannot be read, and for the first of several rounds without one."""

    round: int
    manifest: Manifest | None
    digest: str
    """SHA-256 of its bytes in the store; '' where it is missing."""


@dataclass
class Chain:
    """The records of one run. `problems` are those of the records, not of the objects that they name."""

    run: str
    record: RunRecord | None
    links: list[Link]
    listing: Listing
    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)
    """Notices about the keys that are no problems."""
    closing: Problem | None = None
    """Whether the round after the newest closed one has a global model and no manifest, which may still come."""

    @property
    def closed(self) -> int:
        """The newest closed round; 0 before the first."""
        return self.links[-1].round if self.links else 0

    @property
    def config(self) -> Mapping[str, Any]:
        """Settings of the run in its newest round, or, without a readable manifest, those of the beginning."""
        newest = next((link.manifest for link in reversed(self.links) if link.manifest is not None), None)
        return newest.config if newest else self.record.config if self.record else {}

    @property
    def rounds(self) -> int:
        """Number of rounds of the run: as begun, or as resumed, where a closed round shows it."""
        now = self.config.get("rounds")
        return now if isinstance(now, int) else self.record.rounds if self.record else 0

    @property
    def head(self) -> str:
        """Digest of the newest manifest, which covers all records."""
        return self.links[-1].digest if self.links else (self.record.digest if self.record else "")

    @property
    def manifests(self) -> list[Manifest]:
        """The manifests that can be read, oldest first."""
        return [link.manifest for link in self.links if link.manifest is not None]


def read_chain(archive: Archive, trust: Trust | None = None, *, run_id: str = "") -> Chain:
    """Read and check all records of a run. Where an id is given, the run must have it.

    Raises `RunNotFound` when the store has nothing of the run, `OtherProtocol` when another release began it.
    """
    run, listing = archive.run, archive.listing()
    if not (listing.paths or listing.of_clients):
        raise RunNotFound(f"there is no run {run!r} in the store {archive.store.url}")
    reader = ChainReader(archive, listing, trust or Trust(), run_id)
    reader.read()
    return reader.chain


def read_rounds(archive: Archive, trust: Trust | None = None, *, run_id: str = "") -> Chain:
    """Read and check the records of a run as `read_chain` does, without a look at what clients have handed in.

    A run of which the store has nothing has an empty chain.
    """
    reader = ChainReader(archive, archive.listing_of_records(), trust or Trust(), run_id)
    reader.read()
    return reader.chain


def _of_this_release(record: RunRecord) -> RunRecord:
    """Return the record. Raises `OtherProtocol` where it has settings that this release does not know."""
    try:
        RunConfig.check_known(record.run, record.config, by=record.release or "")
    except InvalidSetting as error:
        raise OtherProtocol(str(error)) from None
    return record


class ChainReader:
    """Follows a chain from its beginning: `read` at once, or `begin`, and then `take` for round after round."""

    def __init__(self, archive: Archive, listing: Listing, trust: Trust, run_id: str = "") -> None:
        self._archive, self._run_id, self._trust, self._signers = archive, run_id, trust, Signers(trust)
        self.chain = Chain(archive.run, None, [], listing)
        self.newest = 0
        """The newest round that was taken."""
        self._previous = ""

    def _wrong(self, round_: int, path: str, what: str) -> None:
        self.chain.problems.append(Problem(round_, path, what))

    def read(self) -> None:
        """Follow the whole chain."""
        self.begin()
        rounds = sorted(self.chain.listing.manifests)
        while rounds and self._is_stray(rounds[-1], rounds[:-1]):
            rounds.pop()
        for round_ in rounds:
            self.take(round_)
        self._signers.end()
        self.tell_signers()
        missing, self.chain.closing = self.missing(self.chain.listing)
        self.chain.problems += missing

    def begin(self) -> None:
        """Read the run's record."""
        path = run_record_path(self._archive.run)
        data = None
        try:
            data = self._archive.read(path)
            if data is None:
                self._wrong(0, path, "missing: nothing says how the run began")
            else:
                self.chain.record = _of_this_release(RunRecord.parse(data, path))
        except (InvalidRecord, ObjectWithheld) as error:
            self._wrong(0, path, _without(path, error))
        if self.chain.record is not None and self.chain.record.run != self._archive.run:
            self._wrong(0, path, f"it is the record of run {self.chain.record.run!r}")
        initial = self.chain.record.initial if self.chain.record is not None else None
        for ref in initial.objects() if initial is not None else ():
            if not ref.path.startswith(global_prefix(self._archive.run, 0)):
                self._wrong(0, path, f"{ref.path!r} is not in the place of initial weights")
        if self.chain.record is not None and self._run_id not in ("", self.chain.record.run_id):
            self._wrong(0, path, f"it is of another run of this name, with the id {self.chain.record.run_id}")
        self._previous = sha256(data) if data is not None else ""

    def tell_signers(self) -> None:
        """Add what is known of the keys to the chain's problems and notices, once."""
        for round_, what in self._signers.problems:
            self._wrong(round_, manifest_path(self._archive.run, round_), what)
        for round_, what in self._signers.notices:
            self.chain.notices.append(Problem(round_, manifest_path(self._archive.run, round_), what))
        self._signers.problems.clear()
        self._signers.notices.clear()

    def missing(self, listing: Listing) -> tuple[list[Problem], Problem | None]:
        """Return the rounds that have a global model and no manifest, and the one that may be about to be closed."""
        problems, closing = list[Problem](), None
        for round_ in sorted(listing.aggregated):
            if round_ > self.newest:
                what = "missing, and the round has a global model: it was removed"
                if round_ == self.newest + 1:
                    what += ", or the run is about to close the round, or ended in that moment"
                problem = Problem(round_, manifest_path(self._archive.run, round_), what)
                if round_ == self.newest + 1:
                    closing = problem
                else:
                    problems.append(problem)
        return problems, closing

    def take(self, round_: int) -> None:
        """Read the manifest of a round, the next one that exists. The number of a stray file costs nothing."""
        if self.chain.record is not None and round_ > self.chain.rounds and not self._extends(round_, self.newest):
            path = manifest_path(self._archive.run, round_)
            self._wrong(round_, path, f"it does not belong to the run, which has {counted(self.chain.rounds, 'round')}")
            return
        if round_ > self.newest + 1:
            self.chain.links.append(self._gap(self.newest + 1, round_ - 1))
            self._previous = ""
        link = self._link(round_)
        self.chain.links.append(link)
        if link.manifest is not None:
            self._check(link.manifest, self._previous)
        self._previous, self.newest = link.digest, round_

    def _is_stray(self, round_: int, before: Sequence[int]) -> bool:
        """Whether the newest manifest is not the run's, by the trusted aggregators; report it then.

        Where a trusted aggregator has staged a manifest of the same round, the true manifest was replaced, which is a
        different problem.
        """
        workers, archive = self._trust.workers, self._archive
        if not workers or (manifest := self._true(round_)) is None or manifest.public_key in workers:
            return False
        prefix = f"{staged_manifest_prefix(archive.run, round_)}-"
        staged = (self._parsed(path) for path in self.chain.listing.paths if path.startswith(prefix))
        if any(each is not None and each.public_key in workers for each in staged):
            return False
        earlier = [each for number in before if (each := self._true(number)) is not None]
        clients: dict[str, set[str]] = {client: set(keys) for client, keys in self._trust.clients.items()}
        for each in earlier:
            for client in each.expected:
                clients.setdefault(client, set())
            for of in each.contributors:
                clients.setdefault(of.client, set()).update((of.public_key,) if of.public_key else ())
        newest = earlier[-1] if earlier else self.chain.record
        witnesses = Witnesses(workers, clients, needed(archive.run, newest.config) if newest is not None else None)
        if witnesses.vouch_for(manifest):
            return False
        hint = trust_hint((None, manifest.public_key), when="if it is a round of the run")
        path = manifest_path(archive.run, round_)
        why = witnesses.against(manifest).removeprefix(f"{path} ")
        self._wrong(round_, path, f"{why} ({hint})" if hint else why)
        return True

    def _true(self, round_: int) -> Manifest | None:
        """Return a round's manifest as the archive does; None also where the store does not give it out."""
        try:
            return self._archive.manifest(round_)
        except ObjectWithheld:
            return None

    def _parsed(self, path: str) -> Manifest | None:
        """Return a staged manifest that is signed with the key that it names; None for other objects."""
        try:
            data = self._archive.read(path)
            manifest = Manifest.parse(data, path) if data is not None else None
            return manifest if manifest is not None and manifest.is_signed() else None
        except (InvalidRecord, InvalidSetting, ObjectWithheld, OtherProtocol):
            return None

    def _extends(self, round_: int, before: int) -> bool:
        """Whether a round after the last one was closed, in a run that was resumed with more rounds."""
        if round_ != before + 1:
            return False
        manifest = self._link(round_, quiet=True).manifest
        rounds = manifest.config.get("rounds") if manifest is not None else None
        return isinstance(rounds, int) and rounds >= round_

    def _gap(self, first: int, last: int) -> Link:
        """Make one link of the rounds without a manifest."""
        others = f", as are those up to round {last}" if last > first else ""
        self._wrong(
            first, manifest_path(self._archive.run, first), f"missing{others}, although later rounds have theirs"
        )
        return Link(first, None, "")

    def _link(self, round_: int, *, quiet: bool = False) -> Link:
        path = manifest_path(self._archive.run, round_)
        data = None
        try:
            data = self._archive.read(path)
            if data is None:
                self._wrong(round_, path, "missing: it was listed, and cannot be read")
                return Link(round_, None, "")
            return Link(round_, Manifest.parse(data, path), sha256(data))
        except (InvalidRecord, ObjectWithheld, OtherProtocol) as error:
            if not quiet:
                self._wrong(round_, path, _without(path, error))
            return Link(round_, None, sha256(data) if data is not None else "")

    def _check(self, manifest: Manifest, previous: str) -> None:
        """Yield what is wrong between a manifest, its signature and the record before it."""
        run = self._archive.run
        path = manifest_path(run, (number := self.chain.links[-1].round))
        if (manifest.run, manifest.round) != (run, number):
            self._wrong(number, path, f"it is the manifest of round {manifest.round} of run {manifest.run!r}")
            return
        if (record := self.chain.record) is not None and manifest.run_id != record.run_id:
            self._wrong(
                number,
                path,
                f"it is of another run of this name: its run_id is {manifest.run_id[:12]}…, and run.json has "
                f"{record.run_id[:12]}…",
            )
            return
        self._signers.add(manifest)
        if previous and manifest.previous != previous:
            before = manifest_path(run, number - 1) if number > 1 else run_record_path(run)
            self._wrong(number, path, f"it does not follow {before} as that lies there: one of the two was changed")
        if (base := self._base(number)) is not None and manifest.trained_from != base:
            self._wrong(number, path, "its clients trained from another global model than the one before it")
        if record is not None and (differ := fixed_settings_differ(manifest.config, record.config)):
            self._wrong(number, path, f"its settings differ from the run's: {', '.join(differ)}")
        for what in (*self._misbegun(manifest), *_misplaced(manifest)):
            self._wrong(number, path, what)

    def _misbegun(self, manifest: Manifest) -> Iterator[str]:
        """Yield what is wrong with the models that contributors of an asynchronous run began from."""
        for each in manifest.contributors:
            if each.task_round is None:
                continue
            if each.task_round >= manifest.round:
                yield f"{each.client} did the task of round {each.task_round}, which had not begun before this round"
            elif (base := self._base(each.task_round)) is not None and each.trained_from != base:
                yield f"{each.client} trained from another global model than the one before round {each.task_round}"

    def _base(self, round_: int) -> str | None:
        """Return the digest of the global model before this round; None when it is unknown by now."""
        if round_ == 1:
            if self.chain.record is None:
                return None
            return self.chain.record.initial.digest if self.chain.record.initial else ""
        for link in reversed(self.chain.links):
            if link.round < round_:
                return link.manifest.global_model.digest if link.manifest and link.round == round_ - 1 else None
        return None


def _misplaced(manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with the objects and clients that a manifest names."""
    model = manifest.global_model
    prefix = global_prefix(manifest.run, manifest.round)
    for ref in model.objects():
        if not ref.path.startswith(prefix):
            yield f"{ref.path!r} is not an object of this round"
    for each in manifest.contributors:
        if not is_name(each.client):
            yield f"{each.client!r} is not a client's name"
            continue
        for path in filter(None, (each.path, each.info_path)):
            if not is_update_of(path, manifest.run, manifest.task_round(each), each.client):
                yield f"{path!r} is not an update of {each.client} in this round"
    clients = [each.client for each in manifest.contributors]
    if len(set(clients)) < len(clients):
        yield "a client is in it twice"
    if strange := sorted(set(clients) - set(manifest.expected)):
        yield f"{', '.join(strange)} contributed without having been asked"
    chosen = manifest.chosen
    if chosen is not None and list(chosen) != [client for client in clients if client in set(chosen)]:
        yield "its chosen clients are not contributors, in the order of the contributors"


def _without(path: str, error: Exception) -> str:
    return str(error).removeprefix("object ").removeprefix(f"{path}: ")
