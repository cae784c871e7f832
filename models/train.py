"""Train a model from a TOML file: ``python -m models.train CONFIG.toml``.

Everything that a run makes lies in its folder (``run`` in the config): ``last.pt`` to resume from, ``best.pt``
(the moving average of the weights that scored best on the validation songs), TensorBoard curves and ``log.jsonl``.
Started again with the same config it goes on where it stopped; a larger ``steps`` prolongs the schedule.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.tensorboard import SummaryWriter

from models.data.library import Song, describe, load_source
from models.data.readers import STEMS, Source
from models.data.remix import RemixConfig, RemixDataset
from models.data.spectra import SpectralDataset
from models.losses import band_snr_loss, windowed_snr_loss
from models.metrics import clip_sdr, frame_sdr
from models.openunmix.checkpoint import save_checkpoint
from models.openunmix.streaming import StreamingOpenUnmix, StreamingOpenUnmixConfig


@dataclass(frozen=True)
class TrainConfig:
    """What a training config holds besides ``[model]``, ``[remix]``, ``[[source]]`` and ``[validation]``.

    Attributes
    ----------
    run : str
        Folder of the run.
    steps, warmup : int
        Optimizer steps of the cosine schedule and of its linear start.
    batch : int
        Segments per step.
    learning_rate, weight_decay, clip : float
        AdamW and the gradient norm that is clipped to.
    ema : float
        Decay of the moving average of the weights per step.
    minutes_between_checkpoints : float
    validate_every : int
        Steps.
    threads, workers : int
        torch threads; data processes.
    bfloat16 : bool
        Mixed precision.
    loss : str
        ``"bands"``: on spectra, several times cheaper; ``"waveform"``: through the synthesis, to finish with.
    start_from : str
        A ``best.pt`` or ``last.pt`` to take (averaged) weights from; parts that it does not have start anew.
    threshold_db : float
        Of the loss: errors this far below the mixture stop to matter.
    """

    run: str
    steps: int
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    clip: float = 5.0
    ema: float = 0.998
    seed: int = 1
    samplerate: int = 44100
    cache: str = "data/cache"
    minutes_between_checkpoints: float = 3.0
    validate_every: int = 100
    threads: int = 2
    workers: int = 1
    bfloat16: bool = False
    device: str = "auto"
    loss: str = "bands"
    start_from: str = ""
    threshold_db: float = -25.0


@dataclass(frozen=True)
class Setup:
    """A whole training file: one field per table of it; ``card`` goes into the model's card as it is."""

    train: TrainConfig
    model: StreamingOpenUnmixConfig
    remix: RemixConfig
    sources: list[Source]
    validation_songs: frozenset[str]
    card: dict[str, str]


def read_config(path: Path) -> Setup:
    """Read a training config; unknown keys raise ``TypeError`` naming them."""
    document = tomllib.loads(path.read_text())
    remix = {k: tuple(v) if isinstance(v, list) else v for k, v in document.get("remix", {}).items()}
    return Setup(
        TrainConfig(**document["train"]),
        StreamingOpenUnmixConfig.from_dict(document.get("model", {})),
        RemixConfig(**remix),
        [Source(**{**s, "exclude": tuple(s.get("exclude", ()))}) for s in document["source"]],
        frozenset(document["validation"]["songs"]),
        document.get("card", {}),
    )


