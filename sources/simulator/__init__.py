"""A seeded market as a feed: ITCH messages or Binance streams.

Imports schemas and the top of sources (config, reader, url, errors); no other kind of source.
The registry imports its config and reader; flows import its config.
"""
