"""Join tokens, and that secrets show nowhere."""

from __future__ import annotations

import base64
import json
import os
import pwd
import sys
import traceback
from pathlib import Path

import click
import pytest
from pydantic import SecretStr, ValidationError

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.bus.token import JoinToken
from flavor.bus.variables import JOIN_VARIABLE, URL_VARIABLE
from flavor.cli.main import cli
from flavor.cli.secrets import _TOKENS, keep_private, without_secrets
from flavor.edge.agent import Edge
from flavor.edge.config import EdgeConfig
from flavor.errors import InvalidSetting
from flavor.local.federation import Federation
from flavor.local.plan import Layout
from flavor.protocol import here
from flavor.store.open import open_store
from flavor.view.observer import Lines
from workers.context import WorkerContext

SECRET = "s3cr3t/+ä#?@"
TOKEN = JoinToken(
    url="rediss://bus.example:6379/2",
    user="flavor:mammo:site-1",
    secret=SecretStr(SECRET),
    run="mammo",
    client="site-1",
    store="/mnt/flavor",
    ca="-----BEGIN CERTIFICATE-----\n…",
)


def test_a_token_is_one_word_and_says_everything() -> None:
    word = TOKEN.encode()
    assert word.startswith("flavor-join:")
    assert word.replace("-", "").replace("_", "").replace(":", "").isalnum()
    assert JoinToken.parse(word) == TOKEN
    assert JoinToken.parse(f"  {word[:40]}\n{word[40:]}\n") == TOKEN  # as it comes out of a mail
    settings = connect(TOKEN.credentials()).connection_pool.connection_kwargs
    assert (settings["username"], settings["password"]) == ("flavor:mammo:site-1", SECRET)
    assert (settings["host"], settings["port"], settings["db"]) == ("bus.example", 6379, 2)


def test_a_token_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "site-1.token"
    file.write_text(TOKEN.encode() + "\n")
    assert JoinToken.parse(f"@{file}") == TOKEN
    with pytest.raises(InvalidSetting, match=r"--join @.*none: No such file"):
        JoinToken.parse(f"@{tmp_path / 'none'}")


def damaged() -> list[str]:
    word = TOKEN.encode()
    body = word.removeprefix("flavor-join:")

    def with_json(text: str) -> str:
        return "flavor-join:" + base64.urlsafe_b64encode(text.encode()).decode()

    good = TOKEN.model_dump_json()
    return [
        "",
        body,
        "flavor-join:",
        word[:-1],
        word[: len(word) // 2],
        word[:30] + "!" + word[31:],
        word.replace("e", "é", 1),
        with_json("[]"),
        with_json("[" * 9999),
        with_json(good.replace('"run":"mammo"', '"run":"../x"')),
        with_json(good.replace('"run":"mammo",', "")),
        with_json(good.replace("rediss://", "http://")),
        with_json(good.replace("rediss://bus", "rediss://u:p@bus")),
        with_json(good.replace("?@", "").replace('"secret":"', '"secret":["')),
        with_json(good.replace("6379/2", "6379/2?ssl_cert_reqs=none")),
    ]


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        (
            {"protocol": 9, "release": "9.1.0"},
            ("made by flavor 9.1.0 (protocol 9), and this is", "upgrade flavor here"),
        ),
        ({"protocol": 9, "secret": {"sealed": SECRET}}, ("made by a later release of flavor (protocol 9)", "upgrade")),
        ({"protocol": 1, "release": "0.0.9"}, ("made by flavor 0.0.9 (protocol 1), and this is", "make another one")),
    ],
)
def test_a_token_of_another_protocol_is_refused_by_both_releases(said: dict[str, object], parts: tuple[str]) -> None:
    values = {**json.loads(TOKEN.model_dump_json()), **said}
    word = "flavor-join:" + base64.urlsafe_b64encode(json.dumps(values).encode()).decode()
    with pytest.raises(InvalidSetting) as caught:
        JoinToken.parse(word)
    assert all(part in str(caught.value) for part in (*parts, here()))
    assert (caught.value.exit_code, SECRET in str(caught.value)) == (2, False)


