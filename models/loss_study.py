"""Train one small model with every loss: ``python -m models.loss_study --minutes-per-loss 1.5 -o docs/losses.md``.

The same weights to start from, the same batches in the same order, the same number of steps; only the loss and, where
it demands one, the head differ. Segments are drawn once and kept in the run's folder, and every finished loss leaves a
JSON there: interrupted, the command goes on where it stopped. The document and its plot are made from those JSONs.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.data.library import Song
from models.data.readers import STEMS
from models.loss_report import write_report
from models.losses import Estimates, Loss, apply_head, get_loss, list_losses, stem_spectra
from models.losses.ratios import negative_si_sdr
from models.metrics import frame_sdr
from models.streaming.bands import DoublingBands
from models.streaming.norm import InputNormalisation
from models.streaming.rnn import StreamingGRU
from models.streaming.stft import StreamingISTFT, StreamingSTFT
from models.training.mixtures import MixtureData

_FLOOR = 1e-4  # of the features: -80 dB below a full-scale sine


@dataclass(frozen=True)
class StudyConfig:
    """The table ``[study]``, see ``models/configs/loss-study.toml``."""

    run: str
    data: str
    cache: str
    samplerate: int
    segments: int
    batch: int
    warm_up_seconds: float
    seed: int
    repeat: str


class StudyModel(nn.Module):
    """A causal mask model of one recurrent body, mono: the smallest that resembles the study's Open-Unmix.

    Parameters
    ----------
    window, hop : int
        Samples, of :class:`StreamingSTFT`.
    edges : sequence of int
        Of :class:`DoublingBands`.
    hidden, layers : int
        Of the GRU.
    """

    def __init__(self, window: int, hop: int, edges: list[int], hidden: int, layers: int) -> None:
        super().__init__()
        self.hop = hop
        self.stft = StreamingSTFT(window, hop, channels=1)
        self.istft = StreamingISTFT(self.stft, streams=len(STEMS))
        self.bands = DoublingBands(window // 2 + 1, tuple(edges))
        self.normalise = InputNormalisation(self.bands.bands)
        self.fc1 = nn.Linear(self.bands.bands, hidden)
        self.rnn = StreamingGRU(hidden, hidden, layers)
        self.fc2 = nn.Linear(2 * hidden, hidden)
        self.fc3 = nn.Linear(hidden, len(STEMS) * self.bands.bands)

    def features(self, mixture: Tensor) -> Tensor:
        """Levels of the bands, ``[B, 1, N, F]`` complex -> ``[B, N, bands]``, in units of 10 dB."""
        power = mixture.real.square() + mixture.imag.square()
        return torch.log10(self.bands.total(power[:, 0]) + _FLOOR**2)

    def forward(self, mixture: Tensor, head: str) -> tuple[Tensor, Tensor | None]:
        """Return masks and, where the head has them, logits, ``[B, S, 1, N, F]``, of ``[B, 1, N, F]`` complex."""
        x = torch.tanh(self.fc1(self.normalise(self.features(mixture))))  # [B, N, H]
        y, _ = self.rnn(x)
        z = self.fc3(torch.relu(self.fc2(torch.cat([x, y], dim=-1))))  # [B, N, S bands]
        z = z.unflatten(-1, (len(STEMS), 1, -1)).movedim(1, 3)  # [B, S, 1, N, bands]
        masks, logits = apply_head(head, z)
        return self.bands.spread(masks), None if logits is None else self.bands.spread(logits)


class Study:
    """Data, settings and results of one study; ``document`` is the whole TOML file."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.config = StudyConfig(**document["study"])
        self.model_config, self.rates = document["model"], document["learning_rates"]
        if unknown := set(self.rates) - {"default", *list_losses()}:
            raise ValueError(f"[learning_rates] has no losses {sorted(unknown)}; there are {', '.join(list_losses())}.")
        self.folder = Path(self.config.run)
        self.folder.mkdir(parents=True, exist_ok=True)
        songs = tomllib.loads(Path(self.config.data).read_text())
        parts = {key: songs[key] for key in ("source", "validation")}
        data = MixtureData({**parts, "remix": document["remix"]}, self.config.samplerate, self.config.cache)
        self.validation_songs = data.validation_songs
        self.segments = self._draw(data, document)
        self.facts = {
            **{key: value for key, value in document.items() if key != "learning_rates"},
            "validation_songs": len(data.validation_songs),
            "minutes": round(self.segments.shape[0] * data.seconds / 60, 1),
            "parameters": sum(p.numel() for p in self.model(self.config.seed).parameters()),
            "machine": f"{_processor()}, one thread, PyTorch {torch.__version__}",
        }

    def _draw(self, data: MixtureData, document: dict[str, Any]) -> np.ndarray:
        """Return the segments ``[segments, S, 1, T]``, drawing them if the folder has none of these settings."""
        settings = json.dumps([document[key] for key in ("study", "model", "remix")], sort_keys=True)
        array, key = self.folder / "segments.npy", self.folder / "segments.json"
        if not key.exists() or key.read_text() != settings:
            if list(self.folder.glob("result-*.json")):
                raise ValueError(f"{self.folder} has results of other settings; move it away or set another run.")
            dataset, rng = data.dataset(self.config.seed), np.random.default_rng(self.config.seed)
            hop = self.model_config["hop"]
            samples = dataset.samples // hop * hop
            shape = (self.config.segments, len(STEMS), 1, samples)
            out = np.lib.format.open_memmap(array, mode="w+", dtype=np.float32, shape=shape)
            for i in range(self.config.segments):
                out[i] = dataset.segment(rng)[..., :samples].mean(1, keepdims=True)
            out.flush()
            key.write_text(settings)
        return np.load(array, mmap_mode="r")

    def model(self, seed: int) -> StudyModel:
        """Return the model with its weights of this seed."""
        torch.manual_seed(seed)
        return StudyModel(**self.model_config)

    @torch.no_grad()
    def _normalise(self, model: StudyModel) -> None:
        collected = []
        for stems in self.segments[:64]:
            mixture, _ = stem_spectra(model.stft, torch.from_numpy(stems.copy()).unsqueeze(0))
            collected.append(model.features(mixture)[0])
        features = torch.cat(collected)  # [frames, bands]
        model.normalise.set_statistics(features.mean(0), features.std(0))

    def learning_rate(self, name: str) -> float:
        """Highest learning rate of a loss."""
        return float(self.rates.get(name, self.rates["default"]))

    def train(self, name: str, seed: int, steps: int) -> tuple[StudyModel, Loss, dict[str, Any]]:
        """Train a model from nothing; return it, its loss and figures of the training."""
        loss, model = get_loss(name, len(STEMS)), self.model(seed)
        self._normalise(model)
        # Gradients of losses on magnitudes are as small as Adam's usual eps of 1e-8.
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate(name), eps=1e-16)
        warm_up = min(30, max(1, steps // 10))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1, (step + 1) / warm_up) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))),
        )
        order = np.random.default_rng(seed)
        values, left_out, waiting = [], 0, np.empty(0, int)
        start = time.process_time()
        for _ in range(steps):
            if len(waiting) < self.config.batch:
                waiting = order.permutation(len(self.segments))
            chosen, waiting = waiting[: self.config.batch], waiting[self.config.batch :]
            value = loss(self.estimates(model, loss.head, torch.from_numpy(self.segments[chosen])))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf)
            if torch.isfinite(value) and torch.isfinite(norm):
                optimizer.step()
                values.append(float(value.detach()))
            else:
                left_out += 1
            schedule.step()
        seconds = time.process_time() - start
        tenth = max(1, len(values) // 10)
        return (
            model,
            loss,
            {
                "ms_per_step": round(1000 * seconds / steps, 1),
                "left_out_steps": left_out,
                "loss_first_tenth": float(np.mean(values[:tenth])) if values else None,
                "loss_last_tenth": float(np.mean(values[-tenth:])) if values else None,
            },
        )

    def estimates(self, model: StudyModel, head: str, stems: Tensor) -> Estimates:
        """Run the model on the mixtures of true stems ``[B, S, 1, T]``."""
        mixture, targets = stem_spectra(model.stft, stems)
        masks, logits = model(mixture, head)
        skip = round(self.config.warm_up_seconds * self.config.samplerate / model.hop)
        return Estimates(
            masks[..., skip:, :],
            mixture[..., skip:, :],
            targets[..., skip:, :],
            stems[..., skip * model.hop :],
            model.istft,
            None if logits is None else logits[..., skip:, :],
        )

    @torch.no_grad()
    def validate(self, model: StudyModel, head: str) -> dict[str, dict[str, float]]:
        """Score a model: medians over the validation songs per stem, in dB.

        ``sdr``: median over seconds, of masks as they are; ``sdr_shared``: of masks divided by their sum, which is what
        stems that have to add up to the mixture sound like; ``si_sdr``: over the whole clip.
        """
        rows: dict[str, list[Tensor]] = {"sdr": [], "sdr_shared": [], "si_sdr": []}
        for song in self.validation_songs:
            target, mixture = self._song(model, song)
            masks, _ = model(mixture, head)
            shared = masks / masks.sum(1, keepdim=True).clamp_min(1e-8)
            estimate, consistent = (self._synthesise(model, m, mixture) for m in (masks, shared))
            rows["sdr"].append(frame_sdr(estimate, target, self.config.samplerate))
            rows["sdr_shared"].append(frame_sdr(consistent, target, self.config.samplerate))
            rows["si_sdr"].append(_si_sdr(estimate, target))
        return {name: _medians(values) for name, values in rows.items()}

    @torch.no_grad()
    def limits(self) -> dict[str, dict[str, dict[str, float]]]:
        """Score the mixture itself and ideal ratio masks as :meth:`validate` does."""
        model = self.model(self.config.seed)
        rows: dict[str, dict[str, list[Tensor]]] = {kind: {"sdr": [], "si_sdr": []} for kind in ("mixture", "ideal")}
        for song in self.validation_songs:
            target, mixture = self._song(model, song)
            magnitudes = stem_spectra(model.stft, nn.functional.pad(target, (0, model.hop)).unsqueeze(0))[1].abs()
            ideal = magnitudes / magnitudes.sum(1, keepdim=True).clamp_min(1e-8)
            estimates = {
                "mixture": target.sum(0, keepdim=True).expand_as(target),
                "ideal": self._synthesise(model, ideal, mixture),
            }
            for kind, estimate in estimates.items():
                rows[kind]["sdr"].append(frame_sdr(estimate, target, self.config.samplerate))
                rows[kind]["si_sdr"].append(_si_sdr(estimate, target))
        return {kind: {name: _medians(v) for name, v in parts.items()} for kind, parts in rows.items()}

    def _song(self, model: StudyModel, song: Song) -> tuple[Tensor, Tensor]:
        """Return true stems ``[S, 1, T]`` and the mixture's spectrum ``[1, 1, N, F]`` of a song, one hop longer."""
        length = song.length // model.hop * model.hop
        stems = np.stack([song.read(s, 0, length).mean(0, keepdims=True) for s in STEMS])
        target = torch.from_numpy(stems)  # [S, 1, T]
        mixture = nn.functional.pad(target.sum(0, keepdim=True), (0, model.hop))  # [1, 1, T + hop]
        return target, torch.complex(*model.stft(mixture)[:2])

    def _synthesise(self, model: StudyModel, masks: Tensor, mixture: Tensor) -> Tensor:
        """Return stems ``[S, 1, T]`` in time with the mixture."""
        spectra = (masks * mixture.unsqueeze(1)).flatten(1, 2)  # [1, S, N, F]
        audio, _ = model.istft(spectra.real, spectra.imag)
        return audio[0, :, model.hop :].unsqueeze(1)


def _si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """SI-SDR per stem in dB, ``[S, C, T]`` -> ``[S]``; NaN where the target never plays."""
    values = torch.stack(
        [-negative_si_sdr(e[None, None], t[None, None]) for e, t in zip(estimate, target, strict=True)]
    )
    return values.masked_fill(target.square().sum((1, 2)) < 1e-3, float("nan"))


def _medians(values: list[Tensor]) -> dict[str, float]:
    per_stem = torch.stack(values).nanmedian(0).values
    return {stem: round(float(v), 3) for stem, v in zip(STEMS, per_stem, strict=True)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _write(path: Path, document: dict[str, Any]) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)


def _steps(study: Study, names: list[str], minutes: float) -> int:
    """Steps that all losses get: what ``minutes`` per loss allow on average, as first measured in this folder."""
    plan = study.folder / "plan.json"
    if plan.exists():
        return int(json.loads(plan.read_text())["steps"])
    seconds = [study.train(name, study.config.seed, 6)[2]["ms_per_step"] / 1000 for name in names]
    steps = max(1, round(60 * minutes / float(np.mean(seconds))))
    _write(plan, {"steps": steps, "minutes_per_loss": minutes, "facts": study.facts, "limits": study.limits()})
    return steps


def run(study: Study, names: list[str], minutes: float) -> None:
    """Train and score what has no result yet."""
    steps = _steps(study, names, minutes)
    first = study.config.seed
    jobs = [(name, first) for name in names]
    jobs += [(study.config.repeat, first + more) for more in (1, 2) if study.config.repeat in names]
    for name, seed in jobs:
        path = study.folder / f"result-{name}-{seed}.json"
        if path.exists():
            continue
        model, loss, figures = study.train(name, seed, steps)
        facts = {"loss": name, "seed": seed, "domain": loss.domain, "head": loss.head, "steps": steps}
        scores = study.validate(model, loss.head)
        _write(path, {**facts, "learning_rate": study.learning_rate(name), **figures, **scores})
        means = {kind: round(float(np.mean(list(v.values()))), 2) for kind, v in scores.items()}
        print(f"{name:30} seed {seed}  {steps} steps  {figures['ms_per_step']:6.1f} ms  {means}", flush=True)


def main(command_line: list[str] | None = None) -> None:
    """Run the command; ``command_line`` defaults to that of the process."""
    parser = argparse.ArgumentParser(prog="python -m models.loss_study", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("models/configs/loss-study.toml"))
    parser.add_argument(
        "--minutes-per-loss", type=float, required=True, help="of one thread, on average; 0: write the document only"
    )
    parser.add_argument("--losses", nargs="+", default=list_losses(), metavar="NAME", help="some of the losses only")
    parser.add_argument("-o", "--output", type=Path, required=True, help="document to write; its plot lies beside it")
    arguments = parser.parse_args(command_line)
    try:
        for name in arguments.losses:
            get_loss(name)
        document = tomllib.loads(arguments.config.read_text())
        torch.set_num_threads(1)
        if arguments.minutes_per_loss > 0:
            run(Study(document), arguments.losses, arguments.minutes_per_loss)
        write_report(Path(document["study"]["run"]), arguments.output)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
