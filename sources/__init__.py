"""Bytes in: a URL becomes a typed config, its reader gives batches of frames (schemas.messages).

A room per kind of source; ``registry`` has one entry per scheme, ``engine`` is the bytewax input.
Imports schemas. Flows import ``registry``, ``engine`` and the configs; operators decode the bytes.
"""
