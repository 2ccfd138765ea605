"""LOBSTER: message and order book files of one stock and day.

Imports as :mod:`operators.formats`. Only flows import it.
"""
