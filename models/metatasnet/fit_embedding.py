"""Teach a trained model one more instrument from a few recordings: ``python -m models.metatasnet.fit_embedding``.

Only the new instrument's embedding is fitted; generator, filters and the other embeddings stay as they are. The
generator makes a fifth mask network from it, and the softmax over all five decides. Recordings lie as songs do::

    FOLDER/song 1/saxophone.wav   drums.wav   other.wav
    FOLDER/song 2/saxophone.flac  bass.wav

With ``--name saxophone`` every ``saxophone.*`` is the instrument, and every other file something to tell it from. The
result is a checkpoint with the stems ``saxophone`` and ``rest``, to be exported as any other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor, nn

from models.checkpoint import load_checkpoint, save_checkpoint
from models.data.readers import AUDIO_SUFFIXES, DataError
from models.losses import windowed_snr_loss
from models.metatasnet.streaming import StreamingMetaTasNet

SYSTEM = "metatasnet"
SILENT_RMS = 1e-4
_EVALUATION_SEED = 12345


@dataclass(frozen=True)
class FitReport:
    """What a fit achieved, on segments that are the same before and after.

    Attributes
    ----------
    start, loss_before, loss_after
        Whose embedding it started from (``"mean"`` of all, or an instrument's), and the loss in dB.
    sdr_before, sdr_after, sdr_mixture : float
        Of the instrument, in dB over all segments; the last is the mixture's as its own estimate.
    """

    start: str
    loss_before: float
    loss_after: float
    sdr_before: float
    sdr_after: float
    sdr_mixture: float


def read_recordings(folder: Path, name: str, samplerate: int, channels: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the instrument's recordings and all others, ``[C, T]`` each.

    Raises
    ------
    DataError
        There is no folder, no recording of the instrument or none of anything else; or one is silent or unreadable.
    """
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}; give one with a folder per song, in each {name}.wav and other stems.")
    files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in AUDIO_SUFFIXES and p.stem != "mixture")
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for path in files:
        groups[path.stem != name].append(_read(path, samplerate, channels))
    if not groups[0] or not groups[1]:
        found = ", ".join(sorted({p.stem for p in files})) or "no audio files"
        what = f"recording called {name!r}" if not groups[0] else f"other stem to tell {name!r} from"
        raise DataError(f"{folder} has no {what} in its song folders; it has {found}.")
    return groups


def _read(path: Path, samplerate: int, channels: int) -> Tensor:
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"cannot decode {path}: {error}") from error
    if not len(audio) or float(np.sqrt(np.mean(np.square(audio)))) < SILENT_RMS:
        raise DataError(f"{path} is silent; take it out of the folder.")
    if channels == 1:
        audio = audio.mean(axis=1, keepdims=True)
    elif audio.shape[1] != channels:
        audio = np.repeat(audio[:, :1], channels, axis=1)
    if rate != samplerate:
        audio = soxr.resample(audio, rate, samplerate, quality="HQ")
    return torch.from_numpy(np.ascontiguousarray(audio.T, dtype=np.float32))  # [C, T]


def segment(rng: np.random.Generator, targets: Sequence[Tensor], others: Sequence[Tensor], samples: int) -> Tensor:
    """Draw the instrument and one to three of the others in a mixture, ``[2, C, samples]``."""

    def cut(pool: Sequence[Tensor]) -> Tensor:
        audio = pool[rng.integers(len(pool))]
        start = int(rng.integers(max(1, audio.shape[-1] - samples + 1)))
        piece = audio[:, start : start + samples]
        return nn.functional.pad(piece, (0, samples - piece.shape[-1])) * float(rng.uniform(0.5, 1.2))

    rest = torch.stack([cut(others) for _ in range(rng.integers(1, 4))]).sum(0)
    return torch.stack([cut(targets), rest])


