"""Decoders of formats: one folder or file per format, with its tables and kernels.

Imports schemas, the top of operators, :mod:`operators.normalise` and venues. Only flows import it.
"""
