"""Bars by event time, from the ``trades`` table alone.

Imports schemas and the top of operators. Only flows import it.
"""