def fit(
    model: StreamingMetaTasNet,
    name: str,
    targets: Sequence[Tensor],
    others: Sequence[Tensor],
    *,
    steps: int = 120,
    batch: int = 2,
    seconds: float = 4.0,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> tuple[StreamingMetaTasNet, FitReport]:
    """Fit one embedding.

    Parameters
    ----------
    model : StreamingMetaTasNet
        Trained, with its generator; left as it is.
    name : str
        Of the new instrument.
    targets, others : sequence of Tensor
        Recordings ``[C, T]`` at one of the model's rates.
    steps, batch, seconds, learning_rate, seed
        Of the optimisation (Adam, with a cosine to a tenth).

    Returns
    -------
    model : StreamingMetaTasNet
        With the stems ``(name, "rest")``; its other weights are those of ``model``, bit for bit.
    report : FitReport
    """
    samplerate = model.samplerates[0]
    samples = round(seconds * samplerate) // model.hop_samples * model.hop_samples
    if samples < samplerate + model.latency:
        raise ValueError(f"seconds must be above {1 + model.latency / samplerate:.2f}, got {seconds}.")

    def draw(rng: np.random.Generator, count: int) -> Tensor:
        return torch.stack([segment(rng, targets, others, samples) for _ in range(count)])  # [B, 2, C, T]

    def estimate(candidate: StreamingMetaTasNet, true: Tensor) -> tuple[Tensor, Tensor]:
        late = model.latency
        return candidate(true.sum(1))[0][..., late:], true[..., : samples - late]

    def loss_of(candidate: StreamingMetaTasNet, true: Tensor) -> Tensor:
        stems, target = estimate(candidate, true)
        return windowed_snr_loss(stems, target, samplerate, -20.0)

    held = draw(np.random.default_rng(_EVALUATION_SEED), 8)

    @torch.no_grad()
    def measure(candidate: StreamingMetaTasNet) -> tuple[float, float]:
        stems, target = estimate(candidate, held)
        return float(loss_of(candidate, held)), _sdr(stems[:, 0], target[:, 0])

    known = model.embeddings.weight.detach()
    starts = {"mean": known.mean(0), **dict(zip(model.config.instruments, known, strict=True))}
    measured = {key: measure(model.with_instrument(name, value).eval()) for key, value in starts.items()}
    start = min(measured, key=lambda key: measured[key][0])

    fitted = model.with_instrument(name, starts[start]).eval().requires_grad_(False)
    embeddings = fitted.embeddings.weight.requires_grad_(True)
    new_row = torch.zeros_like(embeddings)
    new_row[-1] = 1.0
    hook = embeddings.register_hook(lambda gradient: gradient * new_row)
    optimizer = torch.optim.Adam([embeddings], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1), eta_min=0.1 * learning_rate)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(fitted, draw(rng, batch)).backward()
        optimizer.step()
        schedule.step()
    hook.remove()
    fitted.requires_grad_(True)
    after = measure(fitted)
    mixture = _sdr(held.sum(1), held[:, 0])
    return fitted, FitReport(start, measured[start][0], after[0], measured[start][1], after[1], mixture)


def _sdr(estimate: Tensor, target: Tensor) -> float:
    return float(10 * torch.log10(target.square().sum() / (estimate - target).square().sum().clamp_min(1e-10)))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.metatasnet.fit_embedding",
        description="Teach a trained Meta-TasNet one more instrument from a few recordings.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="a checkpoint with its generator, e.g. runs/metatasnet-low/best.pt"
    )
    parser.add_argument(
        "--stems", type=Path, required=True, help="folder of song folders with NAME.wav and other stems"
    )
    parser.add_argument("--name", required=True, help="the instrument: its files are called so, and its stem will be")
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        model, extras = load_checkpoint(arguments.checkpoint, SYSTEM)
        targets, others = read_recordings(arguments.stems, arguments.name, model.samplerates[0], model.channels)
        fitted, report = fit(model, arguments.name, targets, others, steps=arguments.steps)
    except (OSError, ValueError, DataError) as error:
        sys.exit(f"error: {error}")
    minutes = sum(audio.shape[-1] for audio in targets) / model.samplerates[0] / 60
    line = f"{arguments.name}: {len(targets)} recordings, {minutes:.1f} min (fitted embedding)"
    facts = {
        **extras,
        "training_data": [*extras.get("training_data", []), line],
        "summary": f"Meta-TasNet: {arguments.name}, from a fitted embedding, and the rest",
        "evaluation": {},
        "fitted_embedding": {
            key: value if isinstance(value, str) else round(value, 2) for key, value in vars(report).items()
        },
    }
    save_checkpoint(arguments.output, SYSTEM, fitted, facts)
    print(
        f"{arguments.output}: started from {report.start}; "
        f"loss {report.loss_before:.2f} -> {report.loss_after:.2f} dB, "
        f"SDR {report.sdr_before:.2f} -> {report.sdr_after:.2f} dB (mixture {report.sdr_mixture:.2f} dB)"
    )


if __name__ == "__main__":
    main()
