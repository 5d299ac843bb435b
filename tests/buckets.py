"""An S3 service on this machine, and a proxy before it that misbehaves on demand."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "never-shown-secret"


class S3:
    """moto's server: a real one, on a socket, that keeps objects in memory."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.address: tuple[str, int] = self._server.get_host_and_port()

    def bucket(self, name: str = "") -> str:
        """A new one; its name."""
        name = name or f"b-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.endpoint()}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            return name

    def overwrite(self, bucket: str, key: str, content: bytes) -> None:
        """What somebody with rights of their own can do to an object."""
        self._client(bucket).put(key, content)

    def archive(self, bucket: str, key: str) -> None:
        """Move an object to another storage class, as its owner can, and as a rule of the bucket's does by itself."""
        import botocore.session

        client = botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint(),
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        client.copy_object(Bucket=bucket, Key=key, CopySource=f"{bucket}/{key}", StorageClass="GLACIER")

    def read(self, bucket: str, key: str) -> bytes:
        """An object, as it lies there."""
        return bytes(self._client(bucket).get(key).bytes())

    def keys(self, bucket: str) -> list[str]:
        """All of a bucket, in order."""
        return sorted(meta["path"] for batch in self._client(bucket).list() for meta in batch)

    def _client(self, bucket: str):
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=self.endpoint(),
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
        )

    def endpoint(self, address: tuple[str, int] | None = None) -> str:
        host, port = address or self.address
        return f"http://{host}:{port}"

    def environment(self, address: tuple[str, int] | None = None) -> Mapping[str, str]:
        """What a client of it finds in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint(address),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }

    def close(self) -> None:
        self._server.stop()


@dataclass
class Fault:
    """What befalls the next `times` requests whose first line matches `what`.

    `500`: the answer of a service in trouble. `drop`: the connection ends at once. `cut`: half of the answer comes.
    `lost`: the request is carried out and its answer never comes. `hang`: nothing comes, and the connection stays.
    `deny`: 403. `400`: that. `gone`: 404, of an unknown upload. `archived`: 403, as of an object in GLACIER. `plain`:
    the condition of a conditional request is taken off. `late`: it takes a moment. Anything else is called before the
    request is passed on.
    """

    what: str
    act: str | Callable[[], None]
    times: int = 1
    seen: int = field(default=0, init=False)


class Proxy:
    """Passes HTTP requests on, one connection each, but for faults. `requests` are the first lines of all.

    `bodies` are the same with the bytes that came after their heads, also of requests that were not passed on.
    `answers` are those that were passed on, with the bytes that the service answered, headers and all.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self.gate: Callable[[bytes, bytes], bytes] = lambda head, body: b""
        """Called with the head and the body of each request; what it returns is answered, unless it is empty."""
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.answers: list[tuple[str, int]] = []
        self.bodies: list[tuple[str, int]] = []
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._listener.close()

    def body_bytes(self, what: str = "") -> int:
        """The bytes that came after the heads of requests that match this."""
        return sum(size for first, size in self.bodies if re.search(what, first))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, client.makefile("rb") as incoming:
            while head := _head(incoming):
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                body = incoming.read(int(length[1])) if length else b""
                first = head.split(b"\r\n", 1)[0].decode()
                self.requests.append(first)
                self.bodies.append((first, len(body)))
                if refusal := self.gate(head, body):
                    client.sendall(refusal)
                    client.shutdown(socket.SHUT_RDWR)
                    return
                act = self._act(first)
                if act == "archived":
                    said = b"<Error><Code>InvalidObjectState</Code></Error>"
                    client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
                    continue
                if act == "gone":
                    said = b"<Error><Code>NoSuchUpload</Code></Error>"
                    client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
                    continue
                if act in ("500", "deny", "400"):
                    status = {"500": b"500 Internal Server Error", "400": b"400 Bad Request"}.get(act, b"403 Forbidden")
                    client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
                    continue
                if act == "drop":
                    return
                if act == "hang":
                    self._closing.wait(60)
                    return
                if act == "plain":
                    head = re.sub(rb"(?i)\r\nif-(none-)?match:[^\r]*", b"", head)
                elif act == "late":
                    self._closing.wait(0.1)
                elif callable(act):
                    act()
                answer = self._upstream(head, body)
                self.answers.append((first, len(answer)))
                if act == "lost":
                    return
                client.sendall(answer[: len(answer) // 2] if act == "cut" else answer)
                client.shutdown(socket.SHUT_RDWR)
                return

    def _upstream(self, head: bytes, body: bytes) -> bytes:
        head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
        with socket.create_connection(self._target) as server:
            server.sendall(head[:-2] + b"Connection: close\r\n\r\n" + body)
            parts = []
            while part := server.recv(1 << 20):
                parts.append(part)
        return b"".join(parts)

    def _act(self, first: str) -> str | Callable[[], None]:
        for fault in self.faults:
            if fault.seen < fault.times and re.search(fault.what, first):
                fault.seen += 1
                return fault.act
        return ""


def _head(incoming) -> bytes:
    head = b""
    while line := incoming.readline():
        head += line
        if line == b"\r\n":
            return head
    return b""


@contextlib.contextmanager
def proxied(s3: S3) -> Iterator[Proxy]:
    """A proxy before the service."""
    proxy = Proxy(s3.address)
    try:
        yield proxy
    finally:
        proxy.close()
