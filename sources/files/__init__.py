"""Files as feeds: one module per format, over the same blocks of bytes or rows.

Imports schemas and the top of sources (config, reader, url, errors); no other kind of source.
The registry imports its config and readers; flows import its config, capture, markets and marks.
"""
