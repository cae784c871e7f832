"""What each part of a system is worth, and what more songs are, into docs/models/ABLATION.md.

    python benchmarks/ablation.py models/configs/ablation.toml             # train what is missing, then report
    python benchmarks/ablation.py models/configs/ablation.toml --report    # report what there is

Every variant is a short training of the base config with some values changed: same seed, same batches, same number of
steps, so figures compare with each other and not with a model trained to the end. What a part costs is measured on
the exported graphs, which take turns in one run. A training that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.model_cards import step_times, table
from export.parity import machine
from export.pipeline import Facts, export_model
from models.checkpoint import load_checkpoint
from models.data.readers import STEMS, Source, find_songs
from models.train import TrainConfig, Trainer
from rtsep.inference import StreamingSession

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models" / "ABLATION.md"


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes
    ----------
    name, what : str
        What is different, and a remark.
    document : dict
        The whole training file of it.
    folder : Path
        Where it trains.
    share : float
        How much of the songs it sees.
    """

    name: str
    what: str
    document: dict[str, Any]
    folder: Path
    share: float


def read_variants(path: Path) -> list[Variant]:
    """Read the plan; ValueError names what is wrong in it."""
    plan = tomllib.loads(path.read_text())
    base = tomllib.loads(Path(plan["base"]).read_text())
    variants = []
    for entry in plan["variant"]:
        if unknown := set(entry) - {"name", "what", "change", "without", "share"}:
            raise ValueError(f"variant {entry.get('name')!r}: unknown {sorted(unknown)}.")
        document = copy.deepcopy(base)
        for key, value in {**plan.get("change", {}), **entry.get("change", {})}.items():
            place, _, name = key.partition(".")
            if not name or place not in document:
                raise ValueError(f"variant {entry['name']!r}: {key!r} is no TABLE.KEY of {plan['base']}.")
            document[place][name] = value
        names = [source["name"] for source in document["source"]]
        if missing := set(entry.get("without", ())) - set(names):
            raise ValueError(f"variant {entry['name']!r}: no source is called {sorted(missing)}; there are {names}.")
        document["source"] = [s for s in document["source"] if s["name"] not in entry.get("without", ())]
        share = float(entry.get("share", 1.0))
        if not 0 < share <= 1:
            raise ValueError(f"variant {entry['name']!r}: share must be above 0 and at most 1, got {share}.")
        folder = Path(plan["run"]) / re.sub(r"[^a-z0-9]+", "-", entry["name"].lower()).strip("-")
        document["train"]["run"] = str(folder)
        variants.append(Variant(entry["name"], entry.get("what", ""), document, folder, share))
    return variants


def thin_out(document: dict[str, Any], share: float) -> None:
    """Exclude all but a share of every source's songs; a smaller share is part of a larger one."""
    held_out = set(document["validation"]["songs"])
    for table_ in document["source"]:
        source = Source(**{**table_, "exclude": tuple(table_.get("exclude", ()))})
        songs = sorted(song.name for song in find_songs(source) if song.name not in held_out)
        order = np.random.default_rng(len(songs)).permutation(len(songs))
        kept = max(1, round(share * len(songs))) if songs else 0
        table_["exclude"] = [*source.exclude, *(songs[i] for i in order[kept:])]


def train(variant: Variant) -> None:
    """Train a variant to the end, unless that is done."""
    config = TrainConfig(**variant.document["train"])
    document = copy.deepcopy(variant.document)
    if variant.share < 1:
        thin_out(document, variant.share)
    fabric = Fabric(accelerator=config.device, devices=1)
    fabric.launch()
    Trainer(config, document, fabric).run()


def scores(variant: Variant) -> dict[str, float] | None:
    """Return the last validation of a finished training."""
    log = variant.folder / "log.jsonl"
    if not log.exists():
        return None
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    last = [line for line in lines if "score" in line and line["step"] == variant.document["train"]["steps"]]
    return last[-1] if last else None


def costs(done: list[Variant]) -> dict[str, tuple[int, float]]:
    """Return parameters and RTF by the variants' names."""
    sessions, sizes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, variant in enumerate(done):
            model, _ = load_checkpoint(variant.folder / "best.pt", variant.document["train"]["system"])
            path = Path(folder) / f"{number}.onnx"
            export_model(
                model,
                path,
                Facts(f"variant-{number}", "0", "none", [], {}, variant.name, {}),
                seconds=2.0,
                benchmark_hops=20,
            )
            sessions.append(StreamingSession(path, provider="cpu"))
            sizes.append(sum(p.numel() for p in model.parameters()))
        times = step_times(sessions)
    periods = [1000 * s.info.hop_samples / s.info.samplerates[0] for s in sessions]
    return {
        variant.name: (size, float(np.median(taken)) / period)
        for variant, size, taken, period in zip(done, sizes, times, periods, strict=True)
    }


def page(plan: Path, done: list[tuple[Variant, dict[str, float]]]) -> str:
    """Return the report."""
    cost = costs([variant for variant, _ in done])
    first = done[0][1]["score"]
    rows: list[list[object]] = []
    for variant, found in done:
        size, rtf = cost[variant.name]
        stems = [f"{found[f'sdr/{stem}']:.2f}" for stem in STEMS]
        change = f"{found['score'] - first:+.2f}"
        name = f"{variant.name} ({variant.what})" if variant.what else variant.name
        rows.append([name, size, f"{rtf:.3f}", *stems, f"{found['score']:.2f}", change])
    settings = done[0][0].document
    seconds = settings["train"]["batch"] * settings["remix"]["seconds"]
    facts = machine()
    return "\n".join(
        [
            "# What each part is worth",
            "",
            f"Written by `python benchmarks/ablation.py {plan}`. Short trainings from random weights: "
            f"{settings['train']['steps']} steps of {seconds:.0f} s of audio each, the same seed and the same batches. "
            "SDR in dB of the training's own quick score (per second, median; not museval's). Differences below those "
            "of another seed say nothing, and what pays early need not pay at the end of a long training.",
            "",
            *table(["variant", "parameters", "RTF", *STEMS, "mean", "change"], rows),
            "",
            f"RTF: {facts['cpu']}, ONNX Runtime {facts['onnxruntime']}, one thread, the graphs taking turns.",
            "",
        ]
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="for example models/configs/ablation.toml")
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    try:
        variants = read_variants(options.plan)
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"{options.plan}: {error}")
    for variant in variants:
        if not options.report and scores(variant) is None:
            print(f"== {variant.name}", flush=True)
            train(variant)
    done = [(variant, found) for variant in variants if (found := scores(variant)) is not None]
    if not done:
        parser.error(f"{options.plan}: no variant is trained yet; leave --report out")
    PAGE.write_text(page(options.plan, done), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
