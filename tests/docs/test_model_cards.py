"""The model cards say what the shipped models are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_cards_agree_with_the_models() -> None:
    command = [sys.executable, ROOT / "benchmarks" / "model_cards.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
