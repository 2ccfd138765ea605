"""Kraken v1: the handlers' examples row by row, depths, and what is refused."""

from __future__ import annotations

from decimal import Decimal

from operators.events import EventKind
from operators.venues.kraken import DEFAULT_DEPTH, Kraken
from schemas.frames import FrameKind
from tests.captures import TestFrame
from tests.decoded import Group, Print, Quote, decode, events, examples, http, letters

PAIRS_URL = "https://api.kraken.com/0/public/AssetPairs"
(PAIRS,) = examples(Kraken._http)
(ACKNOWLEDGED,) = examples(Kraken._event)
(SUBSCRIBE,) = examples(Kraken._sent)
SNAPSHOT, UPDATE = examples(Kraken._book)
(TRADE,) = examples(Kraken._trade)
(TICKER,) = examples(Kraken._ticker)
(SPREAD,) = examples(Kraken._spread)


def depth(*items: str | TestFrame) -> int:
    """Levels per side of the first instrument."""
    return int(decode("KRAKEN", *items).events.instruments.rows["max_levels"][0])


def test_snapshot_has_the_time_of_its_newest_level() -> None:
    assert events("KRAKEN", SNAPSHOT) == [
        Group(
            "XBT/USD",
            1_534_614_248_765_567_000,
            None,
            [(Decimal("5541.2"), Decimal("1.529"))],
            [(Decimal("5541.3"), Decimal("2.507"))],
            [],
            snapshot=True,
        )
    ]


def test_update_in_two_parts_is_one_group_with_a_checksum() -> None:
    decoded = decode("KRAKEN", UPDATE)
    assert letters(decoded) == []
    end = decoded.events.rows[-1]
    assert end["kind"] == EventKind.END
    assert (end["count"], end["size"]) == (1, 974_942_666)
    assert events("KRAKEN", UPDATE) == [
        Group(
            "XBT/USD",
            1_534_614_335_345_903_000,
            None,
            [(Decimal("5541.3"), Decimal(0))],
            [(Decimal("5541.3"), Decimal("2.507")), (Decimal("5542.5"), Decimal("0.401"))],
            [],
        )
    ]


def test_trailing_zeros_are_kept_for_the_checksum() -> None:
    rows = decode("KRAKEN", SNAPSHOT).events.rows
    levels = rows[rows["kind"] == EventKind.LEVEL]
    assert levels["price_scale"].tolist() == [5, 5]
    assert levels["size_scale"].tolist() == [8, 8]


def test_an_empty_part_is_nothing() -> None:
    assert events("KRAKEN", SNAPSHOT.replace('},"book-10"', '},null,"book-10"')) == events(
        "KRAKEN", SNAPSHOT
    )


def test_depth_is_that_of_the_subscription() -> None:
    assert depth(SNAPSHOT) == 10
    assert depth(SNAPSHOT.replace("book-10", "book-100")) == 100
    assert depth(ACKNOWLEDGED, TICKER.replace("XBT/USD", "WAVES/EUR")) == 1000
    sent = TestFrame(SUBSCRIBE, FrameKind.SENT)
    assert depth(sent, TICKER.replace("XBT/USD", "XMR/USD")) == 1000
    assert depth(TICKER) == DEFAULT_DEPTH
    assert depth(TestFrame("not JSON", FrameKind.SENT), TICKER) == DEFAULT_DEPTH


def test_trade() -> None:
    expected = Print(
        "XBT/USD",
        1_534_614_057_321_597_000,
        Decimal("5541.2"),
        Decimal("0.15850568"),
        "sell",
        None,
    )
    assert events("KRAKEN", TRADE) == [expected]
    assert events("KRAKEN", TRADE.replace('"s"', '"b"')) == [expected._replace(aggressor="buy")]


def test_ticker_and_spread() -> None:
    assert events("KRAKEN", TICKER) == [
        Quote("XBT/USD", 0, (Decimal("5525.1"), Decimal(1)), (Decimal("5525.4"), Decimal(1)))
    ]
    assert events("KRAKEN", SPREAD) == [
        Quote(
            "XBT/USD",
            1_542_057_299_545_897_000,
            (Decimal("5698.4"), Decimal("1.01234567")),
            (Decimal("5700"), Decimal("0.98765432")),
        )
    ]
    nothing = '[545,["0.000000000","0.000000000","0.000000","0.0","0.0"],"spread","LINK/ETH"]'
    assert events("KRAKEN", nothing) == []


def test_instrument_row_at_its_first_message() -> None:
    decoded = decode("KRAKEN", http(PAIRS_URL, PAIRS), SNAPSHOT, SNAPSHOT)
    (row,) = decoded.events.tables["instruments"].to_pylist()
    assert (row["price_increment"], row["size_increment"]) == (Decimal("0.1"), Decimal("1E-8"))
    assert row["status"] == "open"
    old = PAIRS.replace('"tick_size":"0.1",', "")
    assert "tick_size" in PAIRS and "tick_size" not in old.replace("\n", "").replace(" ", "")
    (row,) = (
        decode("KRAKEN", http(PAIRS_URL, old), SNAPSHOT).events.tables["instruments"].to_pylist()
    )
    assert row["price_increment"] == Decimal("0.1")


def test_silent() -> None:
    silent = [
        '{"event":"heartbeat"}',
        '{"connectionID":18239578009413566319,"event":"systemStatus","status":"online",'
        '"version":"1.8.3"}',
        ACKNOWLEDGED,
        '[42,["1542057314.748456","1542057360.435743","3586.7"],"ohlc-5","XBT/USD"]',
    ]
    assert events("KRAKEN", *silent) == []


def test_refused() -> None:
    bad = [
        '{"event":"subscriptionStatus","status":"error","pair":"XBT/USDD",'
        '"errorMessage":"Currency pair not supported"}',
        '{"event":"fork"}',
        TRADE.replace('"trade"', '"openOrders"'),
        "[1,2,3]",
        TRADE.replace('"s"', '"?"'),
        TRADE.replace('"1534614057.321597"', '"now"'),
        SNAPSHOT.replace(',"1534614248.123678"', ""),
        SPREAD.replace(',"1.01234567"', ""),
        SNAPSHOT.replace("5541.30000", "5541,3"),
    ]
    found = [letters(decode("KRAKEN", message))[0] for message in bad]
    assert found[0][1] == "event 'subscriptionStatus' Currency pair not supported"
    assert [reason for reason, _ in found] == [
        "unknown_message",
        "unknown_message",
        "unknown_message",
        "malformed",
        "bad_side",
        "bad_timestamp",
        "malformed",
        "malformed",
        "bad_price",
    ]
