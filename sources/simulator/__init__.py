"""A seeded market as a feed: ITCH messages or Binance streams.

Imports schemas and the top of sources. The registry imports it.
"""
