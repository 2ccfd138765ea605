"""Coinbase: Advanced Trade, and the Exchange feed."""
