"""Nasdaq TotalView-ITCH 5.0: the decoder of one feed, its rare messages as rows, its kernels.

Imports as :mod:`operators.formats`. Only flows import it.
"""
