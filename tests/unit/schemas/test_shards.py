"""Numbers of feeds and shards: parts of every store, never to change."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.schemas import shards

_FEEDS = st.integers(0, (1 << 43) - 1)
_LOCALS = st.integers(0, shards.MAX_SHARDS - 1)


def test_values_on_record() -> None:
    digest = blake2b(b"feed", digest_size=32).digest()
    assert shards.feed_number(digest) == 3156484592955
    assert shards.shard_number(3156484592955, 5) == 3232240223185925
    assert shards.own_shard(3156484592955) == -3232240223185921
    assert [shards.shard_of("XNAS", s, 16) for s in ("AAPL", "MSFT", "QQQ")] == [10, 13, 3]


@given(_FEEDS, _LOCALS)
def test_a_shard_tells_its_feed_and_place(feed: int, local: int) -> None:
    shard, own = shards.shard_number(feed, local), shards.own_shard(feed)
    assert (shards.feed_of(shard), shards.local_of(shard)) == (feed, local)
    assert shards.feed_of(own) == feed
    assert own < 0 <= shard
    # Exact as a float of 64 bits, as JSON's readers have it.
    assert int(float(shard)) == shard < 1 << 53
    assert int(float(own)) == own > -(1 << 53)


@given(_FEEDS, _FEEDS, _LOCALS, st.integers(1, 64))
def test_a_symbol_has_one_partition_in_all_feeds(a: int, b: int, local: int, count: int) -> None:
    one, other = (shards.shard_number(feed, local) for feed in (a, b))
    assert shards.partition_of_shard(one, count) == shards.partition_of_shard(other, count)
    assert 0 <= shards.partition_of_shard(shards.own_shard(a), count) < count


def test_shards_spread_over_partitions_without_skew() -> None:
    """S shards over P partitions, S a multiple of P: each has as many."""
    for count in (1, 2, 4, 8, 16):
        found = [shards.partition_of_shard(shards.shard_number(99, s), count) for s in range(16)]
        assert sorted(found) == sorted(list(range(count)) * (16 // count))


def test_numbers_that_do_not_fit_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        shards.shard_number(1 << 43, 0)
    with pytest.raises(AssertionError):
        shards.shard_number(0, shards.MAX_SHARDS)
