"""Kraken spot: WebSocket API v1 and v2."""
