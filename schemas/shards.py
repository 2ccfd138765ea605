"""Which shard an instrument belongs to: part of the recovery and lake formats, never to change.

The shard is the first 8 bytes (big endian) of BLAKE2b with an 8-byte digest over the UTF-8 text
``<venue> NUL <symbol>``, modulo the number of shards. It depends on nothing else, so that every
process, release and language can compute it, and Kafka's partition is shard modulo P.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

DEFAULT_SHARDS: Final = 16


def shard_of(venue: str, symbol: str, shards: int = DEFAULT_SHARDS) -> int:
    """Shard of an instrument, in ``range(shards)``."""
    assert shards > 0, shards
    digest = blake2b(f"{venue}\0{symbol}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards
