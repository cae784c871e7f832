"""Latency, throughput, peers and scaling: ``python -m benchmarks --help``; the figures are in docs/performance.md."""
