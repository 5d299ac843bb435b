"""The table of keys in `flavor.bus.keys`, and the headers of the Lua scripts, name what the code reads and writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flavor.bus import keys
from flavor.bus.scripts import _LUA, _PARTS
from flavor.records import client, pulse, update, verdict
from flavor.records.admission import Admission
from flavor.records.round import RoundView
from flavor.records.run import RunView

RULER = re.compile(r"^(=+ +)+=+$", flags=re.MULTILINE)
GENERAL = ("size", "seal")
"""`ObjectRef` looks for these of every object; what is not recorded of one is not in the table."""


def rows() -> Mapping[str, str]:
    """What each key of the table holds, by the key."""
    _, head, *_ = rulers = [*RULER.finditer(keys.__doc__ or "")]
    columns = [match.span() for match in re.finditer("=+", head.group())]
    found: dict[str, str] = {}
    key = ""
    for line in (keys.__doc__ or "")[head.end() : rulers[2].start()].strip("\n").split("\n"):
        key = line[: columns[0][1]].strip() or key
        writer = line[columns[3][0] :] if line[columns[3][0] - 1 : columns[3][0]] in ("", " ") else ""
        holds = line[columns[2][0] : len(line) - len(writer)]
        found[key] = f"{found.get(key, '')} {holds}"
    return found


ROWS = rows()


class Asked(dict[str, str]):
    """A hash that notes the names of the fields that are looked for."""

    def __init__(self, *args: Any, **fields: str) -> None:
        super().__init__(*args, **fields)
        self.names = set[str]()

    def get(self, name: str, default: Any = None) -> Any:
        """See `dict`."""
        self.names.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)


def words(key: str) -> set[str]:
    return set(re.findall(r"[a-z]+(?:_[a-z]+)*", ROWS[key]))


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("client:CLIENT", (*client.FIELDS, *pulse.FIELDS)),
        ("client:CLIENT:round:N:update", update.FIELDS),
        ("round:N:verdicts", verdict._TYPES),
    ],
)
def test_the_table_names_the_fields_of_a_record(key: str, fields: Mapping[str, object]) -> None:
    assert set(fields) - words(key) == set()


@pytest.mark.parametrize(
    ("key", "read", "values"),
    [
        ("run", lambda hash_: RunView.from_hash("r", hash_), {"state": "running", "config": "{}", "changed": "[]"}),
        (
            "round:N",
            lambda hash_: RoundView.from_hash(1, hash_, {}),
            {
                "state": "open",
                "reference": "p d 1",
                "unfit": "{}",
                "since": "{}",
                "missed": "{}",
                "outdated": "{}",
                "blameless": "{}",
            }
            | dict.fromkeys(
                ("expected", "contributors", "left_out", "spoiled", "chosen", "notes", "told", "pauses"),
                "[]",
            ),
        ),
        ("to:CLIENT:admission", Admission.from_hash, {}),
        ("to:CLIENT:round:N:verdict", verdict.Answer.from_hash, {}),
    ],
)
def test_the_table_names_each_field_that_is_read(
    key: str, read: Callable[[Asked], object], values: Mapping[str, str]
) -> None:
    named = words(key)
    hash_ = Asked({**dict.fromkeys(named, "1"), **values})
    read(hash_)
    general = {f"{path.removesuffix('path')}{each}" for path in named if path.endswith("path") for each in GENERAL}
    assert hash_.names - named - general == set()
    assert len(hash_.names) > 2, "they were looked for"


@pytest.mark.parametrize("verb", sorted(file.name.removesuffix(".lua") for file in _LUA.iterdir()))
def test_each_transition_states_its_keys_its_result_and_its_invariant(verb: str) -> None:
    text = (_LUA / f"{verb}.lua").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.lstrip().startswith("--") and len(line) > 120] == []
    head = "".join(re.findall(r"\A(?:--.*\n)+", text))
    parts = ("KEYS", "Returns", "Invariant") if verb not in _PARTS else ()
    assert [part for part in parts if not re.search(rf"^-- {part}", head, flags=re.MULTILINE)] == []
    assert head
