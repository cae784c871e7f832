"""Latency, throughput, peers and scaling: ``python -m benchmarks --help``; the figures are in docs/performance.md."""

import os

# What is measured is one core; NumPy's BLAS reads this when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
