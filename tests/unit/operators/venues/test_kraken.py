"""Kraken v1: the handlers' examples row by row, depths, and what is refused."""

from __future__ import annotations

from decimal import Decimal

from marketflow.operators.events import EventKind
from marketflow.operators.venues.kraken.v1 import DEFAULT_DEPTH, Kraken
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame
from tests.support.decoded import Group, Print, Quote, decode, events, examples, http, letters

PAIRS_URL = "https://api.kraken.com/0/public/AssetPairs"
(PAIRS,) = examples(Kraken._http)
(ACKNOWLEDGED,) = examples(Kraken._event)
SUBSCRIBE, SUBSCRIBE_V2 = examples(Kraken._sent)
SNAPSHOT, UPDATE = examples(Kraken._book)
(TRADE,) = examples(Kraken._trade)
(TICKER,) = examples(Kraken._ticker)
(SPREAD,) = examples(Kraken._spread)
(ANSWER_V2,) = examples(Kraken.object)
(UPDATE_V2,) = examples(Kraken._book_v2)
(TRADE_V2,) = examples(Kraken._trade_v2)
(TICKER_V2,) = examples(Kraken._ticker_v2)


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
    sent = TestFrame(SUBSCRIBE_V2, FrameKind.SENT)
    assert depth(sent, TICKER_V2.replace("ALGO/USD", "BTC/USD")) == 25
    assert depth(ANSWER_V2, UPDATE_V2) == 25
    assert depth(TICKER) == depth(UPDATE_V2) == DEFAULT_DEPTH
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


def test_v2_book() -> None:
    expected = Group(
        "MATIC/USD",
        1_696_613_755_440_295_000,
        None,
        [(Decimal("0.5657"), Decimal("1098.3947558"))],
        [],
        [],
    )
    assert events("KRAKEN", UPDATE_V2) == [expected]
    end = decode("KRAKEN", UPDATE_V2).events.rows[-1]
    assert (end["count"], end["size"]) == (1, 2_114_181_697)
    snapshot = UPDATE_V2.replace('"update"', '"snapshot"')
    assert events("KRAKEN", snapshot) == [expected._replace(snapshot=True)]
    zeros = decode("KRAKEN", UPDATE_V2.replace("1098.3947558", "0.10000000")).events.rows
    assert zeros["size_scale"][zeros["kind"] == EventKind.LEVEL].tolist() == [8]


def test_v2_trades_and_their_history() -> None:
    expected = Print(
        "MATIC/USD",
        1_695_628_177_708_706_000,
        Decimal("0.5117"),
        Decimal(40),
        "sell",
        "4665906",
    )
    assert events("KRAKEN", TRADE_V2) == [expected]
    history = TRADE_V2.replace('"update"', '"snapshot"')
    assert events("KRAKEN", history) == events("KRAKEN", history, TRADE_V2) == []
    missed = history.replace("4665906", "4665907")
    assert len(events("KRAKEN", TRADE_V2, missed)) == 2


def test_v2_ticker() -> None:
    expected = Quote(
        "ALGO/USD",
        1_695_632_671_742_648_000,
        (Decimal("0.10025"), Decimal(740)),
        (Decimal("0.10036"), Decimal("1361.44813783")),
    )
    assert events("KRAKEN", TICKER_V2) == [expected]
    no_bid = TICKER_V2.replace("0.10025", "0").replace("740.0", "0")
    assert events("KRAKEN", no_bid) == [expected._replace(bid=None)]
    assert events("KRAKEN", no_bid.replace('"ask":0.10036', '"ask":0.0')) == []


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
        '{"channel":"heartbeat"}',
        '{"channel":"status","type":"update","data":[{"system":"online","api_version":"v2"}]}',
        '{"method":"pong","time_in":"2023-09-24T14:10:23.799685Z"}',
        '[42,["1542057314.748456","1542057360.435743","3586.7"],"ohlc-5","XBT/USD"]',
    ]
    assert events("KRAKEN", *silent) == []


def test_refused() -> None:
    bad = [
        '{"event":"subscriptionStatus","status":"error","pair":"XBT/USDD",'
        '"errorMessage":"Currency pair not supported"}',
        '{"event":"fork"}',
        "{}",
        '{"error":"Currency pair not supported FOO/BAR","method":"subscribe","success":false}',
        '{"channel":"level3","type":"update","data":[]}',
        TRADE_V2.replace('"sell"', '"?"'),
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
        "unknown_message",
        "unknown_message",
        "bad_side",
        "unknown_message",
        "malformed",
        "bad_side",
        "bad_timestamp",
        "malformed",
        "malformed",
        "bad_price",
    ]
