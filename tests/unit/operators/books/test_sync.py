"""The book-sync state machine, told as short stories: what is shown, and what is said of it."""

from __future__ import annotations

import zlib
from decimal import Decimal
from typing import Any

import pytest

from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.events import BookType, ChecksumRule, Continuity, SnapshotRule
from marketflow.operators.events import EventKind as K
from marketflow.operators.instruments import BookRules
from marketflow.schemas.units import NS_PER_MS, NS_PER_S
from tests.support.books import T0, Script, batch, collect, instruments

SPOT = BookRules(
    continuity=Continuity.FIRST_FOLLOWS, snapshot_rule=SnapshotRule.SPLICE, first_overlap=1
)
FUTURES = BookRules(
    continuity=Continuity.PREVIOUS_EQUALS, snapshot_rule=SnapshotRule.SPLICE, first_overlap=1
)
STREAM = BookRules(continuity=Continuity.STEP_ONE, snapshot_rule=SnapshotRule.IN_STREAM)
FULL = ((1, 9900, 5), (2, 10000, 7))


def tell(script: Script, *rules: BookRules, config: BookConfig | None = None) -> Any:
    shard = BookShard(0, config or BookConfig())
    rows = shard.apply(batch(script.rows, instruments(*rules)))
    return collect([rows]), rows


def quotes(tables: dict[str, Any]) -> list[Any]:
    """(best bid price, best ask price, state) of every quote of a book."""
    return [
        (_plain(q["bid_price"]), _plain(q["ask_price"]), q["book_state"])
        for q in tables.get("quotes", [])
        if q["origin"] == "book"
    ]


def _plain(value: Decimal | None) -> int | None:
    return None if value is None else int(value * 100)


def faults(tables: dict[str, Any]) -> list[Any]:
    """(kind, from, to, value, cause) of every quality event."""
    return [
        (q["kind"], q["sequence_from"], q["sequence_to"], q["value"], q["cause_id"])
        for q in tables.get("quality_events", [])
    ]


def test_deltas_before_the_snapshot_are_spliced() -> None:
    s = Script()
    s.group([(1, 9000, 1)], first=90, last=99)  # inside the snapshot
    s.group([(1, 9950, 2)], first=99, last=102)  # reaches across its id
    s.group([(2, 9990, 3)], first=103, last=103)
    s.group(FULL, last=100, snapshot=True)
    s.group([(2, 9990, 0)], first=104, last=105)
    tables, rows = tell(s.end(), SPOT)
    assert quotes(tables) == [(9950, 9990, "valid"), (9950, 10000, "valid")]
    assert [q["sequence"] for q in tables["quotes"]] == [103, 105]
    assert faults(tables) == []
    assert rows.ended
    assert rows.stats["stale_books"] == 0
    # The level of the dropped delta never was in the book.
    assert all(_plain(e["price"]) != 9000 for e in tables["book_events"])


@pytest.mark.parametrize(("previous", "valid"), [(99, True), (100, True), (101, False)])
def test_futures_splice_by_the_previous_id(previous: int, valid: bool) -> None:
    s = Script().group([(1, 9950, 2)], first=150, last=160, previous=previous)
    tables, rows = tell(s.group(FULL, last=100, snapshot=True), FUTURES)
    assert quotes(tables) == ([(9950, 10000, "valid")] if valid else [])
    assert rows.stats["books"] == 1


def test_a_snapshot_too_old_for_the_buffer_waits_for_the_next() -> None:
    s = Script().group([(1, 9950, 2)], first=105, last=106)
    s.group(FULL, last=100, snapshot=True)
    s.group([(1, 9960, 2)], first=107, last=107)
    tables, _ = tell(s, SPOT)
    assert (quotes(tables), faults(tables)) == ([], [])
    s.group(FULL, last=105, snapshot=True)
    tables, _ = tell(s, SPOT)
    assert quotes(tables) == [(9960, 10000, "valid")]
    assert faults(tables) == []


def test_an_old_snapshot_does_not_move_a_valid_book_back() -> None:
    s = Script().group(FULL, last=100, snapshot=True).group([(1, 9950, 2)], first=101, last=101)
    s.group(FULL, last=100, snapshot=True).group(FULL, last=101, snapshot=True)
    tables, rows = tell(s, SPOT)
    assert quotes(tables) == [(9900, 10000, "valid"), (9950, 10000, "valid")]
    assert rows.stats["snapshots_ignored"] == 2
    s.group(FULL, last=120, snapshot=True).group([(1, 9960, 1)], first=119, last=121)
    tables, _ = tell(s, SPOT)
    assert quotes(tables)[2:] == [(9900, 10000, "valid"), (9960, 10000, "valid")]
    assert faults(tables) == []


def test_a_gap_is_stale_until_a_snapshot_bridges_it() -> None:
    s = Script().group(FULL, last=100, snapshot=True)
    s.group([(1, 9950, 2)], first=104, last=106)
    s.group([(1, 9960, 2)], first=107, last=107)
    s.group(FULL, last=90, snapshot=True)  # older than what was applied
    s.group(FULL, last=105, snapshot=True)
    tables, rows = tell(s, SPOT)
    assert quotes(tables) == [
        (9900, 10000, "valid"), (None, None, "stale"), (9960, 10000, "valid"),
    ]  # fmt: skip
    assert faults(tables) == [
        ("gap", 101, 103, 3, None), ("stale", 106, 106, None, 0), ("valid", 105, 105, None, 0),
    ]  # fmt: skip
    valid = tables["quality_events"][2]
    assert (valid["ts_event"], valid["ts_until"]) == (T0 + 2000, T0 + 5000)
    assert tables["depth"][1]["bid_prices"] == []
    assert rows.stats["snapshots_ignored"] == 1
    # What a reader of book_events builds is the book: going stale clears it.
    assert [e["action"] for e in tables["book_events"]].count("clear") == 1


def test_a_gap_resets_only_its_own_book() -> None:
    s = Script()
    for k in (0, 1):
        s.group(FULL, instrument=k, last=100, snapshot=True)
    s.group([(1, 9950, 2)], instrument=0, last=102)
    s.group([(1, 9950, 2)], instrument=1, last=101)
    tables, rows = tell(s, STREAM, STREAM)
    assert [q["symbol"] for q in tables["quality_events"]] == ["S0", "S0"]
    assert quotes(tables)[2:] == [(None, None, "stale"), (9950, 10000, "valid")]
    assert rows.stats["stale_books"] == 1


def test_repeated_and_old_messages_are_skipped() -> None:
    s = Script().group(FULL, last=100, snapshot=True)
    for last in (101, 101, 100, 102):
        s.group([(1, 9800 + last, 1)], last=last)
    tables, _ = tell(s, STREAM)
    assert faults(tables) == [
        ("duplicate", 101, 101, 0, None), ("out_of_order", 100, 100, 1, None),
    ]  # fmt: skip
    assert quotes(tables) == [(b, 10000, "valid") for b in (9900, 9901, 9902)]


def test_keep_alive_with_the_same_id_is_no_repetition() -> None:
    okx = BookRules(continuity=Continuity.PREVIOUS_EQUALS, snapshot_rule=SnapshotRule.IN_STREAM)
    s = Script().group(FULL, last=100, previous=-1, snapshot=True)
    s.group(last=100, previous=100).group([(1, 9950, 1)], last=3, previous=100)
    s.group([(1, 9960, 1)], last=4, previous=3)
    tables, _ = tell(s, okx)
    assert faults(tables) == []
    assert quotes(tables)[-1] == (9960, 10000, "valid")


def test_deltas_without_a_snapshot_show_nothing_and_say_so_once() -> None:
    s = Script(tick=NS_PER_S)
    for n in range(1, 15):
        s.group([(1, 9900 + n, 1)], first=n, last=n)
    tables, rows = tell(s, SPOT, config=BookConfig(snapshot_wait_ns=10 * NS_PER_S))
    assert quotes(tables) == [(None, None, "stale")]
    assert [(f[0], f[1]) for f in faults(tables)] == [("no_snapshot", 12)]
    assert rows.stats["stale_books"] == 1
    assert "book_events" not in tables
    short = Script().group([(1, 9900, 1)], first=1, last=1).end()
    tables, _ = tell(short, SPOT)
    assert [f[0] for f in faults(tables)] == ["no_snapshot"]
    tables, _ = tell(Script().group([(1, 9900, 1)], last=1).group([(1, 9900, 1)], last=2), STREAM)
    assert [f[0] for f in faults(tables)] == ["no_snapshot"]


def test_a_late_snapshot_ends_the_outage_that_was_announced() -> None:
    s = Script().group([(1, 9950, 1)], first=1, last=5)
    s.row(K.CLOCK, ts=T0 + 20 * NS_PER_S)
    s.ts += 20 * NS_PER_S
    s.group([(1, 9960, 1)], first=6, last=6).group(FULL, last=3, snapshot=True)
    tables, _ = tell(s, SPOT)
    assert [(f[0], f[4]) for f in faults(tables)] == [("no_snapshot", None), ("valid", 0)]
    assert quotes(tables)[-1] == (9960, 10000, "valid")


def _okx_crc(bids: list[str], asks: list[str]) -> int:
    return zlib.crc32(":".join([*bids, *asks]).encode())


