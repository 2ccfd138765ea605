"""Bitstamp: the messages of the handlers' docstrings, row by row, and what is refused."""

from __future__ import annotations

from decimal import Decimal

from marketflow.operators.events import EventKind
from marketflow.operators.venues.bitstamp import Bitstamp
from tests.support.decoded import Group, Other, Print, decode, events, examples, http, letters

BOOK_URL = "https://www.bitstamp.net/api/v2/order_book/ethusd"
PAIRS_URL = "https://www.bitstamp.net/api/v2/trading-pairs-info/"
SNAPSHOT, PAIRS = examples(Bitstamp._http)
(DIFF,) = examples(Bitstamp._group)
(TRADE,) = examples(Bitstamp._trade)


def test_diff() -> None:
    assert events("BITSTAMP", DIFF) == [
        Group(
            "bateur",
            1_641_343_691_244_908_000,
            1_641_343_691_244_908,
            [(Decimal("1.15979"), Decimal("993.02588113"))],
            [(Decimal("1.16601"), Decimal("1200.00000000"))],
            [],
        )
    ]


def test_rest_snapshot() -> None:
    assert events("BITSTAMP", http(BOOK_URL, SNAPSHOT)) == [
        Group(
            "ethusd",
            1_641_343_695_681_418_000,
            1_641_343_695_681_418,
            [(Decimal("3802.90"), Decimal("0.6"))],
            [(Decimal("3802.91"), Decimal("1.577719"))],
            [],
            snapshot=True,
        )
    ]
    assert events("BITSTAMP", http(BOOK_URL + "?group=1", SNAPSHOT)) != []


def test_snapshot_of_2019_has_whole_seconds_only() -> None:
    old = '{"timestamp":"1554076800","bids":[],"asks":[]}'
    (group,) = events("BITSTAMP", http(BOOK_URL, old))
    assert group[1:3] == (1_554_076_800_000_000_000, 1_554_076_800_000_000)


def test_trade() -> None:
    expected = Print(
        "ethusd",
        1_641_343_699_596_000_000,
        Decimal("3805.44"),
        Decimal("0.0792"),
        "buy",
        "216000477",
    )
    assert events("BITSTAMP", TRADE) == [expected]
    sold = TRADE.replace('"type":0', '"type":1')
    assert events("BITSTAMP", sold) == [expected._replace(aggressor="sell")]
    # Older messages have no texts: the JSON number is just as exact.
    numbers = TRADE.replace('"amount_str":"0.07920000",', "").replace('"price_str":"3805.44",', "")
    assert events("BITSTAMP", numbers) == [expected]


def test_whole_books_count_only_without_diffs() -> None:
    book = DIFF.replace("diff_order_book_", "order_book_")
    (group,) = events("BITSTAMP", book)
    assert isinstance(group, Group) and group.snapshot
    assert [g.snapshot for g in events("BITSTAMP", DIFF, book) if isinstance(g, Group)] == [False]
    # The top 100 are no base for diffs.
    found = events("BITSTAMP", book, DIFF, DIFF)
    assert [type(e) for e in found] == [Group, Other, Group, Group]
    assert found[1] == Other("DISCONNECT", "bateur")


def test_instrument_row_at_its_first_message() -> None:
    decoded = decode("BITSTAMP", http(PAIRS_URL, PAIRS), TRADE.replace("_ethusd", "_btcusd"), DIFF)
    rows = decoded.events.tables["instruments"].drop_columns(["ts_event", "ts_recv"]).to_pylist()
    assert [(r["instrument"], r["price_increment"], r["base_currency"]) for r in rows] == [
        (0, Decimal("0.01"), "BTC")
    ]
    assert (rows[0]["size_increment"], rows[0]["status"]) == (Decimal("0.00000001"), "open")


def test_silent() -> None:
    silent = [
        '{"event":"bts:subscription_succeeded","channel":"diff_order_book_sgbeur","data":{}}',
        '{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}',
        '{"event":"bts:request_reconnect","channel":"","data":""}',
        '{"event":"order_created","channel":"live_orders_btcusd","data":{"id":1}}',
    ]
    assert events("BITSTAMP", *silent, http("https://www.bitstamp.net/api/v2/ticker/", "{}")) == []


def test_refused() -> None:
    bad = [
        '{"event":"data","channel":"unheard_of_btcusd","data":{}}',
        '{"event":"bts:error","channel":"","data":{"code":4009,"message":"no such channel"}}',
        TRADE.replace('"type":0', '"type":2'),
        DIFF.replace('"1641343691244908"', '"soon"'),
        DIFF.replace('"bids":[[', '"bids":[[['),
        "no json",
    ]
    reasons = [letters(decode("BITSTAMP", message))[0][0] for message in bad]
    assert reasons == [
        "unknown_message",
        "unknown_message",
        "bad_side",
        "bad_timestamp",
        "malformed",
        "malformed",
    ]


def test_a_bad_level_goes_alone() -> None:
    decoded = decode("BITSTAMP", DIFF.replace("993.02588113", "-1"))
    assert letters(decoded) == [("negative_size", "bid level")]
    assert decoded.events.rows["kind"].tolist() == [EventKind.BEGIN, EventKind.LEVEL, EventKind.END]
