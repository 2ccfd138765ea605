"""Which shard an instrument belongs to: part of the recovery and lake formats, never to change.

The shard is the first 8 bytes (big endian) of BLAKE2b with an 8-byte digest over the UTF-8 text
``<venue> NUL <symbol>``, modulo the number of shards. It depends on nothing else, so that every
process, release and language can compute it, and Kafka's partition is shard modulo P.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

DEFAULT_SHARDS: Final = 16


def shard_of(venue: str, symbol: str, shards: int = DEFAULT_SHARDS) -> int:
    """Shard of an instrument, in ``range(shards)``."""
    assert shards > 0, shards
    digest = blake2b(f"{venue}\0{symbol}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Which shards a feed has and which of them this process keeps.

    Shards of feed f are f * shards_per_feed + (hash of venue and symbol mod shards_per_feed).
    Process p of n keeps the shards with shard mod n = p, and process 0 the feed's own rows.
    """

    feed_index: int
    shards_per_feed: int = 16
    process: int = 0
    processes: int = 1

    def shard(self, local: int) -> int:
        return self.feed_index * self.shards_per_feed + local

    def keeps(self, local: int) -> bool:
        return self.shard(local) % self.processes == self.process

    @property
    def keeps_feed(self) -> bool:
        return self.process == 0
