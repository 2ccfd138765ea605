"""Bitget: three generations of its WebSocket API."""
