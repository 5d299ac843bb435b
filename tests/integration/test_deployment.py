"""docs/deployment.md works as it is written: its blocks are typed into the terminals that it names.

Paths, the server's name and its port are substituted, and nothing is installed; everything else is the page's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import environment_of, prepared
from redisserver import needed

from tests.polled import eventually

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()
BLOCKS = re.findall(r"\*\*Terminal (\d) · [^\n]*\*\*\n\n```bash\n(.*?)```", PAGE, flags=re.DOTALL)
(SITES,) = re.findall(r"\*\*At the sites, in the copy[^\n]*\*\*\n\n```bash\n(.*?)```", PAGE, flags=re.DOTALL)
DEADLINE_S = 100.0


class Terminal:
    """A shell that stays open, as one in a window does."""

    def __init__(self, folder: Path, environment: dict[str, str], name: str) -> None:
        self.screen = folder / f"terminal-{name}"
        self._blocks = 0
        with self.screen.open("wb") as screen:
            self._shell = subprocess.Popen(
                ["bash"],
                stdin=subprocess.PIPE,
                stdout=screen,
                stderr=screen,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.screen.read_text(errors="replace")

    def enter(self, block: str, until: str | None = None) -> str:
        """Type a block. It has to end well, or, where it stays in the foreground, to print `until`."""
        self._blocks += 1
        done = f"block {self._blocks} ended with "
        keys = f"set -e\n{{ {block}\n}} < /dev/null\nset +e\necho; echo '{done}'$?\n"
        assert self._shell.stdin
        self._shell.stdin.write(keys.encode())
        self._shell.stdin.flush()
        return self.wait(until or f"{done}0")

    def wait(self, text: str) -> str:
        def is_shown() -> bool:
            assert self._shell.poll() is None, f"the terminal closed before {text!r}; there is {self.text}"
            return text in self.text

        eventually(f"the terminal shows {text!r}", is_shown, DEADLINE_S, told=lambda: self.text)
        return self.text

    def close(self) -> None:
        """End what runs in it: the whole session."""
        assert self._shell.stdin
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._shell.pid, number)
                self._shell.wait(15)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                return


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three sites with data and the example's script, as the page makes them."""
    copied = tmp_path / "copy"
    shutil.copytree(ROOT / "examples" / "numpy-digits", copied / "examples" / "numpy-digits")
    environment = prepared(tmp_path)
    subprocess.run(["bash", "-ec", SITES], cwd=copied, env=environment, check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def terminals(place: Path) -> Iterator[dict[str, Terminal]]:
    environment = environment_of(place)
    opened = {name: Terminal(place, environment, name) for name in "1234567"}
    yield opened
    for name in "4563721":
        opened[name].close()


def test_every_terminal_of_the_page_is_in_the_order_of_the_table() -> None:
    assert [name for name, _ in BLOCKS] == ["1", "2", "2", "3", "4", "5", "6", "7"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_page_word_for_word(place: Path, terminals: dict[str, Terminal]) -> None:
    needed()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])

    def substituted(block: str) -> str:
        block = block.replace("redis.example.org", "localhost").replace("6379", port)
        return block.replace("/srv/flavor", f"{place}/srv").replace("/mnt/flavor", f"{place}/mnt")

    server, users, serve, aggregator, site1, site2, site3, look = (substituted(block) for _, block in BLOCKS)
    terminals["1"].enter(server, until="Ready to accept connections")
    terminals["2"].enter(users)
    for number in (1, 2, 3):  # what the operator sends to each site
        token = place / "srv" / "operator" / f"site-{number}.token"
        assert token.stat().st_mode & 0o077 == 0
        shutil.copy(token, place / f"site-{number}")
    terminals["2"].enter(serve, until="run 'digits' is open for clients")
    terminals["3"].enter(aggregator, until="queue")
    for name, block in (("4", site1), ("5", site2), ("6", site3)):
        terminals[name].enter(block, until="joined")
    for name in "456":
        terminals[name].wait("is finished")
        terminals[name].wait("ended with 0")
    terminals["2"].wait("block 2 ended with 0")
    screen = terminals["7"].enter(look)
    assert "digits  finished  round 5 of 5" in screen
    assert "site-3" in screen

    assert (place / "srv" / "operator" / "results" / "digits").stat().st_mode & 0o777 == 0o700, (
        "each site's metrics lie there"
    )
    assert len((place / "srv" / "operator" / "results" / "digits" / "metrics.csv").read_text().splitlines()) == 6

    saved = (place / "srv" / "redis" / "users.acl").read_text()
    for user in ("default", "flavor-worker:agg-1", "flavor:digits:site-1", "flavor:digits:site-3"):
        assert f"user {user} on " in saved
    secret = (place / "srv" / "redis" / "admin.password").read_text().strip()
    for name in "456":  # no site has seen the administrator's password
        assert secret not in terminals[name].text
    assert not any(secret in file.read_text(errors="replace") for file in place.glob("site-*/**/*") if file.is_file())
