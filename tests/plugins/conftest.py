"""Fixtures of the plugin tests: real VST3 bundles built here, those of zam-plugins, a chain with known answers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtsep.chain import HopChain
from rtsep.inference.session import StreamingSession
from rtsep.mixer.mixer import Mixer
from rtsep.plugins.host import PluginHost, make_racks
from tests.support.graphs import make_delay_model
from tests.support.vst3 import build_bundle

Audio = NDArray[np.float32]

RATE, HOP = 48_000, 512
ZAM = Path("/usr/lib/vst3")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSEP_PLUGIN_CACHE", str(tmp_path / "cache" / "plugins.json"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles tests/plugins/faulty.c into ``NAME.vst3``."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        unavailable("Linux and gcc are needed for the plugins built here: apt install gcc libc6-dev")
    folder, made = tmp_path_factory.mktemp("vst3"), dict[tuple[str, ...], Path]()

    def build(name: str = "Faulty", *flags: str) -> Path:
        if (name, *flags) not in made:
            made[name, *flags] = build_bundle(folder, name, *flags)
        return made[name, *flags]

    return build


@pytest.fixture
def zam() -> Path:
    """The folder of zam-plugins."""
    if not (ZAM / "ZaMaximX2.vst3").exists():
        unavailable("zam-plugins is not installed; run: apt install zam-plugins")
    return ZAM


def unavailable(text: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


class Rig:
    """A chain of a model with known stems (.125, .125, .25, .5 of the input), and its plugins."""

    def __init__(self, model: Path, *, live: bool = False, plugins: bool = True) -> None:
        self.session = StreamingSession(model, provider="cpu")
        info = self.session.info
        self.mixer = Mixer(info.stems, info.channels, RATE)
        self.racks = self.host = None
        if plugins:
            self.racks = make_racks(
                info.stems,
                info.channels,
                info.hop_samples,
                RATE,
                output_channels=info.channels,
                samplerate=RATE,
                settings=self.mixer.settings,
            )
            self.host = PluginHost(self.racks, info.stems, live=live)
        self.chain = HopChain(self.session, self.mixer, self.racks)

    def play(self, audio: Audio, at_hop: dict[int, Callable[[], object]] | None = None) -> Audio:
        """Return the output [C, T] of ``audio`` [C, T], whole hops; `at_hop` holds what to do before which hop."""
        out = []
        for number, start in enumerate(range(0, audio.shape[1] - HOP + 1, HOP)):
            if at_hop and number in at_hop:
                at_hop[number]()
            out.append(self.chain.process_hop(np.ascontiguousarray(audio[:, start : start + HOP])).copy())
        return np.concatenate(out, axis=1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four stems, hop 512, latency 700."""
    return make_delay_model(tmp_path_factory.mktemp("model") / "delay.onnx", hop=HOP, latency=700)


@pytest.fixture
def rig(model: Path) -> Iterator[Callable[..., Rig]]:
    """Return a function that makes a `Rig`."""
    rigs: list[Rig] = []

    def make(**settings: bool) -> Rig:
        rigs.append(Rig(model, **settings))
        return rigs[-1]

    yield make
    for made in rigs:
        made.session.close()


def noise(samples: int, channels: int = 2, seed: int = 0) -> Audio:
    """Return seeded noise [C, T] at -20 dBFS."""
    return (0.1 * np.random.default_rng(seed).standard_normal((channels, samples))).astype(np.float32)


def sine(samples: int, hertz: float = 220.0, level: float = 0.5) -> Audio:
    """Return a sine [2, T]."""
    wave = level * np.sin(2 * np.pi * hertz / RATE * np.arange(samples))
    return np.stack([wave, wave]).astype(np.float32)


def worst_click(audio: Audio) -> float:
    """Return the largest second difference of ``audio`` [C, T]: a step of `d` gives about `d`, a low tone next to 0."""
    return float(np.abs(np.diff(audio.astype(np.float64), 2, axis=1)).max())
