"""Coinbase: Advanced Trade, and the Exchange feed.

Imports as :mod:`operators.venues`. Formats and flows import it.
"""
