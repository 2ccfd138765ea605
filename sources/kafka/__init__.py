"""Topics as feeds: every partition one, raw frames or rows of a table; replays and their merge.

Imports schemas and the top of sources (config, reader, url, errors); no other kind of source.
The registry imports its config and reader; flows import its config, cluster, spans and replay.
"""
