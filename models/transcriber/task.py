"""A transcriber's side of a training run: data, losses, thresholds, validation on real recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from models.data.clips import HELD_OUT, READERS, SAMPLERATE, Bank, Clip, open_bank
from models.data.degrade import Degradation
from models.data.readers import Audio, DataError
from models.data.transcription import ExampleConfig, TranscriptionDataset
from models.transcriber.decoder import Notes, Thresholds, decode
from models.transcriber.losses import LossWeights, dial_losses
from models.transcriber.model import DIAL, StreamingTranscriber, TranscriberConfig
from models.transcriber.scoring import Matches, Posteriors, match, per_minute, total, tune

if TYPE_CHECKING:
    from models.train import TrainConfig

TUNING_SEED, NOISE_SECONDS = 999_983, 10.0
VALIDATION_TOLERANCE_MS = 50


@dataclass(frozen=True)
class NoteSource:
    """One ``[[source]]`` (clips with notes), ``[[bleed]]`` (other instruments) or ``[[held_out]]`` of a config.

    Attributes
    ----------
    name, path, terms : str
    kind : str
        A key of :data:`models.data.clips.READERS`, or of :data:`models.data.clips.HELD_OUT`.
    weight : float
        How often to draw from it, relative to the other sources.
    most : int
        Clips to take of held-out material; 0 for all.
    """

    name: str
    path: str
    kind: str
    terms: str = ""
    weight: float = 1.0
    most: int = 0


class TranscriberTask:
    """Data, losses and validation of a transcriber.

    Parameters
    ----------
    document : dict
        A training config: ``[model]`` (:class:`TranscriberConfig`), ``[examples]`` (:class:`ExampleConfig`, with
        ``[examples.degradation]``), ``[losses]`` (:class:`LossWeights`), ``[validation]`` (``tuning_clips``,
        ``tuning_seconds``), ``[[source]]``, ``[[bleed]]``, ``[[held_out]]`` (:class:`NoteSource`).
    config : TrainConfig
        Of which it uses ``samplerate``, ``cache`` and ``bfloat16``.

    Raises
    ------
    ValueError
        The sample rate is not 16 kHz, or the model's sizes are wrong.
    DataError
        A source is missing, empty, or of an unknown kind.
    """

    forward_methods = ("training_logits",)

    def __init__(self, document: dict[str, Any], config: TrainConfig) -> None:
        if config.samplerate != SAMPLERATE:
            raise ValueError(f"[train] samplerate must be {SAMPLERATE} for a transcriber, got {config.samplerate}.")
        table = dict(document.get("examples", {}))
        degradation = {k: tuple(v) if isinstance(v, list) else v for k, v in table.pop("degradation", {}).items()}
        self.examples = ExampleConfig(**table, degradation=Degradation(**degradation))
        self.weights = LossWeights(**document.get("losses", {}))
        self.model = StreamingTranscriber(TranscriberConfig.from_dict(document.get("model", {})))
        self.kind, self.midi_notes = self.model.config.kind, self.model.midi_notes
        self.sample_seconds, self.bfloat16 = self.examples.seconds, config.bfloat16
        cache = Path(config.cache)
        self.data_lines: list[str] = []
        sources = [NoteSource(**source) for source in document["source"]]
        self.banks = [(self._open(source, READERS, cache), source.weight) for source in sources]
        self.bleed = [self._open(NoteSource(**source), READERS, cache) for source in document.get("bleed", [])]
        self.held_out: list[tuple[Bank, list[Clip]]] = []
        for source in (NoteSource(**table) for table in document.get("held_out", [])):
            bank = self._open(source, HELD_OUT, cache)
            clips = [clip for clip in bank.clips if clip.role == self.kind]
            self.held_out.append((bank, clips[: source.most or None]))
        validation = dict(document.get("validation", {}))
        self.tuning_clips = int(validation.pop("tuning_clips", 16))
        self.tuning_seconds = float(validation.pop("tuning_seconds", 10.0))
        if validation:
            raise DataError(f"[validation] has unknown keys {sorted(validation)}.")
        self.facts: dict[str, Any] = {"examples": dataclasses.asdict(self.examples)}
        self.facts["losses"] = dataclasses.asdict(self.weights)

    def _open(self, source: NoteSource, readers: Mapping[str, Any], cache: Path) -> Bank:
        if source.kind not in readers:
            raise DataError(f"source {source.name!r}: kind must be one of {', '.join(readers)}, got {source.kind!r}.")
        if not Path(source.path).is_dir():
            hint = " Render it with: python tools/render_notes.py" if source.kind == "rendered" else ""
            raise DataError(f"source {source.name!r}: no folder at {source.path}.{hint}")
        bank = open_bank(source.name, Path(source.path), readers[source.kind], cache)
        if readers is READERS:
            minutes = sum(clip.seconds for clip in bank.clips) / 60
            notes = sum(len(clip.notes) for clip in bank.clips)
            what = f"{len(bank.clips)} recordings, {minutes:.0f} min, {notes} notes"
            self.data_lines.append(f"{source.name}: {what} ({source.terms})")
        return bank

    def prepare(self) -> None:
        """Nothing is measured: levels have a fixed scale."""

    def dataset(self, seed: int) -> IterableDataset[dict[str, Tensor]]:
        """Endless examples, see :class:`TranscriptionDataset`."""
        return TranscriptionDataset(self.kind, self.banks, self.bleed, self.midi_notes, self.examples, seed)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Sum of the weighted losses of a batch of examples."""
        logits = model.training_logits(batch["audio"], self.bfloat16)  # type: ignore[operator]
        config = self.model.config
        losses = dial_losses(logits, batch, config.lookahead, self.midi_notes[0], self.weights)
        return torch.stack(list(losses.values())).sum()

    def tuning_material(self) -> list[tuple[Audio, Notes]]:
        """Stretches of the training material, always the same, and the notes that begin in them.

        Every other one as it was recorded: thresholds that suit degraded stems alone are too low for clean ones.
        """
        degraded = dataclasses.replace(self.examples, seconds=self.tuning_seconds, negative=0.1, warmup=0.0)
        plain = dataclasses.replace(degraded, degradation=Degradation.none())
        sets = [
            TranscriptionDataset(self.kind, self.banks, self.bleed, self.midi_notes, config, TUNING_SEED)
            for config in (degraded, plain)
        ]
        rng = np.random.default_rng(TUNING_SEED)
        material = []
        for index in range(self.tuning_clips):
            example = sets[index % 2].example(rng)
            material.append((example["audio"][0], notes_of(example["onset"], example["frame"], self.midi_notes)))
        return material

    def tune(self) -> dict[str, Thresholds]:
        """Choose thresholds for each position of the dial on training material."""
        clips: dict[str, list[tuple[Posteriors, Notes]]] = {name: [] for name in DIAL}
        for audio, notes in self.tuning_material():
            for name, posteriors in zip(DIAL, listen(self.model, audio), strict=True):
                clips[name].append((posteriors, notes))
        return {name: tune(clips[name], self.kind, self.midi_notes) for name in DIAL}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Choose thresholds on training material, then transcribe the held-out recordings.

        Returns
        -------
        dict
            ``score``, the mean over the dial of ``f1/<position>``: onset F1 at 50 ms, all notes together;
            ``noise/<position>``: notes a minute in pink-like noise at -40 dB.
        """
        limits = self.tune()
        self.facts["thresholds"] = {name: dataclasses.asdict(value) for name, value in limits.items()}
        found: dict[str, list[Matches]] = {name: [] for name in DIAL}
        for bank, clips in self.held_out:
            for clip in clips:
                for name, p in zip(DIAL, listen(self.model, bank.read(clip)), strict=True):
                    notes = decode(p["onset"], p["frame"], p["velocity"], limits[name], self.kind, self.midi_notes)
                    found[name].append(match(clip.notes, notes, self.kind, VALIDATION_TOLERANCE_MS))
        figures = {f"f1/{name}": total(rows).f1 for name, rows in found.items()}
        for name, rows in found.items():
            figures[f"precision/{name}"], figures[f"recall/{name}"] = total(rows).precision, total(rows).recall
        rng = np.random.default_rng(0)
        noise = (0.01 * rng.standard_normal(int(NOISE_SECONDS * SAMPLERATE))).astype(np.float32)
        for name, p in zip(DIAL, listen(self.model, noise), strict=True):
            notes = decode(p["onset"], p["frame"], p["velocity"], limits[name], self.kind, self.midi_notes)
            figures[f"noise/{name}"] = per_minute(notes, len(p["onset"]))
        score = float(np.mean([figures[f"f1/{name}"] for name in DIAL]))
        return {"score": score, **{key: round(value, 4) for key, value in figures.items()}}


def notes_of(onset: np.ndarray, frame: np.ndarray, midi_notes: tuple[int, ...]) -> Notes:
    """Notes ``[n, 4]`` whose onsets the target rolls ``[N, P]`` hold; the triangle's centre gives the time."""
    return decode(onset, frame, np.zeros_like(onset), Thresholds(0.55, 0.5, 0.5), "polyphonic", midi_notes)


@torch.no_grad()
def listen(model: StreamingTranscriber, audio: Audio) -> list[Posteriors]:
    """Posteriors of mono audio ``[T]`` for each position of the dial, its latency taken off; rows are 10 ms."""
    frames, hop, late = len(audio) // model.hop_samples, model.hop_samples, max(model.config.lookahead)
    padded = np.zeros((frames + late) * hop, np.float32)
    padded[: frames * hop] = audio[: frames * hop]
    notes, _ = model(torch.from_numpy(padded)[None, None].to(next(model.parameters()).device))
    return [
        {name: value[0, d, ahead : ahead + frames].cpu().numpy() for name, value in notes.items()}
        for d, ahead in enumerate(model.config.lookahead)
    ]
