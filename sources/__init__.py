"""Bytes in: readers of files and feeds, all giving batches of
:data:`schemas.messages.frames.FRAMES`.

:func:`sources.url.parse_source` turns a URL into a checked :class:`~sources.url.SourceSpec`,
:func:`sources.registry.open_reader` opens it, and :class:`sources.engine.FeedSource` hands its
batches to the dataflow. Decoding what the bytes mean is the operators' work.
"""
