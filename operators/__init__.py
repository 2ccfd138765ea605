"""Stateful cores of the flows: pure and deterministic, tested without bytewax.

A core has ``apply(batch)``, ``snapshot()`` and ``restore(state)``; its hot loops are in a folder
``kernels``. :mod:`operators.engine` alone knows bytewax. The top holds what every room in here
shares: events, names, instruments, dead letters, rows.

Imports schemas. Flows import it.
"""
