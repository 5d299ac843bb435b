"""`flavor verify`: check a run's records and every object that they name, from the store alone."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from flavor.errors import (
    BadObjectPath,
    DigestMismatch,
    FlavorError,
    InvalidSetting,
    ObjectMissing,
    ObjectWithheld,
    StoreError,
)
from flavor.ledger.archive import Archive
from flavor.ledger.audit_evaluations import EvaluationAudit, audit_evaluations, left_over, taken_paths
from flavor.ledger.chain import Chain, Problem, read_chain
from flavor.ledger.evaluations import EvaluationRecord
from flavor.ledger.manifest import Manifest
from flavor.ledger.trust import Trust
from flavor.policy.mode import SYNC, Buffered
from flavor.records.objects import ObjectRef
from flavor.resume import changes
from flavor.store.digests import sha256_file
from flavor.store.paths import accepted_folder, accepted_path, is_of_a_client, manifest_path, round_of, run_record_path
from flavor.store.trouble import is_of_one_object

_LOOK_S = 0.2
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{16})\.[a-z]+$")


@dataclass(frozen=True)
class Named:
    """An object that a record names."""

    round: int
    object: ObjectRef
    what: str
    must_be: bool
    """Whether the object must still be in the store."""

    @property
    def path(self) -> str:
        """The object's path."""
        return self.object.path


@dataclass(frozen=True)
class Audit:
    """The result of an audit."""

    chain: Chain
    problems: list[Problem]
    gone: dict[int, list[str]] = field(default_factory=dict)
    """Objects by round that are no longer in the store and need not be, so that their bytes could not be checked."""
    checked: int = 0
    """Number of objects whose bytes were checked."""
    bytes: int = 0
    notices: list[Problem] = field(default_factory=list)
    """Objects in clients' folders that no record names. They are no problem, and are not read: a client may put any
    objects there, which must neither fail the audit nor make it endless."""
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    """The records of the run's evaluations, each evaluation once, in the order in which they were closed."""


