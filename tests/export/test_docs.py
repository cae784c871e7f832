"""The example of docs/writing-a-model.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rtsep.zoo import read_info

TEXT = (Path(__file__).parents[2] / "docs" / "writing-a-model.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), "docs/writing-a-model.md", "exec"), {"__name__": "example"})
    assert read_info("level-gains.onnx").stems == ("vocals", "other")
    assert capsys.readouterr().out.endswith("('vocals', 'other') 0\n")


@pytest.mark.parametrize("key", ["licence", "training_data", "version", "evaluation", "summary"])
def test_keys_of_a_checkpoint_are_described(key: str) -> None:
    assert f"| `{key}` |" in TEXT