def test_a_token_of_release_0_1_names_no_version_and_is_read() -> None:
    old = TOKEN.model_dump_json(exclude={"protocol", "release"})
    assert JoinToken.parse("flavor-join:" + base64.urlsafe_b64encode(old.encode()).decode()) == TOKEN
    assert (TOKEN.protocol, TOKEN.release) == (2, "")


@pytest.mark.parametrize("word", damaged())
def test_a_damaged_token_is_one_line_that_does_not_quote_it(word: str) -> None:
    with pytest.raises(InvalidSetting, match="join token") as caught:
        JoinToken.parse(word)
    trace = "".join(traceback.format_exception(caught.value))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert SECRET not in trace
    assert "s3cr3t" not in trace
    if len(word) > 12:
        assert word[12:40] not in trace


def test_secrets_are_in_no_repr_and_no_error(tmp_path: Path) -> None:
    url = TOKEN.credentials()
    encoded = url.split("@")[0].rpartition(":")[2]
    config = EdgeConfig(run="r", client="c", redis_url=url, command=("true",), workspace=tmp_path)
    federation = Federation("r", 1, [], "true", None, Layout(tmp_path), redis_url=url)
    client = connect(url)
    context = WorkerContext(client, url, open_store(str(tmp_path / "store"), create=True))
    edge = Edge(config, observer=Lines(print))
    shown = [repr(TOKEN), str(TOKEN), repr(TOKEN.model_dump()), repr(config), str(config), repr(federation)]
    shown += [repr(client), repr(client.connection_pool), repr(context), repr(RunStore(client, "r", url)), repr(edge)]
    for model, values in [
        (EdgeConfig, {"run": "r", "redis_url": [url], "patience_s": -1}),
        (JoinToken, {"url": "x", "secret": [SECRET], "run": "r"}),
    ]:
        with pytest.raises(ValidationError) as caught:
            model(**values)
        shown += [str(caught.value), repr(caught.value)]
    for text in shown:
        assert SECRET not in text
        assert encoded not in text


@pytest.mark.parametrize(
    ("words", "kept", "moved"),
    [
        (["status", "--redis-url", "redis://u:p@h"], ["status"], {"FLAVOR_REDIS_URL": "redis://u:p@h"}),
        (["--redis-url=redis://u:p@h", "status"], ["status"], {"FLAVOR_REDIS_URL": "redis://u:p@h"}),
        (["--redis-url", "redis://h?password=p"], [], {"FLAVOR_REDIS_URL": "redis://h?password=p"}),
        (["--redis-url", "redis://h:1"], ["--redis-url", "redis://h:1"], {}),
        (
            ["-m", "x", "--join", "flavor-join:t", "--run", "r"],
            ["-m", "x", "--run", "r"],
            {"FLAVOR_JOIN": "flavor-join:t"},
        ),
        (["--join=flavor-join:t"], [], {"FLAVOR_JOIN": "flavor-join:t"}),
        (["--join", "@file"], ["--join", "@file"], {}),
        (["--join"], ["--join"], {}),
        (["--redis-url", "redis://u:p@h", "--redis-url", "redis://h"], [], {"FLAVOR_REDIS_URL": "redis://h"}),
        (["serve", "--notify", "json://h/s", "--run", "r"], ["serve", "--run", "r"], {"FLAVOR_NOTIFY": "json://h/s\n"}),
        (
            ["serve", "--notify=slack://a", "--notify", "@my file"],
            ["serve"],
            {"FLAVOR_NOTIFY": "slack://a\n@my file\n"},
        ),
        (["serve", "--notify", "@file"], ["serve", "--notify", "@file"], {}),
        (["ui", "--token", "s3cret", "--port", "1"], ["ui", "--port", "1"], {"FLAVOR_UI_TOKEN": "s3cret"}),
        (["metrics", "--token=s3cret"], ["metrics"], {"FLAVOR_METRICS_TOKEN": "s3cret"}),
        (["ui", "--token", "@file"], ["ui", "--token", "@file"], {}),
        (["status", "--token", "x"], ["status", "--token", "x"], {}),  # it has no such option, and says so
        (["serve", "--proxy", "http://u:p@h:1"], ["serve"], {"FLAVOR_PROXY": "http://u:p@h:1"}),
        (["serve", "--proxy", "@file"], ["serve", "--proxy", "@file"], {}),
        (["serve", "--proxy=http://h:1"], ["serve", "--proxy=http://h:1"], {}),
        (["ui", "--redis-url", "@page.url"], ["ui", "--redis-url", "@page.url"], {}),
        (["event", "--", "--join", "flavor-join:t"], ["event", "--", "--join", "flavor-join:t"], {}),
    ],
)
def test_what_is_secret_leaves_the_command_line(words: list[str], kept: list[str], moved: dict[str, str]) -> None:
    assert without_secrets(words) == (kept, moved)


