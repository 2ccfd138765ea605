"""Binance: the byte scan where it applies, the exact decoder for everything else.

Imports as :mod:`operators.venues`. Formats and flows import it.
"""
