"""A row's name for life: which feed and which shard of it a row is of. Never to change.

``shard = feed << 10 | local``: *feed* is 43 bits of a digest over what the feed begins with
(:func:`feed_number`), *local* the shard within the feed. A feed's own rows, such as dead letters
that belong to no instrument, are of ``~(feed << 10)``, below zero. Either fits 53 bits and a sign,
so JSON, JavaScript and pandas keep it exact.

The shard of an instrument within its feed is the first 8 bytes (big endian) of BLAKE2b with an
8-byte digest over the UTF-8 text ``<venue> NUL <symbol>``, modulo the number of shards. It depends
on nothing else, so that every process, release and language can compute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

DEFAULT_SHARDS: Final = 16
#: Shards that a feed may have.
MAX_SHARDS: Final = 1 << 10
_LOCAL_BITS: Final = 10
_FEED_BITS: Final = 43
#: First feed of rows that were numbered by their place in a run, before feeds had numbers.
_FIRST_UNKNOWN: Final = 1 << 42


def shard_of(venue: str, symbol: str, shards: int = DEFAULT_SHARDS) -> int:
    """Shard of an instrument within its feed, in ``range(shards)``."""
    assert shards > 0, shards
    digest = blake2b(f"{venue}\0{symbol}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Which shards a feed has and which of them this process keeps.

    ``index`` of a shard in the run: feed_index * shards_per_feed + (hash of venue and symbol mod
    shards_per_feed). Process p of n keeps the shards with index mod n = p, and process 0 the feed's
    own rows. ``number``: of the feed; its rows carry it.
    """

    feed_index: int
    shards_per_feed: int = 16
    process: int = 0
    processes: int = 1
    number: int = 0

    def index(self, local: int) -> int:
        return self.feed_index * self.shards_per_feed + local

    def shard(self, local: int) -> int:
        """The number that the shard's rows carry."""
        return shard_number(self.number, local)

    def keeps(self, local: int) -> bool:
        return self.index(local) % self.processes == self.process

    @property
    def keeps_feed(self) -> bool:
        return self.process == 0


def feed_number(digest: bytes) -> int:
    """The feed's 43 bits: the first of a digest over its canonical identity."""
    return int.from_bytes(digest[:8], "big") >> (64 - _FEED_BITS)


def shard_number(feed: int, local: int) -> int:
    """What rows of a feed's shard carry as ``shard``."""
    assert 0 <= feed < 1 << _FEED_BITS, feed
    assert 0 <= local < MAX_SHARDS, local
    return feed << _LOCAL_BITS | local


def own_shard(feed: int) -> int:
    """What a feed's own rows carry as ``shard``."""
    return ~(feed << _LOCAL_BITS)


def feed_of(shard: int) -> int:
    """The feed that a ``shard`` is of."""
    return (shard if shard >= 0 else ~shard) >> _LOCAL_BITS


def feeds_of(shards: NDArray[np.int64]) -> NDArray[np.int64]:
    """The feeds that shards are of: :func:`feed_of` of each."""
    numbers: NDArray[np.int64] = np.where(shards >= 0, shards, ~shards) >> _LOCAL_BITS
    return numbers


def bounds_of_feed(feed: int) -> tuple[int, int, int]:
    """What rows of a feed carry as ``shard``: from, to, and the own shard."""
    return feed << _LOCAL_BITS, (feed << _LOCAL_BITS) + MAX_SHARDS - 1, own_shard(feed)


def local_of(shard: int) -> int:
    """The shard within its feed; that of a feed's own rows has none."""
    assert shard >= 0, shard
    return shard & (MAX_SHARDS - 1)


def partition_of_shard(shard: int, partitions: int) -> int:
    """Kafka partition of a shard: a symbol has the same one in every feed of a venue."""
    return (local_of(shard) if shard >= 0 else feed_of(shard)) % partitions


def renumbered(shards: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers for shards of releases that counted them within a run (below 0: a feed's own rows):
    of feeds that nobody knows, in the same order. The database's migration says the same."""
    unknown = _FIRST_UNKNOWN << _LOCAL_BITS
    own = ~(unknown + (~shards << _LOCAL_BITS))
    return np.where(shards >= 0, unknown + shards, own)
