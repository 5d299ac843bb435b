"""What a result folder says of its run, also where an earlier release wrote it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor import __version__
from flavor.cli.main import cli
from flavor.config import RunConfig
from flavor.errors import InvalidSetting
from flavor.local.federation import Federation
from flavor.local.plan import Layout, Site
from flavor.local.record import Record, recorded_url
from flavor.patterns import STATISTICS
from flavor.protocol import here

CONFIG = RunConfig(rounds=3, min_clients=2, quorum=0.5, keep=("a*",), settings={"SECRET": "s3cret"}, store="folder")


def test_a_federation_is_read_as_it_was_written(tmp_path: Path) -> None:
    federation = Federation(
        run="r",
        config=CONFIG,
        sites=[Site("s1", tmp_path)],
        main="python main.py",
        preprocess=None,
        layout=Layout(tmp_path),
        init_model=tmp_path / "model.npz",
        strip_prefix=True,
    )
    federation._record("folder").write(tmp_path)
    assert Federation.of(tmp_path, None) == federation
    assert (tmp_path / "federation.json").stat().st_mode & 0o777 == 0o600


def test_one_that_the_release_before_wrote_can_go_on(tmp_path: Path) -> None:
    """Its settings stood as the words of `flavor serve`, and its edges' as those of `flavor-fl`."""
    words = ["--checkpoint", "opaque", "--keep-rounds", "0", "--quorum", "50%", "--on-quorum-lost", "fail"]
    words += ["--share-names", "--min-clients", "2", "--set", "LR=0.1", "--set", "A=b", "--init-model", "/m.npz"]
    fields = {
        **{"run": "r", "rounds": 7, "sites": [{"client": "s1", "input": "/data"}], "main": "python main.py"},
        **{"preprocess": None, "store": None, "serve_options": words, "edge_options": ["--opaque", "--strip-prefix"]},
        **{"format": None, "workers": 1, "aggregator_main": "a", "init_once": False, "environment": {}, "folder": "/"},
    }
    record = {"version": 1, "run": "r", "store": "/s", "embedded": True, "federation": fields}
    (tmp_path / "federation.json").write_text(json.dumps(record))
    federation = Federation.of(tmp_path, None)
    expected = RunConfig.parse(
        {
            **{"rounds": 7, "checkpoint": "opaque", "keep_rounds": 0, "quorum": 0.5, "share_names": True},
            **{"min_clients": 2, "settings": {"LR": "0.1", "A": "b"}, "store": federation.config.store},
        }
    )
    assert federation.config == expected
    assert (federation.init_model, federation.strip_prefix) == (Path("/m.npz"), True)

    fields["serve_options"] = ["--min-clients", "3", "--keep", "a", "--keep", "b", "--statistics", "*.seen"]
    (tmp_path / "federation.json").write_text(json.dumps(record))
    config = Federation.of(tmp_path, None).config
    assert (config.on_quorum_lost, config.keep, config.statistics) == ("wait", ("a", "b"), (*STATISTICS, "*.seen"))


def test_one_of_a_later_release_is_told(tmp_path: Path) -> None:
    Record("r", "s", True, {}).write(tmp_path)
    path = tmp_path / "federation.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(InvalidSetting, match="another release"):
        Record.of(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sites", None, "it lacks 'sites'"),
        ("sites", 5, "not iterable"),
        ("sites", [{"client": "s1"}], "it lacks 'input'"),
        ("config", None, "it lacks 'config'"),
        ("config", [], "cannot be read"),
        ("init_model", 5, "cannot be read"),
        ("main", None, "main"),
    ],
)
def test_a_field_of_the_federation_that_is_lacking_or_wrong_is_told(
    tmp_path: Path, name: str, value: object, said: str
) -> None:
    """None for one that is lacking."""
    Federation(
        run="r", config=CONFIG, sites=[Site("s1", tmp_path)], main="true", preprocess=None, layout=Layout(tmp_path)
    )._record("folder").write(tmp_path)
    record = json.loads((tmp_path / "federation.json").read_text())
    record["federation"] |= {name: value}
    if value is None:
        del record["federation"][name]
    (tmp_path / "federation.json").write_text(json.dumps(record))
    with pytest.raises(InvalidSetting, match=r"federation\.json cannot be read: ") as caught:
        Federation.of(tmp_path, None)
    assert said in str(caught.value)
    for command in (["run", "--resume", str(tmp_path)], ["extend", str(tmp_path), "--rounds", "9"]):
        result = CliRunner().invoke(cli, command)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", "5", "{", "{}"])
def test_one_that_is_damaged_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "federation.json").write_text(text)
    with pytest.raises(InvalidSetting, match="cannot be read"):
        Record.of(tmp_path)


