"""Redundant lines of one sequenced feed: their configs and sockets (UDP, TCP).

Imports schemas and the top of sources (config, url, errors); no other kind of source.
Recording flows import it: a line is recorded first, and read from the record.
"""