@pytest.mark.parametrize("name", sorted(_TOKENS))
def test_the_token_of_a_page_or_of_metrics_reaches_no_other_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command, variable = cli.get_command(click.Context(cli), name), _TOKENS[name]
    assert command is not None
    option = next(each for each in command.params if "--token" in each.opts)
    assert option.envvar == variable
    monkeypatch.setenv(variable, "s3cret-s3cret")
    assert option.process_value(click.Context(command), "s3cret-s3cret") == "s3cret-s3cret"
    assert variable not in os.environ


def test_a_flag_says_that_a_secret_option_was_given() -> None:
    flags = {"--redis-url": "--live"}
    url, moved = "redis://u:p@h", {"FLAVOR_REDIS_URL": "redis://u:p@h"}
    assert without_secrets(["run", "--redis-url", url, "--json"], flags) == (
        ["run", "--live", "--json"],
        moved,
    )
    assert without_secrets(["run", "--redis-url=redis://u:p@h"], flags) == (["run", "--live"], moved)
    assert without_secrets(["run", "--redis-url", "redis://h"], flags) == (["run", "--redis-url", "redis://h"], {})


def test_an_empty_token_is_told_from_a_wrong_one(tmp_path):
    file = tmp_path / "site.token"
    file.write_text("\n")
    with pytest.raises(InvalidSetting, match=r"the file .*site\.token is empty: `flavor enroll` prints a token"):
        JoinToken.parse(f"@{file}")
    with pytest.raises(InvalidSetting, match="the join token is empty"):
        JoinToken.parse(" ")


def test_a_file_that_is_given_without_its_at_sign_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("site.token").write_text("flavor-join:x")
    with pytest.raises(InvalidSetting, match=r"prints one; one in a file is given as --join @site\.token$"):
        JoinToken.parse("site.token")
    for text in ("other", "x" * 5000):
        with pytest.raises(InvalidSetting, match=r"prints one$"):
            JoinToken.parse(text)


@pytest.mark.parametrize("others", [True, False])
def test_one_line_says_where_a_secret_stood_on_a_machine_with_other_users(
    others: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And for no other option, and for nobody whose token is in a file."""
    nobody = next(each for each in pwd.getpwall() if each.pw_uid == os.getuid())
    fields = (*nobody[:2], 1234, *nobody[3:])
    monkeypatch.setattr(pwd, "getpwall", lambda: [pwd.struct_passwd(fields)] if others else [nobody])
    for variable in (JOIN_VARIABLE, URL_VARIABLE):
        monkeypatch.setenv(variable, "")
    for words, said in [
        (["--join", SECRET], ["the secret of --join", "give it as --join @FILE, or in the variable FLAVOR_JOIN"]),
        (["--redis-url", f"redis://:{SECRET}@h"], ["the secret of --redis-url", "in the variable FLAVOR_REDIS_URL"]),
        (["--join", "@file", "--redis-url", "redis://h"], []),
    ]:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/flavor-fl", *words])
        keep_private()
        told = capsys.readouterr().err
        assert told.count("\n") == (1 if said and others else 0)
        assert not told or (told.startswith("flavor-fl: ") and all(part in told for part in said))
        assert SECRET not in told
