"""Benchmarks: what PyFlue costs, beside a bare echo and beside the previous release: `python -m benchmarks`."""
