"""The watch that says whether a late hop was the machine's doing."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.support.stalls import machine_stalls

_STALL = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(95))
end = time.monotonic() + 0.03
while time.monotonic() < end:
    pass
"""


def test_a_core_that_was_away_for_30_ms_is_noticed() -> None:
    core = str(min(os.sched_getaffinity(0)))
    with machine_stalls() as stalls:
        time.sleep(0.3)  # the watchers start
        if subprocess.run([sys.executable, "-c", _STALL, core], stderr=subprocess.DEVNULL, check=False).returncode:
            pytest.skip("no real-time priority here")
        time.sleep(0.05)
    assert stalls.count >= 1
    assert stalls.longest_ms >= 20