class Trainer:
    """One run: data, model, optimizer, moving average, checkpoints."""

    def __init__(self, path: Path) -> None:
        setup = read_config(path)
        self.config, self.remix, self.card = setup.train, setup.remix, setup.card
        torch.set_num_threads(self.config.threads)
        torch.manual_seed(self.config.seed)
        self.folder = Path(self.config.run)
        self.folder.mkdir(parents=True, exist_ok=True)
        cuda = torch.cuda.is_available() if self.config.device == "auto" else self.config.device == "cuda"
        self.device = torch.device("cuda" if cuda else "cpu")
        cache = Path(self.config.cache)
        sources, held_out = setup.sources, setup.validation_songs
        songs = [s for source in sources for s in load_source(source, self.config.samplerate, cache)]
        self.train_songs = [s for s in songs if s.name not in held_out]
        self.validation_songs = [s for s in songs if s.name in held_out and s.complete]
        if missing := held_out - {s.name for s in self.validation_songs}:
            raise SystemExit(f"validation songs not found in any source: {sorted(missing)}")
        self.data_lines = describe(sources, self.train_songs, self.config.samplerate)
        self.weights = {source.name: source.weight for source in sources}
        self.model = StreamingOpenUnmix(setup.model).to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.step, self.best, self.audio_hours, self.wall_hours = 0, -math.inf, 0.0, 0.0
        self.stretch, self.earlier_steps = 0, 0
        self.log = (self.folder / "log.jsonl").open("a")
        self.writer = SummaryWriter(str(self.folder / "tensorboard"))
        if (self.folder / "last.pt").exists():
            self._resume()
        elif self.config.start_from:
            self._take_weights(Path(self.config.start_from))
        else:
            self._measure_input()

    def _take_weights(self, path: Path) -> None:
        saved = torch.load(path, map_location=self.device, weights_only=True)
        facts = saved.get("extras", saved)
        weights = saved.get("state_dict") or saved["average"]
        missing, unknown = self.model.load_state_dict(weights, strict=False)

        partly = {name.split(".")[0] for name in weights} & {name.split(".")[0] for name in missing}
        if unknown or partly:
            raise SystemExit(f"{path} does not fit the model: unknown {unknown}, partly missing {sorted(partly)}")
        self.earlier_steps = facts["steps"] if "steps" in facts else facts["step"]
        self.audio_hours, self.wall_hours = facts["audio_hours"], facts["wall_hours"]
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        print(f"weights from {path}; new: {sorted({name.split('.')[0] for name in missing})}", flush=True)

    def _resume(self) -> None:
        saved = torch.load(self.folder / "last.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.best = saved["step"], saved["best"]
        self.audio_hours, self.wall_hours = saved["audio_hours"], saved["wall_hours"]
        self.stretch, self.earlier_steps = saved["stretch"] + 1, saved.get("earlier_steps", 0)

    @torch.no_grad()
    def _measure_input(self) -> None:
        """Set the fixed input normalisation from training mixtures."""
        data = RemixDataset(self.train_songs, self.weights, self.remix, self.config.samplerate, seed=0)
        rng = np.random.default_rng(0)
        collected = []
        for _ in range(60):
            mixture = torch.from_numpy(data.segment(rng)).sum(0, keepdim=True)  # [1, C, T]
            mixture = mixture[..., : mixture.shape[-1] // self.model.hop_samples * self.model.hop_samples]
            re, im, _, _ = self.model.stft(mixture.to(self.device))
            collected.append(self.model.features(re, im)[0])
        features = torch.cat(collected)  # [frames, features]
        self.model.normalise.set_statistics(features.mean(0), features.std(0))
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to a hundredth."""
        warm = min(1.0, (self.step + 1) / self.config.warmup)
        done = min(1.0, self.step / self.config.steps)
        return self.config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    def run(self) -> None:
        """Train up to the config's step count."""
        dataset: IterableDataset[Any] = RemixDataset(
            self.train_songs,
            self.weights,
            self.remix,
            self.config.samplerate,
            self.config.seed + 1000 * self.stretch,
        )
        if self.config.loss == "bands":
            dataset = SpectralDataset(dataset, copy.deepcopy(self.model).cpu())
        workers = self.config.workers
        loader = DataLoader(dataset, self.config.batch, num_workers=workers, prefetch_factor=3 if workers else None)
        last_save = last_time = time.monotonic()
        losses: list[float] = []
        for batch in loader:
            if self.step >= self.config.steps:
                break
            losses.append(self._train_step(batch))
            now = time.monotonic()
            self.wall_hours += (now - last_time) / 3600
            last_time = now
            self.audio_hours += self.config.batch * self.remix.seconds / 3600
            if self.step % 20 == 0:
                self._record({"loss_db": float(np.mean(losses)), "learning_rate": self.learning_rate()})
                losses.clear()
            if self.step % self.config.validate_every == 0:
                self._validate()
            if now - last_save > 60 * self.config.minutes_between_checkpoints:
                self._save_last()
                last_save = now
        self._validate()
        self._save_last()

    def _train_step(self, batch: Tensor | list[Tensor]) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.model.train()
        if isinstance(batch, Tensor):
            loss = self._waveform_loss(batch.to(self.device))
        else:
            loss = self._band_loss(*(part.to(self.device) for part in batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)
        return float(loss.detach())

    def _warm_up_frames(self) -> int:
        """Frames left out of the loss: the analysis window and the state start empty."""
        return self.config.samplerate // 2 // self.model.hop_samples

    def _band_loss(self, features: Tensor, a: Tensor, c: Tensor, d: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            masks, _ = self.model.band_masks(features)
        skip = self._warm_up_frames()
        window = self.config.samplerate // self.model.hop_samples
        sums = a[..., skip:, :], c[..., skip:, :], d[..., skip:]
        return band_snr_loss(masks[..., skip:, :].float(), *sums, window, self.config.threshold_db)

    def _waveform_loss(self, stems: Tensor) -> Tensor:
        hop = self.model.hop_samples
        stems = stems[..., : stems.shape[-1] // hop * hop]  # [B, S, C, T]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            estimate, _ = self.model(stems.sum(1))
        skip = self._warm_up_frames() * hop
        estimate = estimate[..., skip + hop :].float()
        target = stems[..., skip : skip + estimate.shape[-1]]
        return windowed_snr_loss(estimate, target, self.config.samplerate, self.config.threshold_db)

    @torch.no_grad()
    def _validate(self) -> None:
        """Score the averaged weights on the validation songs; keep the best."""
        trained = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        frames, clips = [], []
        for song in self.validation_songs:
            estimate, target = self._separate(song)
            frames.append(frame_sdr(estimate, target, self.config.samplerate))
            clips.append(clip_sdr(estimate, target))
        per_stem = torch.stack(frames).nanmedian(0).values
        whole = torch.stack(clips).nanmedian(0).values

        score = float(per_stem.mean())
        figures = {f"sdr/{stem}": round(float(v), 3) for stem, v in zip(STEMS, per_stem, strict=True)}
        figures |= {f"clip_sdr/{stem}": round(float(v), 3) for stem, v in zip(STEMS, whole, strict=True)}
        self._record({"sdr/mean": round(score, 3), **figures})
        if score > self.best:
            self.best = score
            save_checkpoint(self.folder / "best.pt", self.model, self._facts(figures))
        self.model.load_state_dict(trained)

    def _separate(self, song: Song) -> tuple[Tensor, Tensor]:
        hop = self.model.hop_samples
        length = song.length // hop * hop
        target = torch.from_numpy(np.stack([song.read(s, 0, length) for s in STEMS])).to(self.device)  # [S, C, T]
        mixture = torch.nn.functional.pad(target.sum(0, keepdim=True), (0, hop))
        estimate, _ = self.model(mixture)
        return estimate[0, ..., hop:], target

    def _facts(self, figures: dict[str, float]) -> dict[str, Any]:
        return {
            **self.card,
            "training_data": self.data_lines,
            "steps": self.earlier_steps + self.step,
            "audio_hours": round(self.audio_hours, 2),
            "wall_hours": round(self.wall_hours, 2),
            "device": self.device.type,
            "validation": figures,
            "train_config": {k: v for k, v in dataclasses.asdict(self.config).items() if k not in ("run", "cache")},
            "remix_config": {
                k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self.remix).items()
            },
        }

    def _save_last(self) -> None:
        document = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "audio_hours": self.audio_hours,
            "wall_hours": self.wall_hours,
            "stretch": self.stretch,
            "earlier_steps": self.earlier_steps,
        }
        partial = self.folder / "last.pt.part"
        torch.save(document, partial)
        partial.replace(self.folder / "last.pt")

    def _record(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, self.step)
        line = {"step": self.step, "wall_hours": round(self.wall_hours, 3), **figures}
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.train", description="Train a model from a TOML file.")
    parser.add_argument("config", type=Path, help="for example models/configs/openunmix-low.toml")
    trainer = Trainer(parser.parse_args().config)
    print("\n".join(trainer.data_lines), flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
