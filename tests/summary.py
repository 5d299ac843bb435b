"""How a run of many tests shows where it stands, and what it says at its end about tests that were skipped."""

from __future__ import annotations

import collections
import os
import shutil
import tempfile
import time
from pathlib import Path

import inmemory
import pytest

from tests import starts

MANY = 500
"""From so many tests on, a line for each tenth of them takes the place of a dot for each."""
PACKAGES = {
    "redis-server": "redis-server",
    "faketime": "faketime",
    "ip": "iproute2",
    "ss": "iproute2",
    "iptables": "iptables",
    "tinyproxy": "tinyproxy",
    "squid": "squid",
    "haproxy": "haproxy",
    "stunnel4": "stunnel4",
    "promtool": "prometheus",
    "chromium": "chromium",
    "kubectl": "kubernetes-client",
}
"""Programs that some tests need, and Debian's packages with them."""
_MOST_REASONS = 3


class Summary:
    """A plugin of pytest, for the process that has the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self._config, self._began = config, time.monotonic()
        self._seen, self._tenths = 0, 0
        handle, path = tempfile.mkstemp(prefix="flavor-starts-")
        os.close(handle)
        starts.count_at(path)
        self._starts = Path(path)
        self._started = starts.Starts.of([])

    @property
    def _terminal(self) -> pytest.TerminalReporter:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        assert isinstance(terminal, pytest.TerminalReporter)
        return terminal

    @property
    def _total(self) -> int:
        session = self._terminal._session
        return session.testscollected if session is not None else 0

    @property
    def _quiet(self) -> bool:
        return self._config.get_verbosity() <= 0 and self._total >= MANY

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show nothing for a test that is no failure, where there are many."""
        if not self._quiet or report.when != "call" or not report.passed or hasattr(report, "wasxfail"):
            return None
        return "passed", "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say at each tenth how many tests are done."""
        if report.when != "teardown":
            return
        self._seen += 1
        if self._quiet and (tenths := 10 * self._seen // self._total) > self._tenths:
            self._tenths = tenths
            failed = sum(len(self._terminal.stats.get(name, ())) for name in ("failed", "error"))
            ill = f", {failed} failed" if failed else ""
            self._terminal.ensure_newline()
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            self._terminal.write_line(f"{self._seen:5} of {self._total} tests after {minutes}:{seconds:02}{ill}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail where programs were started cold that need not be, and keep the files of what failed."""
        self._started = starts.Starts.read(self._starts)
        if self._started.complaint():
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        if session.exitstatus != pytest.ExitCode.OK:
            inmemory.keep()

    def pytest_unconfigure(self) -> None:
        """Remove the file."""
        self._starts.unlink(missing_ok=True)

    def pytest_terminal_summary(self) -> None:
        """One line about what was started cold, and one about what was skipped."""
        if self._started.forked or self._started.cold:
            self._terminal.write_line(self._started.told())
        if complaint := self._started.complaint():
            self._terminal.write_line(complaint, red=True)
        skipped = self._terminal.stats.get("skipped", [])
        if skipped:
            self._terminal.write_line(told([reason_of(report) for report in skipped], missing()))


def reason_of(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix("Skipped: ")


def missing() -> list[str]:
    """The packages of those programs that are not installed."""
    return list(dict.fromkeys(package for program, package in PACKAGES.items() if not _installed(program)))


def _installed(program: str) -> bool:
    return shutil.which(program, path=None) is not None or shutil.which(program, path="/usr/sbin:/sbin") is not None


def told(reasons: list[str], packages: list[str]) -> str:
    """The line: how many tests, why, and what to install."""
    common = [f"{reason} ({count})" for reason, count in collections.Counter(reasons).most_common()]
    more = [f"and {len(common) - _MOST_REASONS} more reasons"] if len(common) > _MOST_REASONS else []
    line = f"{len(reasons)} tests were skipped: {'; '.join([*common[:_MOST_REASONS], *more])}"
    return f"{line}. To run more of them: apt-get install {' '.join(packages)}" if packages else line
