"""Command line of the suite.

    python -m benchmarks run --quick -o benchmarks/results/quick.jsonl      # under 5 minutes
    python -m benchmarks run --full -o benchmarks/results/full.jsonl        # under 60
    python -m benchmarks run --long --minutes 30 -o benchmarks/results/long.jsonl    # deadlines only; 5 x 30 minutes
    python -m benchmarks report                                             # docs/performance.md and its pictures
    python -m benchmarks gate                                               # fails when a hop became dearer

What each benchmark measures stands at the top of its module. One that fails is written down as not measured, with the
reason, and the others go on; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

from benchmarks.loads import LOADS
from benchmarks.record import ROOT, Recorder
from rtsep.errors import RtsepError

BENCHMARKS = {
    "hop": "time of a hop: models, providers, threads, block sizes, load",
    "round_trip": "input to output between JACK clients, measured beside computed",
    "control_latency": "OSC, MIDI controller, web page and API to the first changed sample",
    "note_latency": "onset to the MIDI byte at a receiver",
    "deadlines": "late hops under load of several kinds",
    "throughput": "streams a core, offline speed, memory, start, wheel",
    "scaling": "cost of stems, streams and plugins",
    "floor": "multiplications and bytes of a hop, against what the machine can do",
    "peers": "other live separators and transcribers, in turns with ours",
    "cuda": "the same models on a GPU",
    "note_quality": "what live transcribers hear, on recordings",
}
"""Modules of this package, each with ``measure(recorder, depth)``."""

BY_NAME_ONLY = ("note_quality",)

DEPTHS = ("quick", "full", "long")


def run(options: argparse.Namespace) -> int:
    """Measure."""
    depth = next((name for name in DEPTHS if getattr(options, name)), "quick")
    names = options.only or (
        ["deadlines"] if depth == "long" else [name for name in BENCHMARKS if name not in BY_NAME_ONLY]
    )
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    words = [f"--{depth}", *(f"--only {name}" for name in options.only or [])]
    if depth == "long":
        words.append(f"--minutes {options.minutes:g}")
    words += [f"--load '{name}'" for name in options.load or []]
    output = options.output or ROOT / "benchmarks" / "results" / f"{depth}.jsonl"
    recorder = Recorder(output, options.seed, f"python -m benchmarks run {' '.join(words)}")
    recorder.minutes, recorder.loads = options.minutes, tuple(options.load or ())
    failed = []
    whole = time.monotonic()
    for name in names:
        print(f"{name}: {BENCHMARKS[name]}", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            with recorder.watching():
                importlib.import_module(f"benchmarks.{name}").measure(recorder, depth)
        except Exception as error:  # whatever broke, what is measured so far is kept and the rest goes on
            traceback.print_exc()
            recorder.missing(name, name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            failed.append(name)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(f"{output}: {len(recorder.figures)} figures in {time.monotonic() - whole:.0f} s", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("run", help="measure, write JSON lines")
    depth = measuring.add_mutually_exclusive_group()
    for name in DEPTHS:
        depth.add_argument(f"--{name}", action="store_true")
    measuring.add_argument("--only", action="append", metavar="NAME", help=", ".join(BENCHMARKS))
    measuring.add_argument("--minutes", type=float, default=30.0, help="of each kind of load, with --long")
    measuring.add_argument(
        "--load", action="append", choices=LOADS, help="of deadlines; all by default (quick: the first two)"
    )
    measuring.add_argument("--seed", type=int, default=0)
    measuring.add_argument("-o", "--output", type=Path, help="default: benchmarks/results/DEPTH.jsonl")
    reporting = commands.add_parser("report", help="write docs/performance.md and its pictures")
    reporting.add_argument("files", nargs="*", type=Path, help="default: benchmarks/results/*.jsonl")
    guarding = commands.add_parser("gate", help="fail when a hop became dearer than the stored baseline")
    guarding.add_argument("--update", action="store_true", help="store what is measured as the new baseline")
    guarding.add_argument("--by", choices=["auto", "instructions", "ratio"], default="auto")
    guarding.add_argument("--models", nargs="+", help="names or files; default: all that ship")
    guarding.add_argument("--baseline", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "run":
            return run(options)
        module = importlib.import_module(f"benchmarks.{options.command}")
        return int(module.main(options))
    except RtsepError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
