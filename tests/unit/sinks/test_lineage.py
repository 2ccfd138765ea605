"""The rules of what a store knows of its feeds, without a store."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.sinks.errors import SinkError
from marketflow.sinks.lineage import (
    Claim,
    Entry,
    FeedClaim,
    check_apart,
    check_back_fill,
    in_the_way,
    overlaps,
    place_of,
    writer_of,
)


def feed(*parts: dict[str, Any], number: int = 1, **more: Any) -> FeedClaim:
    values = {"digest": f"d{number}", "identity": "", "source": f"s{number}", "venue": None}
    return FeedClaim(number, **{**values, **more}, parts=parts)


def claim(*feeds: FeedClaim, settings: dict[str, Any] | None = None) -> Claim:
    return Claim("a" * 32, "market_data", "1", settings or {}, feeds)


def stored(*parts: dict[str, Any], number: int = 1, **more: Any) -> Entry:
    values = {"run": "b" * 32, "digest": f"d{number}", "source": f"s{number}", "settings": {}}
    return Entry(number, parts=parts, **{**values, **more})


def interval(start: int, end: int | None, partition: int = 0) -> dict[str, Any]:
    return {"topic": "T", "partition": partition, "start": start, "end": end}


ends = st.one_of(st.none(), st.integers(0, 12))


@given(st.integers(0, 12), ends, st.integers(0, 12), ends)
def test_intervals_overlap_where_an_offset_is_in_both(
    start: int, end: int | None, other: int, last: int | None
) -> None:
    one = set(range(start, 20 if end is None else end))
    two = set(range(other, 20 if last is None else last))
    found = overlaps(feed(), interval(start, end), interval(other, last))
    assert found == bool(one & two) or not one or not two
    assert not overlaps(feed(), interval(start, end), interval(other, last, partition=1))


def file(content: bytes, **more: Any) -> dict[str, Any]:
    head = content[: 1 << 16]
    return {"path": "f", "head": head.hex(), "bytes": len(head), **more}


@given(st.binary(min_size=1024, max_size=3000), st.binary(min_size=1, max_size=100))
def test_a_file_is_known_again_when_it_has_grown(content: bytes, more: bytes) -> None:
    grown = content + more
    mine = feed(prefix=lambda _, size: grown[:size].hex())
    assert overlaps(mine, file(grown), file(content))
    assert overlaps(mine, file(grown), file(grown))
    assert not overlaps(mine, file(grown, id="x"), file(grown))
    changed = bytes([content[0] ^ 1]) + content[1:]
    assert not overlaps(mine, file(grown), file(changed))


def test_a_line_of_names_tells_no_file() -> None:
    mine = feed(prefix=lambda _, size: (b"ts,price" * 400)[:size].hex())
    assert not overlaps(mine, file(b"ts,price" * 400), file(b"ts,price"))


def test_a_collision_of_numbers_is_refused_with_the_remedy() -> None:
    with pytest.raises(SinkError, match=r"number of another feed, s1: .*id=NAME"):
        in_the_way([stored(digest="other")], claim(feed()))


def test_the_same_feed_is_in_the_way_whatever_its_parts_and_its_own_run_is_not() -> None:
    assert in_the_way([stored()], claim(feed())) == [stored()]
    assert in_the_way([stored(run="a" * 32)], claim(feed())) == []
    # Intervals of one partition are parts of one feed.
    later = feed(interval(10, 20))
    assert in_the_way([stored(interval(0, 10))], claim(later)) == []
    assert in_the_way([stored(interval(0, 11))], claim(later)) != []


def test_what_is_replaced_is_also_known_by_its_url() -> None:
    old = stored(number=2, source="s1")
    assert in_the_way([old], claim(feed())) == []
    assert in_the_way([old], claim(feed()), replaces=True) == [old]


def test_two_feeds_of_a_start_are_apart() -> None:
    one, two = feed(interval(0, None)), feed(interval(5, 9), number=2)
    with pytest.raises(SinkError, match="partition 0 of a topic in common"):
        check_apart([one, two])
    check_apart([one, feed(interval(5, 9, partition=1), number=2)])


def test_a_back_fill_is_of_the_feed_that_is_there_and_of_its_settings() -> None:
    asked = claim(feed(interval(2, 4)), settings={"late_ms": 5, "tables": ["trades"]})
    same = stored(interval(0, None), settings={"late_ms": 5, "tables": ["bars"]})
    check_back_fill("store", [same], asked)
    with pytest.raises(SinkError, match="late_ms = 6, the back-fill has 5"):
        check_back_fill("store", [same._replace(settings={"late_ms": 6})], asked)
    with pytest.raises(SinkError, match="began elsewhere"):
        check_back_fill("store", [stored(interval(0, None), number=2)], asked)


def test_writers_are_named_by_run_layout_and_process() -> None:
    assert writer_of("0123456789abcdef" * 2, 3) == "r0123456789abp3"
    assert writer_of("0123456789abcdef" * 2, 3, 2) == "r0123456789abl2p3"
    assert [place_of(writer_of("f" * 32, 0, layout)) for layout in (0, 1)] == ["p0", "l1p0"]
    assert place_of("w1") == "w1"
