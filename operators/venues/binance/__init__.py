"""Binance: the byte scan where it applies, the exact decoder for everything else."""
