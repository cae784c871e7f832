"""Fail when a hop became dearer.

    python -m benchmarks gate             # against benchmarks/baseline.jsonl
    python -m benchmarks gate --update    # what is measured now becomes the baseline

What is measured is what the engine's worker does for a hop: model, dry delay and mixer, for every shipped model.

instructions    counted by valgrind's callgrind, the same to a percent on a busy machine and on another processor:
                valgrind shows every x86-64 processor to ONNX Runtime as one with AVX2. The default where valgrind and
                a C compiler are there.
ratio           without them: the time of a hop over that of a fixed graph with as many weights and as many small steps
                as a model has, in turns in one process, processor time, the fastest of each round, so that what else
                runs meets both alike. Only compared with a baseline of the same processor, and what is too dear
                is measured again, twice at most: a busy moment passes, a dearer hop stays.

A model is too dear when it is more than 10 % and the spread of both measurements above the baseline's. Of the counts
the least one stands (what is counted besides a hop only adds to it), of the ratios the median.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.gate_hops import opened
from benchmarks.record import ROOT, Recorder, digits
from rtsep.figures import Figure, Run, read_figures, to_line
from rtsep.zoo import list_models

BASELINE = ROOT / "benchmarks" / "baseline.jsonl"
ALLOWED = 0.10
"""How much dearer a hop may become."""

COUNTED = "instructions"

_HOPS, _TIMES = 4, 5
_ROUNDS, _TURNS, _MORE = 9, 60, 2
_LIMIT_S = 600
_MARK = "desc: Trigger: Client Request: "


def main(options: argparse.Namespace) -> int:
    """Measure, compare, print; the exit code is 1 when a model became too dear."""
    way = options.by
    if way == "auto":
        way = "instructions" if can_count() else "ratio"
    models = options.models or [entry.name for entry in list_models()]
    path = options.baseline or BASELINE
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder) / "now.jsonl", command=f"python -m benchmarks gate --by {way}")
        (instructions if way == "instructions" else ratios)(recorder, models)
        if options.update:
            keep(recorder, path)
            print(f"{path}: the new baseline, in {time.monotonic() - began:.0f} s")
            return 0
        runs, before = read_figures(path)
        failed = judge(recorder.figures, recorder.run, before, runs)
        for _ in range(_MORE if way == "ratio" else 0):
            if failed:
                print(f"once more: {', '.join(failed)}")
                recorder.figures.clear()
                ratios(recorder, [model for model in models if _name(model) in failed])
                failed = judge(recorder.figures, recorder.run, before, runs)
    print(f"{time.monotonic() - began:.0f} s, by {way}")
    if failed:
        print(
            f"Dearer than {path.name} by more than {100 * ALLOWED:.0f} %: {', '.join(failed)}. If that is meant, "
            "say why in the commit and run: python -m benchmarks gate --update"
        )
    return 1 if failed else 0


def keep(recorder: Recorder, path: Path) -> None:
    """Make what was measured the baseline; figures of the other way and of other models stay."""
    lines = recorder.path.read_text(encoding="utf-8")
    if path.exists():
        runs, figures = read_figures(path)
        measured = {figure.key for figure in recorder.figures}
        others = [figure for figure in figures if figure.key not in measured]
        kept = {figure.run for figure in others}
        lines += "".join(to_line(run) + "\n" for run in runs if run.run in kept)
        lines += "".join(to_line(figure) + "\n" for figure in others)
    path.write_text(lines, encoding="utf-8")


def judge(now: list[Figure], run: Run, before: list[Figure], runs: list[Run]) -> list[str]:
    """Print a line for each model and return the names of those that became too dear."""
    known = {figure.key: figure for figure in before}
    of_run = {r.run: r for r in runs}
    failed = []
    for figure in now:
        name = figure.parameters["model"]
        old = known.get(figure.key)
        if old is None:
            print(f"{name}: not in the baseline, so not guarded; run: python -m benchmarks gate --update")
            continue
        old_run = of_run[old.run]
        if figure.figure == "hop over reference" and old_run.machine.get("cpu") != run.machine.get("cpu"):
            print(f"{name}: the baseline is of {old_run.machine.get('cpu')}; ratios of {run.machine.get('cpu')} differ")
            continue
        growth = level(figure) / level(old) - 1
        spread = max(spread_of(figure), spread_of(old))
        dearer = growth > ALLOWED + spread
        failed += [name] * dearer
        verdict = "TOO DEAR" if dearer else "ok"
        note = ""
        if old_run.versions.get("onnxruntime") != run.versions.get("onnxruntime"):
            note = f", ONNX Runtime {old_run.versions.get('onnxruntime')} then, {run.versions.get('onnxruntime')} now"
        print(
            f"{name}: {figure.value:.5g} {figure.unit}, {100 * growth:+.1f} % against the baseline "
            f"(spread {100 * spread:.1f} %{note}): {verdict}"
        )
    return failed


def level(figure: Figure) -> float:
    """Return what stands for the rounds of a figure."""
    return min(figure.rounds) if figure.figure == COUNTED else median(figure.rounds)


def spread_of(figure: Figure) -> float:
    """Return how far apart rounds lie, as a part of what stands for them.

    Of the counts the two least ones, of the ratios the quartiles: one round that was disturbed does not widen it.
    """
    low, high = sorted(figure.rounds)[:2] if figure.figure == COUNTED else np.percentile(figure.rounds, (25, 75))
    return float((high - low) / level(figure))


# --- instructions -------------------------------------------------------------------------------------------


def can_count() -> bool:
    """Whether callgrind can run here."""
    header = any(Path(place, "valgrind/callgrind.h").exists() for place in ("/usr/include", "/usr/local/include"))
    tools = shutil.which("valgrind") and shutil.which("cc") and header
    return bool(tools) and sys.platform == "linux" and platform.machine() == "x86_64"


def instructions(recorder: Recorder, models: list[str]) -> None:
    """Count; as many processes as there are cores share the models."""
    counts: dict[str, list[int]] = {model: [] for model in models}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marks = folder / "marks.so"
        source = Path(__file__).with_name("gate_marks.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(marks), str(source)], check=True)
        shares = [share for k in range(os.cpu_count() or 1) if (share := models[k :: os.cpu_count() or 1])]
        running = [_counting(folder / f"{k}.out", marks, share) for k, share in enumerate(shares)]
        for process in running:
            output = process.communicate(timeout=_LIMIT_S)[0]
            if process.returncode:
                raise RuntimeError(f"valgrind ended with {process.returncode}: {output[-2000:]}")
        for path in folder.glob("*.out.*"):
            text = path.read_text(errors="replace")
            trigger = next(
                (line for line in text.splitlines() if line.startswith("desc: Trigger: Client Request: ")), ""
            )
            total = next((line for line in text.splitlines() if line.startswith("totals: ")), "totals: 0")
            if trigger:
                counts[trigger.removeprefix("desc: Trigger: Client Request: ")].append(int(total.split()[1]))
    for model, found in counts.items():
        if len(found) != _TIMES:
            raise RuntimeError(f"valgrind counted {model} {len(found)} times and not {_TIMES}")
        each = [count / _HOPS for count in found]
        recorder.put("gate", COUNTED, min(each), "instructions", parameters={"model": _name(model)}, rounds=each)


def _counting(out: Path, marks: Path, models: list[str]) -> subprocess.Popen[str]:
    words = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", sys.executable]
    words += ["-m", "benchmarks.gate_hops", str(marks), str(_HOPS), str(_TIMES), *models]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    )


def _name(model: str) -> str:
    return Path(model).stem if model.endswith(".onnx") else model


# --- ratio --------------------------------------------------------------------------------------------------


def ratios(recorder: Recorder, models: list[str]) -> None:
    """Time."""
    reference = _reference()
    for model in models:
        chain, audio = opened(model)
        rounds = []
        for _ in range(_ROUNDS):
            hop, fixed = np.empty(_TURNS), np.empty(_TURNS)
            for turn in range(_TURNS):
                began = time.thread_time_ns()
                chain.process_hop(audio)
                middle = time.thread_time_ns()
                reference()
                hop[turn], fixed[turn] = middle - began, time.thread_time_ns() - middle
            rounds.append(float(hop.min() / fixed.min()))
        recorder.put(
            "gate", "hop over reference", digits(median(rounds)), "times", parameters={"model": _name(model)},
            rounds=rounds,
        )  # fmt: skip


def _reference() -> Callable[[], object]:
    """Return a fixed piece of work: 32 layers of 288 x 288 weights (11 MB), each with three small operators."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng, side, nodes, weights, last = np.random.default_rng(0), 288, [], [], "x"
    for k in range(32):
        weights.append(numpy_helper.from_array(rng.standard_normal((side, side)).astype(np.float32) / 17, f"w{k}"))
        for op, takes, gives in (
            ("MatMul", [last, f"w{k}"], f"a{k}"),
            ("Tanh", [f"a{k}"], f"b{k}"),
            ("Add", [f"b{k}", "x"], f"c{k}"),
            ("Relu", [f"c{k}"], f"d{k}"),
        ):
            nodes.append(helper.make_node(op, takes, [gives]))
        last = f"d{k}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, side]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "reference", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": rng.standard_normal((1, side)).astype(np.float32)}
    return lambda: session.run(None, feed)
