"""Which proxy leads to a host, and what a user finds out about one that cannot be used."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flavor.bus.connection import way_to
from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.programs.evaluator_environment import evaluator_environment
from flavor.proxy import PROXY_VARIABLE, Proxy, chosen, proxy_for, why_direct, without_password
from flavor.store.bucket_proxy import proxy_options
from flavor.tunnel import ConnectAnswer, ProxyFailure, connect_answer, open_tunnel

VARIABLES = [f"{name}_PROXY" for name in ("HTTP", "HTTPS", "ALL", "NO", "FLAVOR")]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def leads(monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str], scheme: str, host: str, port: int = 6379) -> str:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(scheme, host, port)
    return proxy.where if proxy else ""


EACH = {"HTTP_PROXY": "http://h:1", "HTTPS_PROXY": "http://s:2", "ALL_PROXY": "socks5://a:3"}


@pytest.mark.parametrize(
    ("given", "scheme", "led"),
    [
        ({}, "rediss", ""),
        (EACH, "rediss", "s:2"),
        (EACH, "redis", "a:3"),
        (EACH, "https", "s:2"),
        (EACH, "http", "h:1"),
        ({"HTTP_PROXY": "http://h:1"}, "rediss", ""),
        ({"HTTPS_PROXY": "http://s:2"}, "redis", ""),
        ({"ALL_PROXY": "socks5h://a"}, "rediss", "a:1080"),
        ({"https_proxy": "small:8080", "HTTPS_PROXY": "http://s:2"}, "rediss", "small:8080"),
        ({"HTTPS_PROXY": "http://s"}, "rediss", "s:80"),
        *(
            ({**EACH, PROXY_VARIABLE: "http://own:4"}, scheme, "own:4")
            for scheme in ("redis", "rediss", "http", "https")
        ),
        ({**EACH, PROXY_VARIABLE: "none"}, "https", ""),
        ({**EACH, PROXY_VARIABLE: "http://[2001:db8::1]:8080"}, "https", "[2001:db8::1]:8080"),
    ],
)
def test_the_option_comes_first_and_redis_takes_no_proxy_for_http(
    given: Mapping[str, str], scheme: str, led: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert leads(monkeypatch, given, scheme, "redis.example.org") == led


@pytest.mark.parametrize(
    ("listed", "host", "is_direct"),
    [
        ("", "localhost", True),
        ("", "127.0.0.1", True),
        ("", "127.8.9.1", True),
        ("", "::1", True),
        ("", "db.localhost", True),
        ("", "10.0.0.1", False),
        ("*", "redis.example.org", True),
        ("other.org, .Example.org", "redis.example.org", True),
        ("example.org", "redis.example.org", True),
        ("*.example.org", "redis.example.org", True),
        ("example.org", "anexample.org", False),
        ("redis.example.org:6379", "redis.example.org", True),
        ("redis.example.org:443", "redis.example.org", False),
        ("10.0.0.0/8", "10.3.4.5", True),
        ("10.0.0.0/8", "11.3.4.5", False),
        ("10.3.4.5", "10.3.4.5", True),
        ("2001:db8::/32", "2001:db8::7", True),
        ("[2001:db8::7]:6379", "2001:db8::7", True),
        ("10.0.0.0/8", "redis.example.org", False),
        (",,", "redis.example.org", False),
    ],
)
def test_this_machine_and_what_no_proxy_names_are_reached_directly(
    listed: str, host: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"NO_PROXY": listed, PROXY_VARIABLE: "http://p:1"}
    assert (leads(monkeypatch, given, "rediss", host) == "") is is_direct


def test_a_password_is_unquoted_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://clinic%5Cann:p%40ss%3A@proxy:3128")
    proxy = proxy_for("rediss", "redis.example.org")
    assert proxy is not None
    assert (proxy.user, proxy.password) == ("clinic\\ann", "p@ss:")
    assert proxy.url == "http://clinic%5Cann:p%40ss%3A@proxy:3128"
    assert "ss" not in repr(proxy).replace("password", "")
    assert proxy.headers == {"Proxy-Authorization": "Basic Y2xpbmljXGFubjpwQHNzOg=="}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("https://u:s3cret@proxy:443", "speaks https, and flavor speaks to HTTP and SOCKS5"),
        ("ftp://u:s3cret@proxy", "speaks ftp"),
        ("http://u:s3cret/x@proxy:1", "no proxy that can be used"),
        ("http://u:s3cret@:1", "no proxy that can be used"),
        ("http://u:s3cret@proxy:port", "no proxy that can be used"),
        ("http://u:s3cret@pro xy:1", "no proxy that can be used"),
        ("socks5://u%C3%A4:s3cret@proxy", "1 to 255 ASCII characters"),
        ("socks5://s3cret@proxy", "1 to 255 ASCII characters"),
        ("http://u%3A:s3cret@proxy", "holds a colon"),
        ("http://u:s3cret%0D%0AX:@proxy", "a control character"),
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", PROXY_VARIABLE])
def test_what_names_no_proxy_is_refused_without_a_word_of_it(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting, match=told) as refused:
        proxy_for("rediss", "redis.example.org")
    assert str(refused.value).startswith(variable)
    assert "s3cret" not in str(refused.value)


def test_a_file_is_read_anew_and_what_it_said_last_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that is changed is used, and a file that is being written to ends no program."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "proxy.url"
    file.write_text("http://u:one@proxy:1\n")
    given = {PROXY_VARIABLE: chosen("@proxy.url")}
    assert given[PROXY_VARIABLE] == f"@{file}"
    passwords = []
    for text in (file.read_text(), "http://u:two@proxy:1", "", None):
        file.unlink() if text is None else file.write_text(text)
        leads(monkeypatch, given, "rediss", "redis.example.org")
        proxy = proxy_for("rediss", "redis.example.org")
        assert proxy is not None
        passwords.append(proxy.password)
    assert passwords == ["one", "two", "two", "two"]
    with pytest.raises(InvalidSetting, match=r"--proxy @proxy\.url: No such file"):
        chosen("@proxy.url")


def test_a_script_finds_the_password_in_a_file_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://u:s3cret@proxy:1"
    given = without_password({PROXY_VARIABLE: url, "HTTPS_PROXY": url, "X": "1"}, tmp_path)
    assert given == {PROXY_VARIABLE: f"@{tmp_path}/proxy", "HTTPS_PROXY": url, "X": "1"}
    assert stat.S_IMODE(os.stat(tmp_path / "proxy").st_mode) == 0o600
    monkeypatch.setenv(PROXY_VARIABLE, given[PROXY_VARIABLE])
    proxy = proxy_for("rediss", "redis.example.org")
    assert proxy is not None
    assert proxy.url == url
    for value in ("http://proxy:1", "@/a/file", "none"):
        assert without_password({PROXY_VARIABLE: value}, tmp_path) == {PROXY_VARIABLE: value}


def test_an_evaluator_needs_no_way_to_redis_and_finds_none(tmp_path: Path) -> None:
    files = Workspace.prepare(tmp_path / "w", environment={}, input_path=tmp_path)
    base = {PROXY_VARIABLE: "http://u:s3cret@proxy:1"}
    assert PROXY_VARIABLE not in evaluator_environment(base, files, round_=1, rounds=1, run="r", client="c")


@pytest.mark.parametrize(
    ("head", "read"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ConnectAnswer(200, "OK", "", ())),
        (b"HTTP/1.0 200\n\n", ConnectAnswer(200, "", "", ())),
        (
            b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n",
            ConnectAnswer(403, "Forbidden", "ERR_ACCESS_DENIED 0", ()),
        ),
        (
            b"HTTP/1.1 407 No\x1b[2J\r\nproxy-authenticate: Negotiate\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
            ConnectAnswer(407, "No\\x1b[2J", "", ("Negotiate", "Basic")),
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None),
        (b"HTTP/1.1 200", None),
        (b"HTTP/2 200 OK\r\n\r\n", None),
        (b"", None),
    ],
)
def test_what_a_proxy_answers(head: bytes, read: ConnectAnswer | None) -> None:
    assert connect_answer(head) == read


def test_obstore_reaches_directly_what_no_proxy_names_and_where_machines_of_clouds_get_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It also asks STS, and in EKS an address beside the machine's: the choice for the bucket does not fit those."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "sts.example.org, *.inner.example,10.0.0.0/8 bucket.example.org:9000")
    found = proxy_options(urlsplit("https://bucket.example.org"))
    assert found["proxy_url"] == "http://proxy:3128"
    excepted = found["proxy_excludes"].split(",")
    assert {"sts.example.org", ".inner.example", "10.0.0.0/8", "metadata.google.internal"} <= {*excepted}
    assert not [each for each in excepted if each.startswith("bucket")], "it is so at another port alone"
    networks = [ip_network(each) for each in excepted if "/" in each and ":" not in each]
    for address in ("169.254.169.254", "169.254.170.2", "169.254.170.23"):
        assert any(ip_address(address) in network for network in networks)


def test_the_way_to_redis_is_told_for_its_usual_port_where_the_url_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    for port, told in (("6380", True), ("6379", False)):
        monkeypatch.setenv("NO_PROXY", f"redis.example.org:{port}")
        assert bool(way_to("rediss://redis.example.org")) is told


@pytest.mark.parametrize(
    ("given", "scheme", "host", "told"),
    [
        ({}, "rediss", "redis.example.org", "directly, as no proxy is set for it: if this machine needs one"),
        ({"HTTP_PROXY": "http://h:1"}, "rediss", "redis.example.org", "set for it (HTTP_PROXY is not for rediss://)"),
        ({"HTTPS_PROXY": "s:2"}, "redis", "r.example.org", "name it with --proxy or ALL_PROXY"),
        (
            {**EACH, "NO_PROXY": ".example.org"},
            "rediss",
            "r.example.org",
            "NO_PROXY names this host, although HTTPS",
        ),
        ({PROXY_VARIABLE: "none", **EACH}, "https", "r.example.org", "--proxy or FLAVOR_PROXY is none"),
        (EACH, "rediss", "redis.example.org", ""),
        ({}, "rediss", "localhost", ""),
    ],
)
def test_why_no_proxy_leads_to_a_host_is_said(
    given: Mapping[str, str], scheme: str, host: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    said = why_direct(scheme, host)
    assert told in said
    assert bool(said) is bool(told)


@pytest.mark.parametrize(("scheme", "asks"), [("socks5", True), ("http", False)])
def test_a_proxy_that_gives_no_answer_may_speak_http_where_socks_was_named(
    scheme: str, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An HTTP proxy takes the first bytes of SOCKS5 for the start of a line, and waits for its end."""
    monkeypatch.setattr("flavor.tunnel._ANSWER_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = Proxy(scheme, "127.0.0.1", silent.getsockname()[1], "ALL_PROXY")
        with pytest.raises(ProxyFailure, match="has given no answer") as raised:
            open_tunnel(proxy, "redis.example.org", 443, 5)
    assert ("for one of HTTP, write http://" in str(raised.value)) is asks
    assert "whether it reaches redis.example.org:443" in str(raised.value)
