"""Asked for and obtained: no silent fallback, no noise, nothing loaded before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from rtsep.errors import ModelFileError, ProviderError, UsageError
from rtsep.inference import StreamingSession
from tests.support.graphs import make_delay_model

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
without_cuda = pytest.mark.skipif(HAS_CUDA, reason="onnxruntime-gpu is installed: the error cannot happen")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_delay_model(tmp_path / "m.onnx")


@without_cuda
def test_cuda_asked_for_and_not_obtained_is_an_error(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ProviderError, match=r"'cuda' was asked for and not obtained: onnxruntime .* has only"
    ) as caught:
        StreamingSession(model, provider="cuda")
    assert caught.value.exit_code == 4
    assert capfd.readouterr() == ("", "")


@without_cuda
def test_auto_falls_back_and_says_why(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with StreamingSession(model) as session:
        assert (session.provider_asked, session.provider) == ("auto", "cpu")
        assert session.provider_note is not None
        assert "CUDA is not used: onnxruntime" in session.provider_note
        assert "\n" not in session.provider_note
    assert capfd.readouterr() == ("", "")


@without_cuda
@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_a_bad_file_is_the_files_fault_and_not_the_providers(tmp_path: Path, provider: Any) -> None:
    path = make_delay_model(tmp_path / "damaged.onnx")
    path.write_bytes(path.read_bytes().replace(b"Concat", b"Cancat"))
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        StreamingSession(path, provider=provider)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu")
def test_cuda_computes_what_the_cpu_computes(tmp_path: Path) -> None:
    path = make_delay_model(tmp_path / "m.onnx", latency=700, control=True, notes=True, feedback=True, ballast=1)
    audio = np.random.default_rng(0).standard_normal((20, 2, 512)).astype(np.float32)
    with StreamingSession(path, provider="cuda") as cuda, StreamingSession(path, provider="cpu") as cpu:
        assert cuda.provider == "cuda"
        for _ in range(2):
            for index, hop in enumerate(audio):
                if index == 10:
                    cuda.set_control("level", 0.5)
                    cpu.set_control("level", 0.5)
                np.testing.assert_allclose(cuda.step(hop), cpu.step(hop), atol=1e-4, rtol=0)
                assert cuda.notes is not None
                assert cpu.notes is not None
                np.testing.assert_allclose(cuda.notes["onset"], cpu.notes["onset"], atol=1e-4, rtol=0)
            cuda.reset()
            cpu.reset()


def test_unknown_providers_are_refused(model: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown provider 'cpus'; Did you mean 'cpu'\? Allowed are auto, cpu, cuda"):
        StreamingSession(model, provider="cpus")  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, 1.0, True])
def test_threads_are_checked(model: Path, threads: Any) -> None:
    with pytest.raises(UsageError, match="threads is"):
        StreamingSession(model, threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_result(model: Path, threads: int) -> None:
    hop = np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)
    with StreamingSession(model, threads=threads) as session:
        session.step(hop)
        np.testing.assert_array_equal(session.step(hop).sum(axis=0), hop)


def in_a_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_importing_loads_no_runtime() -> None:
    run = in_a_fresh_process(
        "import sys, rtsep.inference, rtsep.zoo, rtsep.contract\n"
        "rtsep.zoo.list_models()\n"
        "print(sorted({'numpy', 'onnxruntime', 'onnx', 'torch'} & set(sys.modules)))\n"
        "from rtsep.inference import StreamingSession\n"
        "print(sorted({'onnxruntime', 'onnx', 'torch'} & set(sys.modules)))"
    )
    assert (run.stdout, run.stderr) == ("[]\n[]\n", "")


def test_a_session_says_nothing_of_its_own(model: Path) -> None:
    run = in_a_fresh_process(
        f"from rtsep.inference import StreamingSession\n"
        f"for provider in ('auto', 'cpu'):\n"
        f"    StreamingSession({str(model)!r}, provider=provider).close()"
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_an_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    import rtsep.inference

    with pytest.raises(AttributeError, match="no attribute 'StreamingSessions'"):
        _ = rtsep.inference.StreamingSessions