def audit(
    archive: Archive,
    trust: Trust | None = None,
    *,
    head: str = "",
    run_id: str = "",
    patience_s: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Check a run. `head`, from an earlier audit, is a record that must still be in the chain; `run_id` the run's id.

    The run may go on during the audit, which checks the state at its beginning. An object that is gone at the end
    counts as missing where it would still have to be there. A round that is being closed has `patience_s` for its
    manifest to appear. `progress` is called with the number of checked objects and of all objects. Raises
    `RunNotFound`, and `StoreError` when the store itself fails.
    """
    chain = read_chain(archive, trust, run_id=run_id)
    problems: list[Problem] = []
    if head and head not in {link.digest for link in chain.links} | {chain.record.digest if chain.record else ""}:
        problems.append(Problem(0, run_record_path(chain.run), f"no record has the digest {head[:80]} given by --head"))
    evaluations = audit_evaluations(archive, chain, trust or Trust())
    objects, named = _objects(chain, evaluations)
    unnamed = _without_record(chain, named)
    objects += _unnamed(path for path in unnamed if not is_of_a_client(path))
    notices = [
        Problem(round_of(path), path, "no record names it: refused, late, or none of this run's")
        for path in unnamed
        if is_of_a_client(path)
    ]
    gone: dict[int, list[str]] = {}
    checked = size = 0
    missing, vanished = list[Named](), list[Named]()
    for done, each in enumerate(objects):
        progress(done, len(objects))
        if each.path not in chain.listing and not _is_there(archive, chain, each):
            if each.must_be:
                missing.append(each)
            else:
                gone.setdefault(each.round, []).append(each.what)
            continue
        try:
            what, found = _checked(archive, each)
        except (ObjectMissing, FileNotFoundError):
            vanished.append(each)
            continue
        checked, size = checked + 1, size + found
        if what:
            problems.append(Problem(each.round, each.path, what))
    came = chain.closing is not None and _came(archive, chain.closed + 1, patience_s)
    now = read_chain(archive, trust, run_id=run_id) if missing or vanished or came else chain
    newer = (problem for problem in now.problems if problem.round > chain.closed and problem not in chain.problems)
    problems += [*chain.problems, *newer]
    if now.closing is not None and now.closed == chain.closed:
        problems.append(now.closing)  # otherwise the run has gone on, and closes another round now
    needed = {each.path for each in (*_named(now), *_named_of(evaluations)) if each.must_be}
    for each in (*missing, *(each for each in vanished if each.path not in now.listing)):
        if each.path in needed:
            problems.append(Problem(each.round, each.path, f"missing: {each.what}"))
        elif each.path in named:
            gone.setdefault(each.round, []).append(each.what)
    problems += [
        Problem(each.round, each.path, f"{each.what} cannot be read as an object")
        for each in vanished
        if each.path in now.listing
    ]
    for manifest in chain.manifests:
        problems += _info_problems(archive, manifest)
    problems += [*_rule_problems(chain), *evaluations.problems]
    notices += [*chain.notices, *_told(chain), *evaluations.notices, *left_over(chain.run, unnamed)]
    progress(len(objects), len(objects))
    problems.sort(key=lambda problem: problem.round)
    return Audit(chain, problems, gone, checked, size, notices, evaluations.records)


def _told(chain: Chain) -> Iterator[Problem]:
    """Return the notices about the rounds that are no problems."""
    before = chain.record.config if chain.record else None
    for manifest in chain.manifests:
        path = manifest_path(chain.run, manifest.round)
        if before is not None and (changed := changes(before, manifest.config)):
            yield Problem(manifest.round, path, f"the run was resumed with {', '.join(changed)}")
        before = manifest.config
        if manifest.trained_from and manifest.trained_from == manifest.global_model.digest:
            yield Problem(manifest.round, path, "the model did not change in this round: nothing was trained")


def _rule_problems(chain: Chain) -> Iterator[Problem]:
    """Report each round that was aggregated without the server state that the round before has left.

    A rule that leaves a server state leaves one in every round after its first, and a run has one rule.
    """
    for before, manifest in itertools.pairwise(chain.manifests):
        if before.global_model.state is not None and manifest.global_model.state is None:
            what = f"it has no server state, and round {before.round} has one: it was aggregated by another rule"
            yield Problem(manifest.round, manifest_path(chain.run, manifest.round), what)


def _named(chain: Chain) -> Iterator[Named]:
    """Yield every object that the records name, oldest first.

    The objects that a run needs to go on must exist: its initial model, the newest global model with its information
    and server state, and the updates of the rounds that `--keep-rounds` keeps. Objects of older rounds are checked
    where they exist.
    """
    record, closed, pruned = chain.record, chain.closed, _pruned(chain)
    if record is not None and record.initial is not None:
        initial = record.initial
        yield Named(0, initial.object, "the initial model", closed == 0)
        if initial.whole is not None:
            yield Named(0, initial.whole.object, "the whole initial model", True)
    for manifest in chain.manifests:
        newest, model = manifest.round == closed, manifest.global_model
        kept = manifest.round > pruned
        yield Named(manifest.round, model.object, "the global model", newest)
        for ref, what in ((model.info, "the merged information"), (model.state, "the server state")):
            if ref is not None and ref.digest:
                yield Named(manifest.round, ref, what, newest)
        for each in manifest.contributors:
            update = each.to_update()
            yield Named(manifest.round, update.object, f"the update of {each.client}", kept)
            if update.info.path and update.info.digest:
                yield Named(manifest.round, update.info, f"the information of {each.client}", kept)


def _objects(chain: Chain, evaluations: EvaluationAudit) -> tuple[list[Named], set[str]]:
    """Return the objects that the records name, and all paths that a record accounts for."""
    objects = [*_named(chain), *_named_of(evaluations)]
    named = {each.path for each in objects} | {record.ref.path for record in evaluations.records}
    # where sites and aggregators are different users, accepted objects are copied, and the site's file is removed later
    named |= {path for path in chain.listing.of_clients if accepted_path(path) in named}
    return objects, named | set(taken_paths(chain.run, chain.listing.of_clients, named))


def _without_record(chain: Chain, named: Set[str]) -> list[str]:
    """Return the paths of the other objects, without those of the open round, whose manifest will name them."""
    unnamed = sorted((chain.listing.paths | chain.listing.of_clients) - named)
    if chain.closed < chain.rounds:
        folder, now = accepted_folder(chain.run), chain.closed + 1
        tasks = range(now - _most_staleness(chain.config), now + 1)
        unnamed = [path for path in unnamed if not (path.startswith(folder) and round_of(path) in tasks)]
    return unnamed


def _most_staleness(config: Mapping[str, Any]) -> int:
    """Return by how many rounds a task may be older than the round that its update counts in; 0 for `--mode sync`."""
    with contextlib.suppress(InvalidSetting):
        mode = Buffered.parse(str(config.get("mode", SYNC)))
        return mode.max_staleness if mode is not None else 0
    return 0


def _named_of(evaluations: EvaluationAudit) -> Iterator[Named]:
    """Yield the objects of evaluations, which are kept for as long as the run is."""
    for round_, ref, what in evaluations.objects:
        yield Named(round_, ref, what, True)


def _pruned(chain: Chain) -> float:
    """Return the newest round whose updates may be gone, by each round's settings, which `flavor resume` may change.

    The opening of a round removes the updates of rounds that its settings do not keep.
    """
    newest = 0.0
    for manifest in chain.manifests:
        keep = manifest.config.get("keep_rounds")
        if not isinstance(keep, int):
            return math.inf
        if keep:
            newest = max(newest, manifest.round - keep)
    return newest


def _unnamed(paths: Iterable[str]) -> Iterator[Named]:
    """Yield objects that no record names and whose name has a digest: staged manifests, and abandoned results."""
    for path in paths:
        if match := _DIGEST_IN_NAME.search(path):
            yield Named(round_of(path), ObjectRef(path, match[1]), "an object that no record names", True)


def _is_there(archive: Archive, chain: Chain, each: Named) -> bool:
    """Whether an object exists that was not listed, in a folder with too many objects."""
    try:
        return f"{each.path.rpartition('/')[0]}/" in chain.listing.cut and archive.store.exists(each.path)
    except BadObjectPath:
        return False
    except ObjectWithheld:  # reading it reports why the store keeps it back
        return True


def _came(archive: Archive, round_: int, patience_s: float) -> bool:
    """Wait for the manifest of a round that is being closed; return whether it appears within this time."""
    deadline = time.monotonic() + patience_s
    try:
        while not archive.has(round_):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_S)
    except ObjectWithheld:
        pass
    return True


def _checked(archive: Archive, each: Named) -> tuple[str, int]:
    """Return what is wrong with an object's bytes ('' for nothing), and their number.

    Raises `ObjectMissing` or `FileNotFoundError` for a missing object, `StoreError` where the store itself fails.
    """
    try:
        size = archive.store.size_bytes(each.path)
        recorded = each.object.size_bytes
        if recorded is not None and size != recorded:  # an empty file of terabytes is quickly made
            return f"{each.what} was changed: it has {size} bytes, not the recorded {recorded}", 0
        digest, size = sha256_file(archive.store.local(each.path, size_bytes=size), most=size)
    except (BadObjectPath, DigestMismatch):
        return f"{each.what} cannot be read as an object", 0
    except (ObjectMissing, FileNotFoundError):
        raise
    except StoreError as error:  # its owner may keep it back, which must not hide other problems
        if not is_of_one_object(archive.store, archive.run, error):
            raise
        return f"{each.what} cannot be read: {str(error).removeprefix(f'object {each.path}: ')}", 0
    except OSError as error:
        return f"{each.what} cannot be read: {error.strerror}", 0
    if not digest.startswith(each.object.digest):  # of an unnamed object only the beginning of the digest is known
        return f"{each.what} was changed: its SHA-256 is {digest[:16]}…, not {each.object.digest[:16]}…", size
    return "", size


def _info_problems(archive: Archive, manifest: Manifest) -> list[Problem]:
    """The merged information must name the contributors, their numbers of examples, and whom the rule chose."""
    path = manifest.global_model.info_path
    try:
        metadata = json.loads(archive.read(path) or b"{}").get("metadata") if path else None
        if not isinstance(metadata, dict):
            return []  # it is gone or changed, which is reported already
    except RecursionError:
        return [Problem(manifest.round, path, "it is nested too deeply to be the information of a round")]
    except (FlavorError, ValueError, AttributeError):
        return []
    if manifest.chosen is not None:
        clients = [each.client for each in manifest.contributors]
        if metadata.get("chosen") != [clients.index(each) for each in manifest.chosen if each in clients]:
            return [Problem(manifest.round, path, "its chosen clients are not those of the manifest")]
    if "clients" not in metadata:  # of a run whose sites read sums only
        sums = (metadata.get("sites"), metadata.get("datasetSize"))
        if sums != (len(manifest.contributors), [sum(each.num_examples for each in manifest.contributors)]):
            return [Problem(manifest.round, path, "its sites and their datasetSize are not those of the manifest")]
        return []
    said = (metadata.get("clients"), metadata.get("datasetSize"))
    recorded = [each.client for each in manifest.contributors], [each.num_examples for each in manifest.contributors]
    if said != tuple(recorded):
        return [Problem(manifest.round, path, "its clients and their datasetSize are not those of the manifest")]
    return []
