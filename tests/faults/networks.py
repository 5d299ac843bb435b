"""Network namespaces: a server in one of them, edges in others, and wires between that can be cut in one direction."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import uuid

_NETWORKS = 0x40000000
"""CLONE_NEWNET."""
ROOT = os.geteuid() == 0


def why_not() -> str:
    """Why there can be no namespaces here; '' if there can."""
    if not ROOT:
        return "network namespaces need root"
    missing = [program for program in ("ip", "ss", "iptables") if shutil.which(program) is None]
    if missing:
        return f"no {', '.join(missing)} here: install iproute2 and iptables"
    try:
        Network().close()
    except subprocess.CalledProcessError as error:
        return f"no network namespace can be made here: {(error.stderr or b'').decode().strip()}"
    return ""


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True).stdout.decode()


class Site:
    """A namespace that reaches the server's at `server`, over `wire`, and nothing else."""

    def __init__(self, name: str, server: str, hub: str, wire: str) -> None:
        self.name, self.server = name, server
        self._hears = ("ip", "netns", "exec", name, "iptables", "-w", "INPUT", "-i", "eth0", "-j", "DROP")
        self._is_heard = ("ip", "netns", "exec", hub, "iptables", "-w", "INPUT", "-i", wire, "-j", "DROP")

    @property
    def under(self) -> tuple[str, ...]:
        """What runs a command inside."""
        return "ip", "netns", "exec", self.name

    def cut(self, *, hears: bool, is_heard: bool) -> None:
        """Lose on the wire what comes from the server, or what goes there, without a word to anybody."""
        for rule in self._rules(hears, is_heard):
            _run(*rule[:6], "-A", *rule[6:])

    def mend(self, *, hears: bool, is_heard: bool) -> None:
        """The wire is whole again."""
        for rule in self._rules(hears, is_heard):
            _run(*rule[:6], "-D", *rule[6:])

    def _rules(self, hears: bool, is_heard: bool) -> list[tuple[str, ...]]:
        return [rule for rule, whole in ((self._hears, hears), (self._is_heard, is_heard)) if not whole]

    def routes(self) -> list[str]:
        """Where this side can send to."""
        return [line.split()[0] for line in _run("ip", "-n", self.name, "route").splitlines()]

    def established(self) -> int:
        """Connections that this side takes for alive."""
        return len(_run(*self.under, "ss", "-Htn", "state", "established").splitlines())


class Network:
    """The server's namespace, and one for each site, each with a wire of its own to it."""

    def __init__(self) -> None:
        self._tag = uuid.uuid4().hex[:6]
        self._names: list[str] = []
        self.hub = self._made("hub")

    def _made(self, name: str) -> str:
        name = f"flavor-{self._tag}-{name}"
        _run("ip", "netns", "add", name)
        self._names.append(name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    @property
    def under(self) -> tuple[str, ...]:
        """What runs the server."""
        return "ip", "netns", "exec", self.hub

    def unacknowledged(self) -> int:
        """Bytes that the server has sent, and that no site has acknowledged.

        A site that is cut off before its acknowledgement takes each repetition of them for a sign of life. Its
        connection is dead only once the server repeats them no more, after many minutes, or at its next use.
        """
        sent = _run(*self.under, "ss", "-Htn", "state", "established").splitlines()
        return sum(int(line.split()[1]) for line in sent)

    def site(self, name: str) -> Site:
        number = len(self._names)
        inside, near, far = self._made(name), f"10.77.{number}.1", f"10.77.{number}.2"
        wire = ("ip", "-n", self.hub, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0")
        _run(*wire, "netns", inside)
        for namespace, device, address in ((self.hub, f"to{number}", near), (inside, "eth0", far)):
            _run("ip", "-n", namespace, "address", "add", f"{address}/30", "dev", device)
            _run("ip", "-n", namespace, "link", "set", device, "up")
        return Site(inside, near, self.hub, f"to{number}")

    def inner(self, address: str) -> None:
        """Give the server's namespace an address that no site has a route to."""
        _run("ip", "-n", self.hub, "address", "add", f"{address}/32", "dev", "lo")

    def listener(self, address: str) -> socket.socket:
        """A listening socket of the server's namespace, for a server that runs outside of it."""
        made: list[socket.socket] = []

        def listen() -> None:  # a thread has a namespace of its own
            handle = os.open(f"/run/netns/{self.hub}", os.O_RDONLY)
            if ctypes.CDLL(None).setns(handle, _NETWORKS) == 0:
                made.append(socket.create_server((address, 0)))
            os.close(handle)

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        return made[0]

    def close(self) -> None:
        for name in self._names:
            _run("ip", "netns", "delete", name)
