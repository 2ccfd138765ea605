"""Benchmarks: figures beside targets and peers. ``python -m tests.benchmarks --list``."""
