"""What giving out stems and mix costs the engine's worker: the time of one `Tap.put` and `publish`.

python benchmarks/tap.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from rtsep.notes.tap import SECONDS, Tap, TapLayout


def main() -> None:
    """Print median and 99th percentile in microseconds, without the mix and with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stems", type=int, default=4)
    parser.add_argument("--hop", type=int, default=512)
    parser.add_argument("--hops", type=int, default=20_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    stems = rng.standard_normal((arguments.stems, 2, arguments.hop)).astype(np.float32)
    mix = rng.standard_normal((2, arguments.hop)).astype(np.float32)
    for channels in (0, 2):
        slots = round(SECONDS * 48_000 / arguments.hop)
        layout = TapLayout(arguments.stems, 2, arguments.hop, slots, mix_channels=channels, mix_frames=arguments.hop)
        tap, took = Tap.create(layout), np.zeros(arguments.hops)
        for number in range(arguments.hops):
            began = time.perf_counter_ns()
            tap.put(1, number, 0, began, -1, stems, mix if channels else None, number)
            tap.publish()
            took[number] = (time.perf_counter_ns() - began) / 1000
        tap.unlink()
        what = "stems and mix" if channels else "stems"
        print(f"{what}: {np.median(took):.1f} us, 99 of 100 within {np.percentile(took, 99):.1f} us")


if __name__ == "__main__":
    main()
