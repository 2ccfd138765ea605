"""Stateful cores of the flows: pure and deterministic, tested without bytewax.

``apply(batch) -> batches``, ``snapshot()``, ``restore()``; a thin bytewax step at the bottom of
each operator file. Hot loops live in :mod:`operators.kernels`.
"""
