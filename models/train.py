"""Train a system from a TOML file: ``python -m models.train CONFIG.toml``.

Everything that a run makes lies in its folder (``run`` in the config): ``last.pt`` to resume from, ``best.pt``
(the moving average of the weights that scored best on the validation material), TensorBoard curves and ``log.jsonl``.
Started again with the same config it goes on where it stopped; a larger ``steps`` prolongs the schedule.

On several GPUs or machines every process trains on data of its own and gradients are averaged (DDP, through
Lightning Fabric): ``devices`` and ``nodes`` in the config or on the command line; ``torchrun`` and SLURM are
recognised as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from models import registry
from models.checkpoint import save_checkpoint
from models.training.gru import compile_grus
from models.training.task import Task

_SEEDS_PER_STRETCH, _SEEDS_PER_PROCESS = 1000, 1_000_000


@dataclass(frozen=True)
class TrainConfig:
    """The table ``[train]`` of a training file; its other tables are the system's.

    Attributes
    ----------
    run : str
        Folder of the run.
    system : str
        A name of :data:`models.registry.SYSTEMS`.
    steps, warmup : int
        Optimizer steps of the cosine schedule and of its linear start.
    batch : int
        Samples per step and process.
    learning_rate, weight_decay, clip : float
        AdamW and the gradient norm that is clipped to.
    ema : float
        Decay of the moving average of the weights per step.
    minutes_between_checkpoints : float
    validate_every : int
        Steps.
    threads, workers : int
        torch threads; data processes. Both per process.
    bfloat16 : bool
        Mixed precision.
    compiled : bool
        GRUs on a CPU through :mod:`models.training.gru`, where a C++ compiler is at hand.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    devices, nodes : int
        Processes per machine (one GPU each), machines.
    loss : str
        What the system's task offers; its default when empty.
    start_from : str
        A ``best.pt`` or ``last.pt`` to take (averaged) weights from; parts that it does not have start anew.
    threshold_db : float
        Of SNR losses: errors this far below the mixture stop to matter.
    """

    run: str
    steps: int
    system: str = "openunmix"
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
    compiled: bool = True
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    loss: str = ""
    start_from: str = ""
    threshold_db: float = -25.0


def read_config(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the ``[train]`` table and the whole training file; unknown keys of the table raise ``TypeError``."""
    document = tomllib.loads(path.read_text())
    return TrainConfig(**document["train"]), document


class Trainer:
    """One run: data, model, optimizer, moving average, checkpoints.

    Parameters
    ----------
    config, document
        From :func:`read_config`.
    fabric : Fabric
        Launched.
    """

    def __init__(self, config: TrainConfig, document: dict[str, Any], fabric: Fabric) -> None:
        self.config, self.fabric, self.card = config, fabric, document.get("card", {})
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.folder = Path(config.run)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.task = self._task(document)
        self.model = self.task.model
        self.loss_object = getattr(self.task, "loss_object", None)
        self.step, self.best, self.audio_hours, self.wall_hours = 0, -math.inf, 0.0, 0.0
        self.stretch, self.earlier_steps = 0, 0
        saved = None
        if (self.folder / "last.pt").exists():
            saved = self._resume()
        elif config.start_from:
            self._take_weights(Path(config.start_from))
        else:
            self.task.prepare()
        if config.compiled and fabric.device.type == "cpu":
            compile_grus(self.model, config.bfloat16)
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.wrapped, self.optimizer = fabric.setup(self.model, optimizer)
        for method in getattr(self.task, "forward_methods", ()):
            self.wrapped.mark_forward_method(method)
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        if saved is not None:
            self.average = {k: v.to(fabric.device) for k, v in saved["average"].items()}
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.loss_object is not None:
                self.loss_object.load_state_dict(saved["loss"])
        if fabric.is_global_zero:
            self.log = (self.folder / "log.jsonl").open("a")
            self.writer = SummaryWriter(str(self.folder / "tensorboard"))

    def _task(self, document: dict[str, Any]) -> Task:
        """Let one process decode what the cache does not hold yet, then the others read it."""
        build = registry.load(registry.find(self.config.system).task)
        with self.fabric.rank_zero_first():
            task: Task = build(document, self.config)
        return task

    def _take_weights(self, path: Path) -> None:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        facts = saved.get("extras", saved)
        weights = saved.get("state_dict") or saved["average"]
        if hasattr(self.task, "chosen_weights") and "config" in saved:
            weights = self.task.chosen_weights(weights, saved["config"])
        missing, unknown = self.model.load_state_dict(weights, strict=False)
        partly = {name.split(".")[0] for name in weights} & {name.split(".")[0] for name in missing}
        if unknown or partly:
            raise SystemExit(f"{path} does not fit the model: unknown {unknown}, partly missing {sorted(partly)}")
        self.earlier_steps = facts["steps"] if "steps" in facts else facts["step"]
        self.audio_hours, self.wall_hours = facts["audio_hours"], facts["wall_hours"]
        self.fabric.print(f"weights from {path}; new: {sorted({name.split('.')[0] for name in missing})}", flush=True)

    def _resume(self) -> dict[str, Any]:
        saved: dict[str, Any] = torch.load(self.folder / "last.pt", map_location="cpu", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.step, self.best = saved["step"], saved["best"]
        self.audio_hours, self.wall_hours = saved["audio_hours"], saved["wall_hours"]
        self.stretch, self.earlier_steps = saved["stretch"] + 1, saved.get("earlier_steps", 0)
        return saved

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to a hundredth."""
        warm = min(1.0, (self.step + 1) / self.config.warmup)
        done = min(1.0, self.step / self.config.steps)
        return self.config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    def run(self) -> None:
        """Train up to the config's step count."""
        last_save = last_time = time.monotonic()
        losses: list[float] = []
        for batch in self._batches():
            if self.step >= self.config.steps:
                break
            losses.append(self._train_step(batch))
            now = time.monotonic()
            self.wall_hours += (now - last_time) / 3600
            last_time = now
            if self.step % 20 == 0:
                self._record({"loss": round(float(np.mean(losses)), 4), "learning_rate": self.learning_rate()})
                losses.clear()
            if self.step % self.config.validate_every == 0:
                self._validate()
            if now - last_save > 60 * self.config.minutes_between_checkpoints:
                self._save_last()
                last_save = now
        if self.step % self.config.validate_every:
            self._validate()
        self._save_last()

    def _batches(self) -> Iterator[Any]:
        seed = self.config.seed + _SEEDS_PER_STRETCH * self.stretch + _SEEDS_PER_PROCESS * self.fabric.global_rank
        workers = self.config.workers
        loader = DataLoader(
            self.task.dataset(seed), self.config.batch, num_workers=workers, prefetch_factor=3 if workers else None
        )
        for batch in loader:
            yield self.fabric.to_device(batch)

    def _train_step(self, batch: Any) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.model.train()
        loss = self.task.loss(self.wrapped, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.step += 1
        self.audio_hours += self.config.batch * self.fabric.world_size * self.task.sample_seconds / 3600
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)
        return float(loss.detach())

    @torch.no_grad()
    def _validate(self) -> None:
        """Score the averaged weights; keep the best."""
        if self.fabric.is_global_zero:
            trained = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.model.load_state_dict(self.average)
            self.model.eval()
            figures = self.task.validate()
            self._record(figures)
            if figures["score"] > self.best:
                self.best = figures["score"]
                save_checkpoint(self.folder / "best.pt", self.config.system, self.model, self._facts(figures))
            self.model.load_state_dict(trained)
        self.fabric.barrier()

    def _facts(self, figures: dict[str, float]) -> dict[str, Any]:
        plain = {k: v for k, v in dataclasses.asdict(self.config).items() if k not in ("run", "cache")}
        return {
            **self.card,
            "training_data": self.task.data_lines,
            "steps": self.earlier_steps + self.step,
            "audio_hours": round(self.audio_hours, 2),
            "wall_hours": round(self.wall_hours, 2),
            "device": self.fabric.device.type,
            "processes": self.fabric.world_size,
            "validation": figures,
            "train_config": plain,
            **getattr(self.task, "facts", {}),
        }

    def _save_last(self) -> None:
        if not self.fabric.is_global_zero:
            return
        document = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "loss": self.loss_object.state_dict() if self.loss_object is not None else {},
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
        if not self.fabric.is_global_zero:
            return
        for name, value in figures.items():
            self.writer.add_scalar(name, value, self.step)
        line = {"step": self.step, "wall_hours": round(self.wall_hours, 3), **figures}
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.train", description="Train a system from a TOML file.")
    parser.add_argument("config", type=Path, help="for example models/configs/openunmix-low.toml")
    parser.add_argument("--devices", type=int, help="processes on this machine, one GPU each; overrides the config")
    parser.add_argument("--nodes", type=int, help="machines; overrides the config")
    arguments = parser.parse_args()
    config, document = read_config(arguments.config)
    given = {key: value for key in ("devices", "nodes") if (value := getattr(arguments, key)) is not None}
    config = dataclasses.replace(config, **given)
    several = config.devices * config.nodes > 1
    fabric = Fabric(
        accelerator=config.device,
        devices=config.devices,
        num_nodes=config.nodes,
        # Parts of a model may sit out a step (a masked note, a stem that is not asked for).
        strategy="ddp_find_unused_parameters_true" if several else "auto",
    )
    fabric.launch()
    try:
        trainer = Trainer(config, document, fabric)
    except ValueError as error:
        raise SystemExit(f"{arguments.config}: {error}") from error
    fabric.print("\n".join(trainer.task.data_lines), flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