def test_checksum_of_the_numbers_as_sent() -> None:
    rules = BookRules(snapshot_rule=SnapshotRule.IN_STREAM, checksum_rule=ChecksumRule.OKX)
    good = _okx_crc(["99.00", "0.500"], ["100.0", "7.00"])
    full = ((1, (9900, 2), (500, 3)), (2, (1000, 1), (700, 2)))
    s = Script().group(full, snapshot=True, checksum=good - 2**32)  # OKX sends it signed
    s.group([(1, (9850, 2), (1, 0))], checksum=12345)
    s.group([(1, (9850, 2), (1, 0))], checksum=12345)
    s.group(full, snapshot=True, checksum=good)
    tables, rows = tell(s, rules)
    assert (rows.stats["checksums_verified"], rows.stats["checksums_failed"]) == (2, 1)
    bad, stale, valid = tables["quality_events"]
    assert (bad["kind"], bad["expected"]) == ("bad_checksum", 12345)
    assert (stale["cause_id"], valid["cause_id"]) == (0, 0)
    assert [q[2] for q in quotes(tables)] == ["valid", "stale", "valid"]


def test_levels_beyond_the_subscribed_depth_are_truncated() -> None:
    rules = BookRules(snapshot_rule=SnapshotRule.IN_STREAM, max_levels=2)
    s = Script().group([(1, 9900, 1), (1, 9800, 1), (2, 10000, 1)], snapshot=True)
    s.group([(1, 9950, 1), (1, 9900, 0), (1, 9700, 1)])
    tables, rows = tell(s, rules)
    assert tables["depth"][-1]["bid_prices"] == [Decimal("99.5"), Decimal("98")]
    assert rows.stats["depth_truncated"] == 1
    dropped = tables["book_events"][-1]
    assert (dropped["action"], _plain(dropped["price"]), dropped["flags"]) == ("cancel", 9700, 1)
    assert "quality_events" not in tables


def test_crossed_books_go_stale_where_a_snapshot_can_mend_them() -> None:
    cross = [(1, 10100, 1)]
    s = Script().group(FULL, last=1, snapshot=True).group(cross, last=2).group(cross, last=3)
    s.group([*FULL, *cross], last=4, snapshot=True).group(FULL, last=5, snapshot=True)
    tables, _ = tell(s, STREAM)
    assert [q[2] for q in quotes(tables)] == ["valid", "stale", "valid"]
    assert [f[0] for f in faults(tables)] == ["crossed", "stale", "crossed", "valid"]
    assert [f[4] for f in faults(tables)] == [None, 0, None, 0]


@pytest.mark.parametrize("may_cross", [False, True])
def test_crossed_books_without_a_source_stay_and_say_it(may_cross: bool) -> None:
    s = Script().group([*FULL, (1, 10000, 1)]).group([(1, 10100, 1)]).group([(1, 10200, 1)])
    s.group([(1, 10200, 0), (1, 10100, 0), (1, 10000, 0)])
    tables, _ = tell(s, BookRules(may_cross=may_cross))
    assert [q[2] for q in quotes(tables)] == ["locked", "crossed", "crossed", "valid"]
    assert [f[0] for f in faults(tables)] == ([] if may_cross else ["locked", "crossed"])
    flags = [e["flags"] & 4 for e in tables["book_events"]]
    assert any(flags) is not may_cross


def test_disconnect_and_restarted_ids() -> None:
    s = Script().group(FULL, last=100, snapshot=True)
    s.row(K.DISCONNECT, ts=0)
    s.group([(1, 9950, 1)], last=1)  # ids may start anew
    s.group(FULL, last=2, snapshot=True).group([(1, 9950, 1)], last=3)
    tables, _ = tell(s, STREAM)
    assert [f[0] for f in faults(tables)] == ["disconnect", "stale", "valid"]
    assert [q[2] for q in quotes(tables)] == ["valid", "stale", "valid", "valid"]
    tables, _ = tell(Script().group(FULL).row(K.DISCONNECT, instrument=-1), BookRules())
    assert [f[0] for f in faults(tables)] == ["disconnect"]


def test_an_unfinished_group_is_not_applied() -> None:
    s = Script().group(FULL, last=1, snapshot=True).group([(1, 9950, 1)], last=2)
    cut = s.rows[:-1]
    s.group([(1, 9960, 1)], last=3)
    rest = s.rows[len(cut) + 1 :]
    names, shard = instruments(STREAM), BookShard(0, BookConfig())
    tables = collect([shard.apply(batch(part, names)) for part in (cut, rest)])
    assert [f[0] for f in faults(tables)] == ["incomplete_group", "stale"]
    assert [q[2] for q in quotes(tables)] == ["valid", "stale"]
    shard = BookShard(0, BookConfig())
    end = Script().end().rows
    tables = collect([shard.apply(batch(part, names)) for part in (cut, end)])
    assert [f[0] for f in faults(tables)] == ["incomplete_group"]
    assert [q[2] for q in quotes(tables)] == ["valid"]


