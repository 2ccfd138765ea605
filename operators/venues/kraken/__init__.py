"""Kraken spot: WebSocket API v1 and v2.

Imports as :mod:`operators.venues`. Formats and flows import it.
"""
