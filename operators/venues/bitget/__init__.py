"""Bitget: three generations of its WebSocket API.

Imports as :mod:`operators.venues`. Formats and flows import it.
"""
