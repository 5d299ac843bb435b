"""Where a page listens, and the token that a place needs which other machines can reach."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from flavor.cli.tokens import read_token, taken_out
from flavor.errors import FlavorError, InvalidSetting, RunError
from flavor.page import token as tokens
from flavor.page.server import bound, opens_a_browser
from flavor.page.token import COOKIE_S, Token

TOKEN = "a-token-of-the-test"


def _has(address: str) -> bool:
    try:
        socket.create_server((address, 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has("::1"), reason="this machine has no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", pytest.param("::1", marks=needs_ipv6)])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    with contextlib.closing(bound(host, 0, token=None).socket) as listening:
        place = bound(host, 0, token=None)
        place.socket.close()
        assert place.is_loopback
        assert place.address == f"http://{f'[{host}]' if ':' in host else host}:{place.port}/"
        assert listening.getsockname()[1] != 0


@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("::", marks=needs_ipv6)])
def test_every_other_place_needs_one(host: str) -> None:
    with pytest.raises(InvalidSetting, match=r"needs a token: --token or FLAVOR_UI_TOKEN.*TLS"):
        bound(host, 0, token=None)
    place = bound(host, 0, token=TOKEN)
    place.socket.close()
    assert not place.is_loopback
    assert place.address == f"http://localhost:{place.port}/"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("nowhere.invalid", "--host nowhere.invalid"),
        ("203.0.113.7", "this machine has no such address"),
        ("a" * 300, "--host a"),
    ],
)
def test_a_host_that_is_not_here_is_one_line(host: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        bound(host, 0, token=TOKEN)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_is_said_or_another_is_taken() -> None:
    first = bound("127.0.0.1", 0, token=None)
    with contextlib.closing(first.socket):
        with pytest.raises(RunError, match=rf"port {first.port} of 127.0.0.1 is in use.*--port 0"):
            bound("127.0.0.1", first.port, token=None)
        second = bound("127.0.0.1", first.port, token=None, or_free=True)
        second.socket.close()
        assert second.port != first.port


def test_a_port_that_was_just_free_can_be_taken() -> None:
    place = bound("127.0.0.1", 0, token=None)
    with socket.create_connection((place.host, place.port)):
        taken, _ = place.socket.accept()
        taken.close()  # leaves it in TIME_WAIT
    place.socket.close()
    bound("127.0.0.1", place.port, token=None).socket.close()


@pytest.mark.parametrize("given", ["", "short", "1234567", "with a space", "tab\tinside", "ü-no-header", "x" * 600])
def test_a_token_that_is_guessed_or_cannot_be_sent_is_refused(given: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_token(given, "FLAVOR_UI_TOKEN")
    assert not given or given not in str(caught.value)


def test_a_token_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(f"@{file}", "FLAVOR_UI_TOKEN") == TOKEN
    assert read_token(None, "FLAVOR_UI_TOKEN") is None
    for name, content in (("none", None), ("short", b"x\n"), ("bytes", b"\xff" * 20), ("empty", b"")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(FlavorError, match=f"--token @{tmp_path / name}"):
            read_token(f"@{tmp_path / name}", "FLAVOR_UI_TOKEN")


def test_an_empty_variable_does_not_mean_a_page_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that should have made the token has failed."""
    monkeypatch.setenv("FLAVOR_UI_TOKEN", "")
    assert taken_out("FLAVOR_UI_TOKEN")(None, None, None) is None  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="FLAVOR_UI_TOKEN is empty"):
        read_token(None, "FLAVOR_UI_TOKEN")
    assert read_token(TOKEN, "FLAVOR_UI_TOKEN") == TOKEN
    monkeypatch.setenv("FLAVOR_UI_TOKEN", TOKEN)
    assert taken_out("FLAVOR_UI_TOKEN")(None, None, TOKEN) == TOKEN  # type: ignore[arg-type]
    assert "FLAVOR_UI_TOKEN" not in os.environ


def test_a_session_ends_with_its_time_and_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    token, other = Token(TOKEN), Token(f"{TOKEN}2")
    session = token.session()
    assert token.is_session(session)
    assert Token(TOKEN).is_session(session), "also after a restart"
    assert not other.is_session(session)
    assert token.cookie != other.cookie
    for wrong in ("", ".", "x", session[:-1], f"9{session}", "é.é", session.partition(".")[2]):
        assert not token.is_session(wrong)
    now = time.time()
    monkeypatch.setattr(tokens.time, "time", lambda: now + COOKIE_S + 2)
    assert not token.is_session(session)
    assert TOKEN not in repr(vars(token))


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has a display")
def test_a_browser_is_opened_only_where_somebody_sits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert not opens_a_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    assert opens_a_browser()
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.7 1 203.0.113.8 22")
    assert not opens_a_browser()
    monkeypatch.delenv("SSH_CONNECTION")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert not opens_a_browser()
