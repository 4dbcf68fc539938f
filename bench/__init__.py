"""Benchmarks. `python -m bench` lists them; each prints ratios of one run, for machines are noisy."""
