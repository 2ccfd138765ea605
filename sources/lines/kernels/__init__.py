"""Compiled kernels on numpy arrays. Numba only; no objects, no I/O."""