def test_a_folder_above_result_folders_and_no_url_name_the_newest_result_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLAVOR_REDIS_URL", raising=False)

    def said(*words: str) -> str:
        result = CliRunner().invoke(cli, list(words))
        assert result.exit_code == 2, result.output
        return result.output

    assert said("status").endswith("no --redis-url is given: pass --redis-url or set FLAVOR_REDIS_URL\n")
    for at, name in enumerate(("old", "a new one")):
        folder = tmp_path / "flavor-runs" / name
        folder.mkdir(parents=True)
        (folder / "federation.json").touch()
        os.utime(folder, (at, at))
    for command, *options in (("status",), ("ui", "--port", "0")):
        assert f"result folder of a local run: flavor {command} 'flavor-runs/a new one'\n" in said(command, *options)
        assert "name one of them, such as flavor-runs/a new one\n" in said(command, "flavor-runs", *options)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("unix:///tmp/s", "unix:///tmp/s"),
        ("redis://u:secret@h:1", ""),
        ("rediss://h:1?ssl_ca_certs=ca.pem", ""),
        (None, ""),
    ],
)
def test_the_url_of_the_users_redis_is_kept_unless_it_has_secrets_or_settings(given: str | None, kept: str) -> None:
    assert recorded_url(given) == kept


def test_the_redis_of_a_run_is_the_one_that_is_given_or_kept(tmp_path: Path) -> None:
    assert Record("r", "s", True).server(tmp_path, "redis://given") is None
    kept = Record("r", "s", False, {}, "redis://kept")
    assert (kept.server(tmp_path, None), kept.server(tmp_path, "redis://given")) == ("redis://kept", "redis://given")
    with pytest.raises(InvalidSetting, match="on a Redis of yours: name it by --redis-url"):
        Record("r", "s", False).server(tmp_path, None)


def test_a_record_has_what_the_release_before_does_not_know_only_where_it_is_in_use(tmp_path: Path) -> None:
    fields = {"run": "r", "config": {"rounds": 1}, "devices": ""}
    Record("r", "s", True, fields).write(tmp_path)
    written = json.loads((tmp_path / "federation.json").read_text())
    assert ("release" in written, written["federation"]) == (False, {"run": "r", "config": {"rounds": 1}})
    Record("r", "s", True, {**fields, "devices": "0,1"}).write(tmp_path)
    found = Record.of(tmp_path)
    assert (found.release, found.federation["devices"]) == (__version__, "0,1")


@pytest.mark.parametrize("place", ["record", "federation"])
def test_a_record_of_a_later_release_is_refused_by_both_releases_and_by_name(tmp_path: Path, place: str) -> None:
    Record("r", "s", True, {"run": "r", "devices": "0"}).write(tmp_path)
    file = tmp_path / "federation.json"
    written = json.loads(file.read_text())
    (written if place == "record" else written["federation"])["masked"] = True
    file.write_text(json.dumps({**written, "release": "9.1.0"}))
    with pytest.raises(InvalidSetting) as caught:
        Federation.of(tmp_path, None)
    assert f"was written by flavor 9.1.0, and {here()} does not know what it has: masked: use that" in str(caught.value)
