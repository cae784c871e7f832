"""Rounded copies of checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.bandsplit.config import BandSplitConfig
from models.bandsplit.streaming import StreamingBandSplit
from models.checkpoint import load_checkpoint, save_checkpoint, save_rounded


@pytest.fixture
def model() -> StreamingBandSplit:
    torch.manual_seed(0)
    return StreamingBandSplit(BandSplitConfig(window=256, hop=64, groups=((4, 8), (3, 32)), width=8, layers=1))


def test_a_rounded_copy_is_smaller_and_nearly_the_same(model: StreamingBandSplit, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "whole.pt", "bandsplit", model, {"steps": 3})
    words = [sys.executable, "-m", "models.checkpoint", "whole.pt", "rounded.pt"]
    subprocess.run(words, cwd=tmp_path, check=True, env={"PYTHONPATH": str(Path(__file__).parents[2])})
    found, extras = load_checkpoint(tmp_path / "rounded.pt", "bandsplit")
    assert extras == {"steps": 3}
    assert (tmp_path / "rounded.pt").stat().st_size < 0.8 * (tmp_path / "whole.pt").stat().st_size
    for name, weights in model.state_dict().items():
        kept = found.state_dict()[name]
        assert kept.dtype == weights.dtype
        torch.testing.assert_close(kept, weights, rtol=1e-3, atol=1e-6)


def test_what_float16_cannot_hold_is_refused(model: StreamingBandSplit, tmp_path: Path) -> None:
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = 1e6
    save_checkpoint(tmp_path / "whole.pt", "bandsplit", model, {})
    with pytest.raises(ValueError, match="beyond float16, up to 1e\\+06"):
        save_rounded(tmp_path / "whole.pt", tmp_path / "rounded.pt")
    assert not (tmp_path / "rounded.pt").exists()
