"""What sites hand in for evaluations, in the sites' own folders: which of it a signed record names, and which is left.

A bucket leaves a result that counts where its site has put it, with its report and images. A folder's worker has moved
them away, or copied them, where they belong to another user.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flavor.errors import InvalidRecord, ObjectWithheld, OtherProtocol
from flavor.ledger.archive import Archive
from flavor.ledger.evaluation import EvaluationManifest
from flavor.ledger.evaluations import manifest_of
from flavor.store.paths import belongs_to_result, client_folder, evaluations_folder, result_of, result_prefix
from flavor.store.trouble import require_mounted

_Name = tuple[int, int]


class HandedResults:
    """The clients' folders of one run. Remembers whose results records name, so that each record is read once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._named: dict[tuple[str, int, int], set[str]] = {}  # by client, round and number of an evaluation

    def listed(self, client: str, *, most: int) -> list[str]:
        """Return the objects in the folder of a client, without those that are known to be named by a record.

        Stops after about `most` of them, so that no site can delay the others.
        """
        found, after, folder = list[str](), "", client_folder(self._archive.run, client)
        while len(found) < most and (page := self._archive.store.list(folder, most=most, after=after)):
            found += [path for path in page if not self._is_named(path)]
            after = page[-1]
        return found

    def unnamed(self, paths: Sequence[str], *, but: Collection[_Name]) -> list[str]:
        """Return those of these objects that belong to results which no record names; never of the evaluations `but`.

        Where a record of an evaluation names the site's result, that object stays, and all reports and images that the
        site has handed in for this evaluation. Where a record of it cannot be read, all stays. The evaluations `but`
        are not over: they were asked for after `paths` were listed, so the record of any other one that has a result is
        in the store by now.
        """
        found = [(path, of) for path in paths if (of := result_of(path)) is not None and of[1:] not in but]
        if not found:
            return []
        records: dict[_Name, list[str]] = {}
        for path in self._archive.store.list(evaluations_folder(self._archive.run)):
            if (name := manifest_of(self._archive.run, path)) is not None:
                records.setdefault(name, []).append(path)
        require_mounted(self._archive.store, self._archive.run)  # else a record that is away counts as none
        unread = set[_Name]()
        for name in {of[1:] for _, of in found} & records.keys():
            for path in records[name]:
                record = self._read(path)
                if record is None:
                    unread.add(name)
                    continue
                for judge in record.judges:
                    if judge.info_path.startswith(result_prefix(self._archive.run, *name, judge.client)):
                        self._named.setdefault((judge.client, *name), set()).add(judge.info_path)
        return [path for path, of in found if of[1:] not in unread and not self._is_named(path)]

    def _is_named(self, path: str) -> bool:
        """Whether a record that was read names this object, or the result that it belongs to."""
        of = result_of(path)
        return of is not None and of in self._named and (path in self._named[of] or belongs_to_result(path))

    def _read(self, path: str) -> EvaluationManifest | None:
        """Return a record, signed by any key; None for bytes that are no record."""
        try:
            data = self._archive.read(path)
            return EvaluationManifest.parse(data, path) if data is not None else None
        except (InvalidRecord, ObjectWithheld, OtherProtocol):
            return None
