"""LOBSTER: message and order book files of one stock and day."""
