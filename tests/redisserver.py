"""Debian's redis-server for the tests that need what the embedded one has not: TLS, and a file of users."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from flavor.bus.address import bus_address
from flavor.certs import Certificates
from tests.polled import eventually

PROGRAM = shutil.which("redis-server")


def needed() -> str:
    if PROGRAM is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server), and the embedded one has no TLS")
    return PROGRAM


@dataclass(frozen=True)
class RedisServer:
    """One that runs. `port` speaks TLS where there are `certificates`, else nothing of it."""

    port: int
    folder: Path
    certificates: Certificates | None
    password: str

    @property
    def url(self) -> str:
        """Its URL for an administrator, without what TLS needs."""
        scheme = "rediss" if self.certificates else "redis"
        secret = quote(self.password, safe="")
        return f"{scheme}://{f':{secret}@' if secret else ''}localhost:{self.port}"

    @property
    def address(self) -> str:
        """The same with the CA and a client certificate."""
        if self.certificates is None:
            return self.url
        made = self.certificates
        return bus_address(
            self.url,
            tls_ca=str(made.certificate("ca")),
            tls_cert=str(made.certificate("client")),
            tls_key=str(made.key("client")),
        )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@contextlib.contextmanager
def redis_server(
    folder: Path,
    *,
    certificates: Certificates | None = None,
    client_certificates: bool = False,
    password: str = "",
    users_file: bool = False,
    settings: str = "",
) -> Iterator[RedisServer]:
    """Run one on a free port of this machine, with these lines in its configuration file.

    Skips the test where there is none.
    """
    program = needed()
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    file = folder / "redis.conf"
    if settings:
        file.write_text(settings)
    words = ["--bind", "127.0.0.1", "--dir", folder, "--save", "", "--unixsocket", folder / "s"]
    if certificates:
        words += ["--port", 0, "--tls-port", port, "--tls-auth-clients", "yes" if client_certificates else "no"]
        words += ["--tls-cert-file", certificates.certificate("server"), "--tls-key-file", certificates.key("server")]
        words += ["--tls-ca-cert-file", certificates.certificate("ca")]
    else:
        words += ["--port", port]
    if users_file:
        hashed = f"#{hashlib.sha256(password.encode()).hexdigest()}" if password else "nopass"
        (folder / "users.acl").write_text(f"user default on {hashed} ~* &* +@all\n")
        words += ["--aclfile", folder / "users.acl"]
    elif password:
        words += ["--requirepass", password]
    with (folder / "log").open("ab") as log:
        command = [program, *([str(file)] if settings else []), *map(str, words)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    server = RedisServer(port, folder, certificates, password)
    try:
        with contextlib.closing(redis.Redis(unix_socket_path=str(folder / "s"), password=password or None)) as client:

            def answers() -> bool:
                with contextlib.suppress(redis.exceptions.RedisError):
                    return bool(client.ping())
                if "tls-port" in server.log and process.poll() is not None:
                    pytest.skip("this redis-server was built without TLS")
                assert process.poll() is None, server.log
                return False

            eventually("the server answers", answers, 10, told=lambda: server.log, pause_s=0.01)
        yield server
    finally:
        process.kill()
        process.wait()
