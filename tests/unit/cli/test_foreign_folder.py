"""A result folder from somebody else runs nothing of its sender at the user who looks at it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flavor.cli.contributions import contributions
from flavor.cli.credits import credits
from flavor.cli.evaluate import evaluate
from flavor.cli.get import get
from flavor.cli.log import log
from flavor.cli.results import results
from flavor.cli.run import run
from flavor.cli.status import status
from flavor.cli.ui import ui
from flavor.cli.verify import verify

MODULE = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$6\r\nMODULE\r\n$4\r\nLOAD\r\n$6\r\n./x.so\r\n"


@pytest.fixture
def gift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("FLAVOR_REDIS_URL", "FLAVOR_STORE"):
        monkeypatch.delenv(variable, raising=False)
    out = tmp_path / "gift"
    files = out / "redis" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.1.incr.aof").write_bytes(MODULE)
    (files / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    named(out, str(out / "store"))
    return out


def named(out: Path, store: str) -> None:
    record = {"version": 2, "run": "gift", "store": store, "embedded": True, "federation": {}, "redis_url": ""}
    (out / "federation.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (get, ["GIFT"]),
        (status, ["GIFT"]),
        (log, ["GIFT"]),
        (results, ["GIFT", "--evaluation", "1"]),
        (credits, ["GIFT"]),
        (ui, ["GIFT", "--port", "0"]),
        (evaluate, ["GIFT"]),
        (run, ["-m", "true", "--edges", "1", "--from-run", "GIFT"]),
    ],
)
def test_no_server_starts_on_a_folder_whose_file_has_a_foreign_command(
    gift: Path, command: click.Command, words: list[str]
) -> None:
    done = CliRunner().invoke(command, [word.replace("GIFT", str(gift)) for word in words])
    assert done.exit_code == 2, done.output
    file = gift / "redis" / "appendonlydir" / "appendonly.aof.1.incr.aof"
    assert (
        f"{file}: it has the command 'MODULE' at byte {MODULE.index(b'MODULE')}: no server is started on this folder"
        in done.output
    )
    assert not (gift / "redis" / "valkey.log").exists()


@pytest.mark.parametrize("command", [verify, contributions])
def test_a_store_of_a_package_that_only_a_folder_names_is_not_opened(
    gift: Path, command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flavor.store.open.is_installed", lambda url: True)
    named(gift, "tape://host/run")
    done = CliRunner().invoke(command, [str(gift)])
    assert done.exit_code == 2, done.output
    assert (
        "run 'gift' keeps its objects in a store 'tape://', which a package of this machine would open" in done.output
    )
