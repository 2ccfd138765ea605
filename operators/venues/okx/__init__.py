"""OKX: WebSocket API v5, and v3 of recordings until 2021.

Imports as :mod:`operators.venues`. Formats and flows import it.
"""
