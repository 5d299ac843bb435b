"""The bus's address: which are refused, and how one travels with its TLS files to a child process."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from flavor.bus import address
from flavor.bus.address import bus_address, from_environment, is_this_machine, to_environment, url_of
from flavor.bus.connection import checked_url, connect, shown
from flavor.certs import Certificates, make_certificates
from flavor.errors import InvalidSetting

ELSEWHERE = "198.51.100.7"  # an address of documentation: nobody's


def plain(url: str, **options: bool) -> str:
    return bus_address(url, tls_ca=None, tls_cert=None, tls_key=None, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls") / "with blank & more", ["localhost"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "[::1]", "localhost", "[::ffff:127.0.0.1]"])
def test_plain_redis_to_this_machine_is_allowed(host: str) -> None:
    assert plain(f"redis://user:secret@{host}:6379/0") == f"redis://user:secret@{host}:6379/0"
    assert plain("unix:///tmp/s") == "unix:///tmp/s"
    assert plain("redis:///3") == "redis:///3"  # redis-py's default host


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:s3cret@{ELSEWHERE}:6379",
        f"redis://:s3cret@{ELSEWHERE}",
        "redis://u:s3cret@[2001:db8::7]:6379",
        "redis://u:s3cret@no-such-host.invalid:6379",
        f"redis:///0?host={ELSEWHERE}&password=s3cret",
    ],
)
def test_plain_redis_to_another_machine_is_refused(url: str) -> None:
    with pytest.raises(
        InvalidSetting, match=r"not encrypted.*is not this machine: use rediss://.*--insecure"
    ) as caught:
        plain(url)
    assert "s3cret" not in str(caught.value)
    assert plain(url, insecure=True) == url


def test_an_address_of_this_machine_is_told_from_others() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ELSEWHERE, 9))
        except OSError:
            pytest.skip("this machine has no network")
        assert is_this_machine(probe.getsockname()[0])
    assert not is_this_machine(ELSEWHERE)


def test_a_name_of_which_one_address_is_elsewhere_is_not_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_up(*_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", (host, 0)) for host in ("127.0.0.1", ELSEWHERE)]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    assert not is_this_machine("two.example")


def test_a_resolver_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def never(*_: object, **__: object) -> list[object]:
        end.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(address, "_LOOKUP_S", 0.05)
    assert not is_this_machine("slow.example")  # comes back although the resolver has not
    end.set()


def test_tls_files_travel_in_variables_beside_a_plain_url(made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.folder.parent)  # relative paths hold in any other folder
    inside = made.folder.name
    whole = bus_address(
        "rediss://u%3Av:s3cret@localhost:1/2?socket_timeout=1",
        tls_ca=f"{inside}/ca.pem",
        tls_cert=f"{inside}/client.pem",
        tls_key=f"{inside}/client.key",
    )
    assert shown(whole) == "rediss://localhost:1/2"
    base = {"PATH": "/bin", "FLAVOR_JOIN": "flavor-join:x", "FLAVOR_TLS_CA": "old", "FLAVOR_REDIS_URL": "redis://other"}
    child = to_environment(base, whole)
    assert child == {
        "PATH": "/bin",
        "FLAVOR_REDIS_URL": "rediss://u%3Av:s3cret@localhost:1/2?socket_timeout=1",
        "FLAVOR_TLS_CA": str(made.certificate("ca")),
        "FLAVOR_TLS_CERT": str(made.certificate("client")),
        "FLAVOR_TLS_KEY": str(made.key("client")),
    }
    again = from_environment(child, child["FLAVOR_REDIS_URL"])
    settings = connect(again).connection_pool.connection_kwargs
    assert {name: settings[name] for name in ("username", "password", "host", "port", "db")} == {
        "username": "u:v",
        "password": "s3cret",
        "host": "localhost",
        "port": 1,
        "db": 2,
    }
    assert settings["ssl_ca_certs"] == str(made.certificate("ca"))
    assert settings["ssl_keyfile"] == str(made.key("client"))


def test_a_child_of_a_bus_without_tls_inherits_no_tls() -> None:
    base = {"FLAVOR_TLS_CA": "old", "FLAVOR_TLS_CERT": "old", "FLAVOR_TLS_KEY": "old"}
    secrets = {"FLAVOR_JOIN": "token", "FLAVOR_NOTIFY": "slack://token"}
    assert to_environment({**base, **secrets}, "unix:///tmp/s") == {"FLAVOR_REDIS_URL": "unix:///tmp/s"}
    assert to_environment({}, "redis://r:1") == {"FLAVOR_REDIS_URL": "redis://r:1", "FLAVOR_INSECURE": "1"}
    assert from_environment(base, "unix:///tmp/s") == "unix:///tmp/s"


@pytest.mark.parametrize(
    "query",
    [
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=",
        "ssl_check_hostname=false",
        "ssl_ca_data=x",
        "db=1&ssl_cert_reqs=optional",
    ],
)
def test_no_url_turns_the_verification_off(query: str) -> None:
    for ask in (plain, connect):
        with pytest.raises(InvalidSetting, match="always verified"):
            ask(f"rediss://localhost:1?{query}")


def test_files_that_cannot_be_used_are_told_by_their_option(made: Certificates, tmp_path: Path) -> None:
    ca, cert, key = (str(made.certificate("ca")), str(made.certificate("client")), str(made.key("client")))
    other = make_certificates(tmp_path / "other", ["localhost"])
    for files, told in [
        ((str(tmp_path / "none"), None, None), "--tls-ca .*none: No such file"),
        ((str(tmp_path), None, None), "--tls-ca .*: Is a directory"),
        ((key, None, None), "there is no certificate in it"),
        ((ca, None, key), "--tls-key .*give the certificate"),
        ((ca, cert, None), "not a certificate and its unencrypted key"),
        ((ca, cert, str(other.key("client"))), "the key is not that of the certificate"),
    ]:
        names = dict(zip(("tls_ca", "tls_cert", "tls_key"), files, strict=True))
        with pytest.raises(InvalidSetting, match=told):
            bus_address("rediss://localhost:1", **names)
    with pytest.raises(InvalidSetting, match="write rediss://"):
        bus_address("redis://localhost:1", tls_ca=ca, tls_cert=None, tls_key=None)


@pytest.mark.parametrize("database", ["prod", "1x", "0/1", "-1"])
def test_a_database_that_is_no_number_is_refused(database: str) -> None:
    with pytest.raises(InvalidSetting, match="what follows the host is no database number"):
        checked_url(f"redis://localhost:6379/{database}")
    for fine in ("", "/", "/15", "/15?socket_timeout=1"):
        assert checked_url(f"redis://localhost:6379{fine}")


def test_a_url_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "page.url"
    file.write_text("redis://u:s3cret@localhost:1\n")
    assert url_of(f"@{file}") == "redis://u:s3cret@localhost:1"
    assert url_of("redis://localhost") == "redis://localhost"
    for content in (b"", b"s3cret", b"\xff\xfe", b"redis://a\nredis://b"):
        file.write_bytes(content)
        with pytest.raises(InvalidSetting, match=r"there is no URL in it: `flavor enroll --out FILE`") as caught:
            url_of(f"@{file}")
        assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidSetting, match=r"--redis-url @.*none: No such file"):
        url_of(f"@{tmp_path}/none")
    with pytest.raises(InvalidSetting, match=r"Is a directory"):
        url_of(f"@{tmp_path}")
