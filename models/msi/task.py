"""MSI's side of a training run: data, losses and validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mir_eval
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from models.data.ensembles import EnsembleConfig, EnsembleDataset, Orchestra, Players, StemPlayers, read_scores
from models.data.instruments import load_instruments
from models.data.notes import find_noted_stems
from models.data.readers import DataError
from models.data.urmp import find_urmp
from models.losses import band_snr_loss
from models.metrics import clip_sdr
from models.msi.losses import Weights, contrastive_loss, magnitude_loss, transcription_loss
from models.msi.reference import LOWEST_MIDI, PITCHES, SAMPLERATE, SILENCE
from models.msi.streaming import SOUNDING, MSIConfig, StreamingMSI

if TYPE_CHECKING:
    from models.train import TrainConfig

KINDS = ("recorded-notes", "urmp", "noted-stems")
VARIANTS = ("msi", "msi-dis")
SHORTEST_NOTE = 5  # frames: what is shorter is no note
ONSET_TOLERANCE = 0.05  # seconds
PREPARE_LEARNING_RATE, PREPARE_BATCH = 4e-3, 16
HELD_OUT_EVERY = 5  # of the recorded notes of an instrument that is trained on


@dataclass(frozen=True)
class NoteSource:
    """One ``[[source]]`` of a training config.

    Attributes
    ----------
    name, path, terms : str
    kind : str
        ``recorded-notes`` (folders of single notes, played from chorales), ``urmp`` or ``noted-stems``.
    weight : float
        How often to draw from it, relative to the others.
    """

    name: str
    path: str
    kind: str
    terms: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"source {self.name!r}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")


@dataclass(frozen=True)
class Validation:
    """The ``[validation]`` table.

    Attributes
    ----------
    unseen : tuple of str
        Instruments that are never trained on.
    duets : int
        For seen and for unseen instruments each.
    seconds : float
        Of a duet, and of a query.
    """

    unseen: tuple[str, ...] = ("bassoon", "oboe")
    duets: int = 12
    seconds: float = 5.0


class MSITask:
    """Data, losses and validation of MSI and MSI-DIS.

    Parameters
    ----------
    document : dict
        A training config: ``[model]`` (:class:`MSIConfig`), ``[msi]`` (``variant``, ``prepare_steps`` of
        :meth:`prepare`, and :class:`Weights`),
        ``[ensemble]`` (:class:`EnsembleConfig`), ``[[source]]`` (:class:`NoteSource`), ``[validation]``.
    config : TrainConfig
        Of which it uses ``samplerate``, ``cache``, ``workers`` and ``bfloat16``.

    Raises
    ------
    ValueError
        The variant or the sample rate is none that MSI has.
    DataError
        A source is missing or empty, or there are too few instruments to train on.

    Attributes
    ----------
    duets : dict
        The examples of the validation, by kind (``seen``, ``unseen``): those of :meth:`EnsembleDataset.example`.
    """

    forward_methods = ("training_outputs",)

    def __init__(self, document: dict[str, Any], config: TrainConfig) -> None:
        if config.samplerate != SAMPLERATE:
            raise ValueError(f"[train] samplerate must be {SAMPLERATE} for MSI, got {config.samplerate}.")
        settings = dict(document.get("msi", {}))
        self.variant = settings.pop("variant", "msi")
        self.prepare_steps = settings.pop("prepare_steps", 0)
        if self.variant not in VARIANTS:
            raise ValueError(f"[msi] variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}.")
        self.weights = Weights(**settings)
        table = dict(document.get("ensemble", {}))
        if self.variant == "msi-dis":
            table.setdefault("second_shift", 4)
        elif table.get("second_shift"):
            raise ValueError("[ensemble] second_shift is for [msi] variant = 'msi-dis' only; remove it.")
        self.ensemble = EnsembleConfig.from_dict(table)
        table = {k: tuple(v) if isinstance(v, list) else v for k, v in document.get("validation", {}).items()}
        self.validation = Validation(**table)
        self.model: StreamingMSI = StreamingMSI(MSIConfig.from_dict(document.get("model", {})))
        self.sources = [NoteSource(**source) for source in document["source"]]
        self.bfloat16, self.workers, self.sample_seconds = config.bfloat16, config.workers, self.ensemble.seconds
        self.facts = {
            name: dataclasses.asdict(part) for name, part in (("ensemble", self.ensemble), ("losses", self.weights))
        }
        self.facts |= {"variant": self.variant, "prepare_steps": self.prepare_steps}
        self.data_lines: list[str] = []
        self.players = [self._players(source, Path(config.cache)) for source in self.sources]
        self.duets = self._draw_duets(Path(config.cache))

    def _players(self, source: NoteSource, cache: Path) -> Players:
        unseen = self.validation.unseen
        players: Players
        if source.kind == "recorded-notes":
            library = load_instruments(
                Path(source.path),
                SAMPLERATE,
                cache,
                lambda name, midi: name not in unseen and midi % HELD_OUT_EVERY != 0,
            )
            players = Orchestra(library, read_scores()) if library else StemPlayers([], SAMPLERATE)
            count = sum(len(instrument.recordings) for instrument in library.values())
            what = f"{count} recorded notes playing Bach chorales and random lines"
        else:
            find = find_urmp if source.kind == "urmp" else find_noted_stems
            stems = [stem for stem in find(Path(source.path)) if stem.instrument not in unseen]
            players = StemPlayers(stems, SAMPLERATE)
            what = f"{len(stems)} stems"
        if len(players.instruments) < 2:
            raise DataError(
                f"source {source.name!r} has {len(players.instruments)} instruments to train on; mixtures need 2. "
                f"Not trained on: {', '.join(unseen)}."
            )
        self.data_lines.append(f"{source.name}: {what}; {', '.join(players.instruments)} ({source.terms})")
        return players

    def _draw_duets(self, cache: Path) -> dict[str, list[dict[str, NDArray[Any]]]]:
        """Fixed duets from held-out chorales and notes: the queried instrument seen in training, or not."""
        source = next((s for s in self.sources if s.kind == "recorded-notes"), None)
        if source is None:
            raise DataError("validation needs a source of kind 'recorded-notes' (with exact stems and notes).")
        unseen = self.validation.unseen
        library = load_instruments(
            Path(source.path), SAMPLERATE, cache, lambda name, midi: name in unseen or midi % HELD_OUT_EVERY == 0
        )
        seconds = self.validation.seconds
        config = EnsembleConfig(
            seconds=seconds, query_seconds=seconds, gain_db=3.0, shift=0, equaliser=0.0, absent=0.0, sizes=(1.0,)
        )
        orchestra = Orchestra(library, read_scores(held_out=True))
        data = EnsembleDataset([orchestra], [1.0], config, SAMPLERATE, seed=0)
        seen = [name for name in orchestra.instruments if name not in unseen]
        sets = {"seen": seen, "unseen": [name for name in unseen if name in library]}
        duets: dict[str, list[dict[str, NDArray[Any]]]] = {}
        for kind, names in sets.items():
            duets[kind] = []
            for index in range(self.validation.duets if names else 0):
                rng = np.random.default_rng((index, len(names)))
                target = names[index % len(names)]
                partner = str(rng.choice([name for name in seen if name != target]))
                duets[kind].append(data.example(rng, target, [partner]))
        return duets

    def prepare(self) -> None:
        """Teach query network and templates alone, ``[msi] prepare_steps`` steps long.

        As long as all queries look alike, separation and transcription have nothing to learn whom to follow from;
        and what the templates can learn costs a tenth without the rest of the network.
        """
        model = self.model.train()
        parts = [model.query_net, model.templates, model.transcriptor.bottom]
        learnt = [p for part in parts if part is not None for p in part.parameters()]
        optimizer = torch.optim.AdamW(learnt, PREPARE_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.prepare_steps))
        loader = DataLoader(self.dataset(seed=0), PREPARE_BATCH, num_workers=self.workers)
        for batch, step in zip(loader, range(1, self.prepare_steps + 1), strict=False):
            losses = self._weighted(model.template_outputs(batch["mixture"], batch["queries"]), batch)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                print(
                    {"prepare": step, **{name: round(float(x.detach()), 3) for name, x in losses.items()}}, flush=True
                )

    def dataset(self, seed: int) -> IterableDataset[dict[str, Tensor]]:
        """Endless examples, see :class:`EnsembleDataset`."""
        return EnsembleDataset(self.players, [s.weight for s in self.sources], self.ensemble, SAMPLERATE, seed)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the losses of a batch of examples."""
        return sum(self.losses(model, batch).values(), start=torch.zeros(()))

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each loss times its weight, by name."""
        classes = classes_of(batch["roll"]) if self.weights.synthesis else None
        with torch.autocast(batch["mixture"].device.type, torch.bfloat16, enabled=self.bfloat16):
            outputs = model.training_outputs(  # type: ignore[operator]
                batch["mixture"], batch["queries"], batch.get("second"), classes
            )
        return self._weighted(outputs, batch)

    def _weighted(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses of those outputs that there are."""
        own = self.model
        target = own.features(batch["target"])  # [B, 1, N, bands]
        losses = {"contrastive": contrastive_loss(outputs["queries"].float())}
        if "logits" in outputs:
            losses["transcription"] = transcription_loss(outputs["logits"].float(), classes_of(batch["roll"]))
        if "mask" in outputs:
            losses["separation"] = self._mask_loss(outputs["mask"].float(), batch)
        elif "magnitude" in outputs:
            losses["separation"] = magnitude_loss(outputs["magnitude"].float(), target)
        if "synthesis" in outputs:
            half = len(outputs["synthesis"])
            wanted = self._at_level_of(target[:half], own.recording_features(batch["queries"][:half, 0, 1]))
            losses["synthesis"] = magnitude_loss(outputs["synthesis"].float(), wanted)
        return {name: getattr(self.weights, name) * loss for name, loss in losses.items()}

    def _mask_loss(self, mask: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Error to target in dB that a mask ``[B, 1, N, bands]`` gives."""
        model = self.model
        (xr, xi), (sr, si) = model.spectrum(batch["mixture"]), model.spectrum(batch["target"])  # each [B, N, F]
        mixture, cross, source = (
            model.bands.total(x)[:, None] for x in (xr * xr + xi * xi, xr * sr + xi * si, sr * sr + si * si)
        )  # [B, C = 1, N, bands]
        window = min(SAMPLERATE // model.hop_samples, mixture.shape[2])
        return band_snr_loss(mask[:, None], mixture, cross[:, None], source.sum(-1), window)

    def _at_level_of(self, target: Tensor, recording: Tensor) -> Tensor:
        """Bring targets to the level of the recordings whose timbre they are to be played with; features both."""
        target, recording = self.model.expand(target), self.model.expand(recording)
        ratio = (sounding_power(recording) / sounding_power(target).clamp_min(1e-9)).sqrt()
        return self.model.compress(target * ratio[:, None, None, None])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Separate and transcribe the fixed duets.

        Returns
        -------
        dict
            ``score``, the mean SDR improvement of both kinds; for ``seen`` and ``unseen`` instruments each
            ``sdr/<kind>`` of the estimates, ``sdr_mixture/<kind>``, their difference ``sdri/<kind>`` (means over
            duets, dB, whole clips), ``note_f1/<kind>`` (onset within 50 ms, pitch within half a semitone) and
            ``frame_accuracy/<kind>``.
        """
        figures: dict[str, float] = {}
        for kind, duets in self.duets.items():
            if not duets:
                continue
            rows = [row for start in range(0, len(duets), 4) for row in self._judge(duets[start : start + 4])]
            for name in rows[0]:
                figures[f"{name}/{kind}"] = float(np.mean([row[name] for row in rows]))
        improvements = [value for name, value in figures.items() if name.startswith("sdri/")]
        return {"score": float(np.mean(improvements)), **figures}

    def _judge(self, duets: list[dict[str, NDArray[Any]]]) -> Iterator[dict[str, float]]:
        model = self.model
        device = next(model.parameters()).device
        batch = {key: torch.from_numpy(np.stack([duet[key] for duet in duets])) for key in duets[0]}
        query = model.embed(model.recording_features(batch["queries"][:, 0, 0].to(device)))
        count, hop = len(duets), model.hop_samples
        controls = {"query": query, "score": query.new_zeros(count, PITCHES), "score_weight": query.new_zeros(count)}
        stems, notes, _ = model(batch["mixture"][:, None].to(device), None, controls)
        estimates = stems[:, 0, :, hop:].cpu()  # [B, 1, T - hop]
        target, mixture = (batch[key][:, None, :-hop] for key in ("target", "mixture"))
        after, before = clip_sdr(estimates, target), clip_sdr(mixture, target)  # [B]
        heard = frames_heard(notes["frame"][:, 0].cpu())  # [B, N]
        truth = classes_of(batch["roll"])
        for index in range(count):
            yield {
                "sdr": float(after[index]),
                "sdr_mixture": float(before[index]),
                "sdri": float(after[index] - before[index]),
                "note_f1": note_f1(runs(heard[index]), runs(truth[index])),
                "frame_accuracy": float((heard[index] == truth[index]).float().mean()),
            }


def classes_of(roll: Tensor) -> Tensor:
    """Classes ``[B, N]`` that frames should hear, of a roll of MIDI numbers ``[B, N]``.

    One frame late, as the stems are: frame n reconstructs the audio up to the end of hop n - 1.
    """
    classes = torch.where(roll > 0, roll - LOWEST_MIDI, SILENCE)
    classes = torch.where((classes < 0) | (classes > SILENCE), SILENCE, classes)
    return torch.cat([torch.full_like(classes[:, :1], SILENCE), classes[:, :-1]], dim=1)


def frames_heard(frame: Tensor) -> Tensor:
    """Most likely class ``[B, N]`` of posteriors without the silence class ``[B, N, 88]``."""
    silence = 1 - frame.sum(-1, keepdim=True)
    return torch.cat([frame, silence], dim=-1).argmax(-1)


def sounding_power(magnitude: Tensor) -> Tensor:
    """Mean power ``[B]`` of the frames of ``[B, 1, N, F]`` within 40 dB of the loudest."""
    power = magnitude.square().sum(-1).flatten(1)  # [B, N]
    sounding = (power > SOUNDING * power.amax(1, keepdim=True)).to(power.dtype)
    return (power * sounding).sum(1) / sounding.sum(1).clamp_min(1.0)


def runs(classes: Tensor) -> list[tuple[int, int, int]]:
    """Notes of frames ``[N]``: (first frame, frame after the last, class), without silence and blips."""
    values = classes.tolist()
    edges = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    spans = [(a, b, values[a]) for a, b in zip(edges, edges[1:], strict=False)]  # noqa: RUF007
    return [(a, b, c) for a, b, c in spans if c != SILENCE and b - a >= SHORTEST_NOTE]


def note_f1(estimate: list[tuple[int, int, int]], truth: list[tuple[int, int, int]]) -> float:
    """F1 of notes by onset and pitch (mir_eval, 50 ms); 1 when there are none on either side."""
    if not estimate or not truth:
        return float(not estimate and not truth)

    def arrays(notes: list[tuple[int, int, int]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        table = np.array(notes, dtype=float)
        return table[:, :2] / 100, 440.0 * 2 ** ((table[:, 2] + LOWEST_MIDI - 69) / 12)

    figures = mir_eval.transcription.precision_recall_f1_overlap(
        *arrays(truth), *arrays(estimate), onset_tolerance=ONSET_TOLERANCE, offset_ratio=None
    )
    return float(figures[2])
