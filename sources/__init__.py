"""Bytes in: readers of files and feeds, all giving batches of
:data:`schemas.messages.frames.FRAMES`.

:func:`sources.url.parse_source` turns a URL into a checked :class:`~sources.url.SourceSpec`,
:func:`sources.open.open_reader` opens it, and :class:`sources.inputs.FeedSource` hands its batches
to the dataflow. Decoding what the bytes mean is the operators' work.
"""
