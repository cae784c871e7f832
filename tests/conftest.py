"""Tests against the clock, on machines that stop now and then.

The tests below `REALTIME` play against a clock and count what was late, to the hop. Where the machine itself takes the
cores away, as virtual machines do, such a count says nothing about rtsep. So while these tests run, a sleeper of the
highest priority on each core notes when it was woken too late, and a test that failed while that happened is run again,
twice at most, and reported as run again. A failure on a machine that did not stop is a failure.

They are marked ``realtime``: all others may run side by side, as `make test` has them do.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.stalls import StallWatch

REALTIME = ("cli", "console", "control", "engine", "integration", "notes", "plugins", "query", "takes")


class StalledTests:
    """Say of the test that runs whether the machine stopped since it began."""

    def __init__(self) -> None:
        self.watch: StallWatch | None = None
        self.first = self.began = time.monotonic()

    def stalled(self) -> bool:
        return self.watch is not None and bool(self.watch.since(self.began))

    # Before pytest chooses by marks and pytest-rerunfailures reads them.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        here = Path(__file__).parent
        for item in items:
            if item.path.relative_to(here).parts[0] in REALTIME:
                item.add_marker(pytest.mark.realtime)
                item.add_marker(pytest.mark.flaky(reruns=2, condition=self.stalled))
                self.watch = self.watch or StallWatch()

    def pytest_runtest_logstart(self) -> None:
        self.began = time.monotonic()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.watch is not None:
            late = [1e3 * seconds for seconds in self.watch.since(self.first)]
            terminalreporter.write_line(
                f"the machine stopped for more than 4 ms {len(late)} times, for {max(late, default=0.0):.0f} ms at most"
            )

    def pytest_unconfigure(self) -> None:
        if self.watch is not None:
            self.watch.close()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(StalledTests())
