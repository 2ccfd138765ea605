"""Redundant lines of one sequenced feed: their URLs and sockets.

Imports schemas and the top of sources. Recording flows import it.
"""
