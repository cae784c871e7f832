"""What live separation costs: our models beside HS-TasNet and Open-Unmix in PyTorch, taking turns in one run.

    python -m pip install --no-deps --target peers HS-TasNet openunmix einops einx ema-pytorch loguru mingru-pytorch \\
        log-depth-recurrent-modeling x-mlps-pytorch torch-einops-utils assoc-scan frozendict
    python benchmarks/separation_peers.py --peers peers --json figures.json runs/bandsplit-low.onnx

Processor seconds for a second of audio, one thread, hop by hop, with the latency that each has. HS-TasNet 0.3.4 runs
its own streaming function, Open-Unmix (unidirectional, four targets) one frame a hop, its inverse transform and Wiener
filter left out in its favour; neither ships weights for that, so both have random ones, which cost the same. What they
import beyond PyTorch and do not need here (torchaudio, torchcodec, librosa, matplotlib, accelerate) is left empty.
A round is some seconds of every system in turn; the spread is that of the rounds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.model_cards import table
from export.parity import machine, music_like
from rtsep.inference import StreamingSession
from rtsep.zoo import list_models

RATE = 44_100
_NOT_NEEDED = (
    "torchaudio", "torchaudio.transforms", "torchaudio.functional", "torchcodec", "torchcodec.decoders",
    "torchcodec.encoders", "librosa", "matplotlib", "matplotlib.pyplot", "accelerate",
)  # fmt: skip


@dataclass
class System:
    """One system: what a hop of it is, and the processor seconds per second of audio of each round."""

    name: str
    note: str
    parameters: int
    hop: int
    latency_ms: float
    step: Callable[[np.ndarray], object]
    costs: list[float] = field(default_factory=list)

    def run(self, audio: np.ndarray) -> float:
        """Process ``audio`` [2, T] hop by hop; return processor seconds per second of audio."""
        hops = [np.ascontiguousarray(audio[:, at : at + self.hop]) for at in range(0, audio.shape[1], self.hop)]
        hops = [h for h in hops if h.shape[1] == self.hop]
        before = time.process_time()
        for hop in hops:
            self.step(hop)
        return (time.process_time() - before) / (len(hops) * self.hop / RATE)


def ours(paths: list[Path]) -> list[System]:
    """The shipped models with audio only as input, and others."""
    found = []
    for path in [entry.path for entry in list_models() if not entry.companions] + paths:
        session = StreamingSession(path, provider="cpu", threads=1)
        info = session.info
        latency_ms = 1000 * (info.hop_samples + info.latency_samples) / RATE
        found.append(System(info.name, "rtsep", info.parameters, info.hop_samples, latency_ms, session.step))
    return found


def eager() -> list[System]:
    """Our own models in PyTorch as it runs them line by line, hop by hop, from their checkpoints."""
    import torch

    from benchmarks.batch import checkpoints
    from export.wrap import call, default_controls
    from models.checkpoint import load_checkpoint

    found = []
    for name, path in checkpoints().items():
        model, _ = load_checkpoint(path)
        if model.channels != 2:
            continue
        state, controls = model.initial_state(1), default_controls(model)

        def step(hop: np.ndarray, model: Any = model, kept: list[Any] = [state], controls: Any = controls) -> object:  # noqa: B006
            with torch.inference_mode():
                stems, _, kept[0] = call(model, torch.from_numpy(hop)[None], kept[0], controls)
            return stems

        latency_ms = 1000 * (model.hop_samples + model.latency) / RATE
        count = sum(p.numel() for p in model.parameters())
        found.append(System(name, "the same in PyTorch, eager", count, model.hop_samples, latency_ms, step))
    return found


def leave_empty(names: tuple[str, ...]) -> None:
    """Put modules without content in place of those that are not there."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            module = types.ModuleType(name)

            def anything(attribute: str) -> type:
                if attribute.startswith("__"):
                    raise AttributeError(attribute)
                return type(attribute, (), {})

            module.__getattr__ = anything  # type: ignore[method-assign]
            sys.modules[name] = module


def hs_tasnet(small: bool) -> System:
    """HS-TasNet's own streaming function."""
    import torch
    from hs_tasnet import HSTasNet

    model = HSTasNet(small=small).eval()
    transform = model.init_stateful_transform_fn()

    def step(hop: np.ndarray) -> object:
        with torch.inference_mode():
            return transform(torch.from_numpy(hop))

    count = sum(p.numel() for p in model.parameters())
    name = "HS-TasNet small" if small else "HS-TasNet"
    return System(name, "PyTorch, random weights", count, 512, 1000 * 1024 / RATE, step)


def open_unmix() -> System:
    """Open-Unmix, unidirectional: a frame of 4096 samples every 1024, four targets."""
    import torch
    from openunmix.model import OpenUnmix

    targets = [OpenUnmix(nb_bins=2049, unidirectional=True, max_bin=1487).eval() for _ in range(4)]
    window = torch.hann_window(4096)
    past = torch.zeros(2, 4096)

    def step(hop: np.ndarray) -> object:
        with torch.inference_mode():
            past.copy_(torch.cat([past[:, 1024:], torch.from_numpy(hop)], dim=1))
            magnitude = torch.fft.rfft(past * window).abs()[None, :, :, None]  # [1, C, F, 1]
            return [target(magnitude) for target in targets]

    count = sum(p.numel() for target in targets for p in target.parameters())
    return System("Open-Unmix, unidirectional", "PyTorch, random weights", count, 1024, 1000 * 4096 / RATE, step)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="besides the shipped ones")
    parser.add_argument("--peers", type=Path, help="folder with the packages")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of audio, a system and round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.peers:
        sys.path.insert(0, str(options.peers))
    import torch

    torch.set_num_threads(1)
    leave_empty(_NOT_NEEDED)
    systems = [*ours(options.models), *eager(), hs_tasnet(small=True), hs_tasnet(small=False), open_unmix()]
    audio = music_like(round(options.seconds * RATE), 2, RATE).astype(np.float32)
    mono = audio[:1].copy()
    for number in range(options.rounds + 1):
        for system in systems:
            try:
                cost = system.run(audio)
            except ValueError:  # a model of one channel
                cost = system.run(mono)
            if number:  # the first round warms up
                system.costs.append(cost)
        print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    rows: list[list[object]] = []
    peer = next(s for s in systems if s.name == "HS-TasNet")
    for system in sorted(systems, key=lambda s: float(np.median(s.costs))):
        ratios = np.array(peer.costs) / np.array(system.costs)
        spread = f"{np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f})"
        cost = f"{np.median(system.costs):.3f}"
        parameters = f"{system.parameters / 1e6:.1f} M"
        rows.append([system.name, system.note, parameters, f"{system.latency_ms:.1f}", cost, spread])
    head = ["system", "", "parameters", "latency ms", "CPU s a second", "HS-TasNet takes times as much"]
    print("\n".join(table(head, rows)))
    if options.json:
        document: dict[str, Any] = {"machine": machine(), "torch": torch.__version__, "seconds": options.seconds}
        document["systems"] = [{**vars(system), "step": None} for system in systems]
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
