"""Books of a shard: integrity and book in one state; events in, finished rows out.

Imports schemas, the top of operators and :mod:`operators.normalise`. Bars and flows may import it.
"""