def test_late_and_skewed_times() -> None:
    s = Script()
    s.recv = T0 - NS_PER_S
    s.group(FULL).group([(1, 9950, 1)], late=3000)
    s.recv = T0 + NS_PER_S
    s.group([(1, 9960, 1)])
    s.recv = T0 - NS_PER_S
    s.row(K.TRADE, price=10000, size=1, ts=T0 + 500)  # trades have a clock of their own
    s.row(K.TRADE, price=10000, size=1, ts=T0 + 200)
    tables, _ = tell(s, BookRules(), config=BookConfig(clock_skew_ns=100 * NS_PER_MS))
    assert [(f[0], f[3]) for f in faults(tables)] == [
        ("clock_skew", NS_PER_S + 1000), ("late", 2000),
        ("clock_skew", NS_PER_S + 500), ("late", 300),
    ]  # fmt: skip


def test_price_zero_is_no_price() -> None:
    s = Script().group([(1, 0, 5), (1, 0, 0), (1, 9900, 1), (2, 0, 3)])
    tables, rows = tell(s, BookRules())
    assert faults(tables) == [("no_op", None, None, 3, None)]
    assert len(tables["book_events"]) == 1
    assert rows.stats["no_ops"] == 3
    # Deleting what is not there, and saying the same again, is normal on diff feeds.
    s = Script().group([(1, 9900, 1)]).group([(1, 9800, 0), (1, 9900, 1)])
    tables, rows = tell(s, BookRules())
    assert faults(tables) == []
    assert rows.stats["no_ops"] == 2


def test_quotes_of_the_venue() -> None:
    s = Script().quote((9900, 5), (10000, 7), sequence=100)
    s.group(FULL, last=100, snapshot=True)
    s.quote((9900, 5), (10000, 7), sequence=101)  # nothing changed
    s.quote(None, (10000, 7), sequence=102)
    tables, rows = tell(s, SPOT)
    venue = [q for q in tables["quotes"] if q["origin"] == "venue"]
    assert [(_plain(q["bid_price"]), q["sequence"]) for q in venue] == [(9900, 100), (None, 102)]
    assert faults(tables) == []
    assert rows.stats["bbo_checked"] == 1


def test_a_quote_that_disagrees_with_the_book_of_its_id() -> None:
    s = Script().quote((9900, 6), (10100, 7), sequence=100).group(FULL, last=100, snapshot=True)
    s.group([(1, 9950, 1)], first=101, last=105).quote((9950, 1), (10000, 7), sequence=104)
    s.quote((9950, 9), (10000, 9), sequence=107)
    tables, _ = tell(s, SPOT)
    assert faults(tables) == [("bbo_mismatch", 100, 100, 2 | 4, None)]


@pytest.mark.parametrize(("tolerance", "agree"), [(1, False), (2, True)])
def test_racing_channels_are_tolerated(tolerance: int, agree: bool) -> None:
    rules = BookRules(bbo_tolerance=tolerance)
    s = Script().group(FULL)
    s.quote((9952, 1), (10000, 7))  # two groups ahead
    for n in range(1, 5):
        s.group([(1, 9950 + n, 1)])
    s.quote((9953, 1), (10000, 7))  # one group behind
    s.group([(1, 9970, 1)])
    tables, _ = tell(s, rules)
    assert [f[0] for f in faults(tables)] == ([] if agree else ["bbo_mismatch"])


def test_l3_groups_with_nonces() -> None:
    rules = BookRules(
        book_type=BookType.L3, continuity=Continuity.STEP_ONE, snapshot_rule=SnapshotRule.IN_STREAM
    )
    s = Script().group(snapshot=True, orders=[(K.ADD, 1, 1, 9900, 5), (K.ADD, 2, 2, 10000, 5)])
    s.group(last=7, orders=[(K.ORDER_SIZE, 1, 1, None, 2)])
    s.group(last=9, orders=[(K.DELETE, 1, 1, None, 0)])
    s.group(last=10, orders=[(K.EXECUTE, 1, 1, 9900, 1), (K.EXECUTE, 1, 1, None, 1)])
    tables, rows = tell(s, rules)
    assert [f[0] for f in faults(tables)] == ["gap", "stale"]
    assert [q[2] for q in quotes(tables)] == ["valid", "valid", "stale"]
    # Trades go on while the book is stale, if they say their price.
    assert len(tables["trades"]) == 1
    assert rows.stats["executions_lost"] == 1
    assert rows.stats["orders"] == 0
