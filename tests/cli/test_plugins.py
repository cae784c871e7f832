"""``rtsep plugins`` and ``--plugin``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from rtsep.cli import main
from tests.support.graphs import make_delay_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSEP_PLUGIN_CACHE", str(tmp_path / "cache.json"))
    monkeypatch.setattr("rtsep.plugins.scan.standard_folders", lambda: [tmp_path / "vst3"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_delay_model(tmp_path_factory.mktemp("m") / "m.onnx", hop=512, latency=700)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    audio = (0.1 * np.random.default_rng(0).standard_normal((24_000, 2))).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", audio, 48_000, subtype="FLOAT")
    return tmp_path / "song.wav"


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, result.output


def test_effects_and_files_are_listed(tmp_path: Path) -> None:
    code, text = run("plugins", "list")
    assert code == 0
    assert "Reverb" in text
    assert "No VST3 files in the usual folders" in text
    (tmp_path / "vst3").mkdir()
    (tmp_path / "vst3" / "Junk.vst3").write_bytes(b"junk")
    assert "Junk" in run("plugins", "list")[1]
    assert "not tried yet" in run("plugins", "list")[1]
    code, text = run("plugins", "scan")
    assert code == 0
    assert "1/1  Junk" in text
    assert "failed" in text
    assert "0 of 1 can be used" in text
    document = json.loads(run("plugins", "list", "--json")[1])
    assert [row["status"] for row in document["files"]] == ["failed"]
    assert {"name": "Reverb", "summary": "a room"} in document["effects"]


def test_info_shows_ranges() -> None:
    code, text = run("plugins", "info", "reverb")
    assert code == 0
    assert "room_size    0 to 1   0.5" in text
    assert "loads anew" in run("plugins", "info", "BrickwallLimiter")[1]
    (document,) = json.loads(run("plugins", "info", "LadderFilter", "--json")[1])
    mode = next(x for x in document["parameters"] if x["name"] == "mode")
    assert mode["choices"][0] == "LPF12"
    code, text = run("plugins", "info", "Reverp")
    assert code == 1
    assert "Did you mean 'Reverb'" in text


def test_separate_goes_through_the_chain(model: Path, song: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    code, text = run(
        "separate",
        song,
        "--model",
        model,
        "-o",
        out,
        "--plugin",
        "vocals=Gain:gain_db=-120",
        "--plugin",
        "master=Invert",
    )
    assert code == 0, text
    heard, sent = (soundfile.read(path, dtype="float32")[0] for path in (out, song))
    np.testing.assert_allclose(heard, -0.5 * sent, atol=1e-6)


def test_run_goes_through_the_chain_in_the_order_given(model: Path, song: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out.wav", ["--plugin", "master=Invert", "--plugin", "master=Clipping:threshold_db=-20"]
    code, text = run("run", model, "--backend", "file", "-i", song, "-o", out, "--no-keys", "--json", *words)
    assert code == 0, text
    heard = soundfile.read(out, dtype="float32")[0]
    assert np.abs(heard).max() == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("Reverb", 2, "is not STEM=PLUGIN"),
        ("vocals=Reverb:room_size", 2, "is not PARAMETER=VALUE"),
        ("vocals=Reverb:room_size=4", 2, "allowed is 0 to 1"),
        ("vocals=Reverp", 1, "Did you mean 'Reverb'"),
        ("vocal=Reverb", 2, "Did you mean 'vocals'"),
        ("vocals=/nowhere/x.vst3", 1, "No plugin at /nowhere/x.vst3"),
        ("vocals=PitchShift", 1, "silence"),
    ],
)
def test_wrong_plugins_are_named(model: Path, song: Path, tmp_path: Path, value: str, code: int, message: str) -> None:
    found, text = run("separate", song, "--model", model, "-o", tmp_path / "out.wav", "--plugin", value)
    assert found == code, text
    assert message in " ".join(text.split())


def test_without_pedalboard_the_message_says_what_to_install(
    model: Path, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pedalboard", None)
    code, text = run("separate", song, "--model", model, "-o", tmp_path / "out.wav", "--plugin", "vocals=Reverb")
    assert code == 1
    assert "pip install 'rtsep[plugins]'" in text
    assert run("plugins", "list")[0] == 0, "the list needs no pedalboard"
