"""``rtsep run``, ``bench``, ``latency --measure``, ``doctor`` with the real engine on the clocked backends."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from rtsep.audio.backends import DummyConfig
from rtsep.cli.display import bar, frame, gain_text, pan_text
from rtsep.cli.keys import Desk, decode
from rtsep.engine.engine import Engine
from tests.cli.conftest import Run, Spawn
from tests.support.graphs import make_delay_model

Audio = NDArray[np.float32]


def test_a_file_through_the_engine(run: Run, model: Path, song: Path, recording: Audio, tmp_path: Path) -> None:
    out, stats = tmp_path / "out.wav", tmp_path / "stats.json"
    result = run(
        "run", model, "--backend", "file", "-i", song, "-o", out, "--mute", "drums", "--stats", stats, "--slack", 8
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"Stopped after 0:0\d\.  \d+ hops, 0 late", result.stdout)
    assert "Latency" in result.stderr
    document = json.loads(stats.read_text())
    shift = document["latency"]["stream_samples"]
    audio = soundfile.read(out, dtype="float32")[0].T
    np.testing.assert_array_equal(audio[:, shift : shift + 88200], 0.5 * recording)
    assert document["stats"]["hops"] > 150
    assert document["machine"]["cores"] == os.cpu_count()


def test_seconds_json_and_record(run: Run, model: Path, tmp_path: Path) -> None:
    take = tmp_path / "take.wav"
    result = run("run", model, "--backend", "dummy", "--seconds", "0.5", "--json", "--record", take, "-b", "128")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert 0.5 <= document["seconds"] < 3
    assert document["device"] == {"samplerate": 48000, "block": 128}
    assert soundfile.info(take).frames == document["stats"]["record_frames"] > 10000


def test_a_device_that_is_not_there_is_exit_code_3(run: Run, model: Path) -> None:
    result = run("run", model, "-i", "no such device", "-o", "no such device", "--seconds", "1")
    assert result.exit_code == 3, result.output
    assert "Error:" in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_stems_and_files_end_before_anything_plays(run: Run, model: Path, song: Path, tmp_path: Path) -> None:
    result = run("run", model, "--backend", "dummy", "--mute", "drum", "--seconds", "1", "--stats", tmp_path / "s.json")
    assert result.exit_code == 2
    assert "Did you mean 'drums'?" in result.stderr
    assert not (tmp_path / "s.json").exists()
    assert run("run", model, "--backend", "file", "-i", tmp_path / "none.wav").exit_code == 1
    assert run("run", tmp_path / "none.onnx", "--backend", "dummy").exit_code == 4
    result = run("run", model, "--backend", "dummy", "--seconds", "1", "--stats", tmp_path / "no" / "s.json")
    assert result.exit_code == 1
    assert "s.json cannot be written" in result.stderr


def test_strict_is_exit_code_5_when_hops_are_late(run: Run, tmp_path: Path) -> None:
    hopeless = make_delay_model(tmp_path / "hopeless.onnx", hop=64, latency=64, ballast=60)
    args = ("run", hopeless, "--backend", "dummy", "--seconds", "1")
    result = run(*args, "--strict")
    assert result.exit_code == 5, result.output
    assert "--slack 2" in result.stderr
    assert run(*args).exit_code == 0
    bench = run("bench", hopeless, "--blocks", "64", "--seconds", "1", "--strict", "--json")
    assert bench.exit_code == 5
    assert json.loads(bench.stdout)["blocks"][0]["verdict"] == "too slow"


def test_bench_has_a_row_for_every_block(run: Run, model: Path) -> None:
    result = run("bench", model, "--blocks", "64,480", "--seconds", "1", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["block"] for row in document["blocks"]] == [64, 480]
    for row in document["blocks"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["p999_ms"] <= row["max_ms"]
        assert row["rtf"] == pytest.approx(row["p99_ms"] / document["period_ms"])
    assert document["period_ms"] == pytest.approx(1000 * 512 / 44100, rel=1e-3)
    text = run("bench", model, "--blocks", "256", "--seconds", "1").stdout
    assert re.search(r"^\s+256(\s+\d+\.\d\d){6}\s+\d+", text, re.MULTILINE)


@pytest.mark.parametrize(("block", "rate"), [(256, 44100), (480, 48000), (64, 44100), (1024, 48000), (256, 96000)])
def test_measured_latency_is_the_computed_one(run: Run, model: Path, block: int, rate: int) -> None:
    result = run("latency", model, "-b", block, "--samplerate", rate, "--measure", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["agree"]
    for measured in document["measured_samples"]:
        assert abs(measured - document["total_samples"]) <= (0 if rate in (44100, 48000) else 1)
    computed = json.loads(run("latency", model, "-b", block, "--samplerate", rate, "--json").stdout)
    assert computed["total_samples"] == document["total_samples"] - block, "all but the wire"


def test_latency_compares_block_sizes(run: Run, model: Path) -> None:
    result = run("latency", model, "-b", "480")
    assert "hop 512 - gcd(480, 512)" in result.stdout
    assert "Smaller: block 64" in result.stderr


def test_doctor_looks_at_everything_and_fails_when_something_is_wrong(run: Run, model: Path, tmp_path: Path) -> None:
    document = json.loads(run("doctor", "--model", model, "--seconds", "0.5", "--json").stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert {"system", "cpu", "rtsep", "numpy", "onnxruntime", "providers", "PortAudio", "model", "engine"} <= set(
        checks
    )
    assert checks["model"]["ok"] is True
    broken = make_delay_model(tmp_path / "broken.onnx", broken="no-metadata")
    result = run("doctor", "--model", broken, "--seconds", "0.5")
    assert result.exit_code == 1
    assert re.search(r"^FAIL\s+model", result.stdout, re.MULTILINE)
    assert "checks failed: model" in result.stderr


def test_models_commands(run: Run, model: Path, tmp_path: Path) -> None:
    text = run("models", "info", model).stdout
    for expected in ("test-delay 1", "drums bass other vocals", "512 samples (11.6 ms)", "700 samples (15.9 ms)"):
        assert expected in text
    assert run("models", "path", model).stdout == f"{model}\n"
    assert run("models", "verify", model).exit_code == 0
    broken = make_delay_model(tmp_path / "broken.onnx", broken="state-shape")
    result = run("models", "verify", model, broken)
    assert result.exit_code == 4
    assert result.stdout.splitlines()[0].startswith("ok")
    assert result.stdout.splitlines()[1].startswith("bad")


# --- keys and display -------------------------------------------------------------------------------------------------


def test_keys_are_decoded() -> None:
    assert list(decode("1m\x1b[A\x1b[B\x1bOC\x1b[D?q")) == ["1", "m", "up", "down", "right", "left", "?", "q"]
    assert list(decode("\x1b[5~s\x1b[1;5Ab")) == ["s", "b"], "unknown sequences are swallowed whole"
    assert list(decode("\x1b")) == []


def test_keys_turn_the_knobs_of_a_running_engine(model: Path) -> None:
    with Engine(model, backend=DummyConfig(source="noise")) as engine:
        desk = Desk(engine)
        for key in ("4", "up", "up", "down", "left", "left", "right", "m", "9", "x"):
            desk.press(key)
        s = engine.settings
        assert (s.gain_db[3], s.pan[3], s.mute[3]) == (1.0, pytest.approx(-0.1), 1)
        for key in ("2", "s", "b", "r", "?"):
            desk.press(key)
        assert (s.solo[1], s.bypass, desk.show_help, desk.quit) == (1, True, True, False)
        lines = frame(engine, desk)
        assert len(lines) == 7
        assert lines[1].startswith(">2 bass")
        assert " S" in lines[1]
        assert "BYPASS" in lines[4]
        assert "select a stem" in lines[6]
        for _ in range(100):
            desk.press("down")
        assert s.gain_db[1] == -120.0
        desk.press("up")
        assert s.gain_db[1] == -60.0
        for _ in range(100):
            desk.press("up")
        assert s.gain_db[1] == 24.0
        desk.press("q")
        assert desk.quit
        until = time.monotonic() + 3
        while engine.stats().model_resets == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert engine.stats().model_resets == 1


def test_bars_and_texts() -> None:
    assert bar(0.0, 0.0, 10) == "·" * 10
    assert bar(1.0, 1.0, 10) == "█" * 10
    assert bar(10 ** (-30 / 20), 10 ** (-12 / 20), 10) == "█" * 5 + "··▏··"
    assert (gain_text(-120), gain_text(-6), gain_text(3)) == ("   -inf", "   -6.0", "   +3.0")
    assert (pan_text(0), pan_text(-0.5), pan_text(1)) == ("C   ", "L50 ", "R100")


def terminal(spawn: Spawn, *args: object) -> SimpleNamespace:
    """Start rtsep on a terminal of its own; returns process, master, slave and the settings before."""
    import pty
    import termios

    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = spawn(*args, stdin=slave, stderr=slave, start_new_session=True)
    return SimpleNamespace(process=process, master=master, slave=slave, before=before)


def read_until(master: int, text: str, seconds: float = 20.0) -> str:
    import select

    seen = ""
    until = time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < until, f"no {text!r} in {seen[-2000:]!r}"
        if select.select([master], [], [], 0.1)[0]:
            seen += os.read(master, 65536).decode(errors="replace")
    return seen


@pytest.mark.parametrize("end", ["q", "sigint", "sigterm"])
def test_the_terminal_is_used_and_given_back(spawn: Spawn, model: Path, tmp_path: Path, end: str) -> None:
    import signal
    import termios

    stats = tmp_path / "s.json"
    t: Any = terminal(spawn, "run", model, "--backend", "dummy", "--stats", stats)
    try:
        read_until(t.master, "? for keys")
        read_until(t.master, "drums")
        while termios.tcgetattr(t.slave)[3] & termios.ICANON:
            time.sleep(0.01)
        os.write(t.master, b"3s\x1b[A?")
        read_until(t.master, "select a stem")
        read_until(t.master, "+1.0")
        if end == "q":
            os.write(t.master, b"q")
        else:
            t.process.send_signal(signal.SIGINT if end == "sigint" else signal.SIGTERM)
        out, _ = t.process.communicate(timeout=20)
        assert t.process.returncode == {"q": 0, "sigint": 130, "sigterm": 143}[end]
        assert "Stopped after" in out
        assert termios.tcgetattr(t.slave) == t.before
        assert json.loads(stats.read_text())["stats"]["hops"] > 0
    finally:
        t.process.kill()
        t.process.wait()
        for pipe in (t.process.stdout,):
            pipe.close()
        os.close(t.master)
        os.close(t.slave)


def test_the_machine_is_measured_once_and_the_choice_is_taken(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RTSEP_CONFIG_DIR", str(tmp_path / "settings"))
    before = run("run", "--backend", "dummy", "--seconds", "0.3")
    assert "bench --choose" in before.stderr
    measured = run("bench", "--choose", "--seconds", "1", "--json")
    assert measured.exit_code == 0, measured.output
    choice = json.loads(measured.stdout)
    assert choice["model"] in {timing["model"] for timing in choice["timings"]}
    assert Path(choice["kept_in"]).parent == tmp_path / "settings"
    after = run("run", "--backend", "dummy", "--seconds", "0.3")
    assert choice["why"] in after.stderr
    assert f"Model    {choice['model']}" in after.stderr
    assert "Choice" not in run("run", "cunet", "--backend", "dummy", "--seconds", "0.3").stderr
    assert run("bench", "low", "--choose").exit_code == 2
    assert run("bench", "--latency-limit", "20").exit_code == 2


def test_two_runs_of_bench_can_be_compared(run: Run, model: Path, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        result = run("bench", model, "--blocks", "256", "--seconds", "1", "--json")
        assert len(json.loads(result.stdout)["blocks"][0]["rounds"]) >= 3
        (tmp_path / name).write_text(result.stdout)
    said = run("bench", "--compare", tmp_path / "a.json", tmp_path / "b.json", "--json")
    figures = json.loads(said.stdout)["figures"]
    assert {figure["figure"] for figure in figures} == {"hop time p50", "hop time p99"}
    assert all(figure["verdict"] in ("faster", "slower", "the same") for figure in figures)
    assert run("bench", model, "--compare", tmp_path / "a.json", tmp_path / "b.json").exit_code == 2
