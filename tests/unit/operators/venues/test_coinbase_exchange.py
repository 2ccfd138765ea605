"""Coinbase Exchange: the handlers' examples row by row, and what is refused."""

from __future__ import annotations

from decimal import Decimal

from marketflow.operators.venues.coinbase.exchange import CoinbaseExchange
from tests.support.decoded import (
    Group,
    Print,
    Quote,
    decode,
    events,
    examples,
    http,
    letters,
    plain,
)

PRODUCTS_URL = "https://api.exchange.coinbase.com/products"
(PRODUCTS,) = examples(CoinbaseExchange._http)
(SNAPSHOT,) = examples(CoinbaseExchange._snapshot)
(UPDATE,) = examples(CoinbaseExchange._l2update)
(MATCH,) = examples(CoinbaseExchange._match)
(TICKER,) = examples(CoinbaseExchange._ticker)
(STATUS,) = examples(CoinbaseExchange._status)


def test_snapshot() -> None:
    expected = Group(
        "BAT-USDC",
        0,
        None,
        [(Decimal("0.247175"), Decimal(5299))],
        [(Decimal("0.257175"), Decimal(12))],
        [],
        snapshot=True,
    )
    assert events("COINBASE_EXCHANGE", SNAPSHOT) == [expected]
    timed = SNAPSHOT.replace('"type"', '"time":"2022-08-04T15:25:05.010758Z","type"')
    assert events("COINBASE_EXCHANGE", timed) == [
        expected._replace(ts_event=1_659_626_705_010_758_000)
    ]


def test_update() -> None:
    expected = Group(
        "BTC-EUR",
        1_564_617_603_818_000_000,
        None,
        [],
        [(Decimal("9202.54"), Decimal("0.432"))],
        [],
    )
    assert events("COINBASE_EXCHANGE", UPDATE) == [expected]
    bid = UPDATE.replace('"sell"', '"buy"')
    assert events("COINBASE_EXCHANGE", bid) == [
        expected._replace(bids=expected.asks, asks=expected.bids)
    ]


def test_an_update_of_year_1_has_the_time_of_the_one_before() -> None:
    timeless = UPDATE.replace("2019-08-01T00:00:03.818Z", "0001-01-01T00:00:00.000000Z")
    (alone,) = events("COINBASE_EXCHANGE", timeless)
    _, after = events("COINBASE_EXCHANGE", UPDATE, timeless)
    assert isinstance(alone, Group) and alone.ts_event == 0
    assert isinstance(after, Group) and after.ts_event == 1_564_617_603_818_000_000


def test_match_has_the_side_of_the_taker() -> None:
    expected = Print(
        "ETC-GBP",
        1_564_617_603_816_000_000,
        Decimal("4.978"),
        Decimal("0.97133855"),
        "sell",
        "216544",
        253_395_153,
    )
    assert events("COINBASE_EXCHANGE", MATCH) == [expected]


def test_last_match_counts_only_after_a_reconnect_that_missed_it() -> None:
    last = MATCH.replace('"match"', '"last_match"')
    assert events("COINBASE_EXCHANGE", last) == []
    assert len(events("COINBASE_EXCHANGE", MATCH, last)) == 1
    missed = last.replace("216544", "216550")
    assert len(events("COINBASE_EXCHANGE", MATCH, missed)) == 2


def test_ticker() -> None:
    expected = Quote(
        "BTC-USD",
        1_669_852_800_122_581_000,
        (Decimal("17165.15"), Decimal("0.6154089")),
        (Decimal("17167.76"), Decimal("0.18528568")),
        50_978_628_538,
    )
    assert events("COINBASE_EXCHANGE", TICKER) == [expected]


def test_ticker_without_sizes_is_statistics() -> None:
    old = TICKER.replace("best_bid_size", "bbs").replace("best_ask_size", "bas")
    decoded = decode("COINBASE_EXCHANGE", old)
    assert list(plain(decoded.events)) == []
    rows = decoded.events.tables["statistics"].to_pylist()
    assert [(row["kind"], row["value"]) for row in rows] == [
        ("best_bid", Decimal("17165.15")),
        ("best_ask", Decimal("17167.76")),
    ]


def test_status_and_listing() -> None:
    update = UPDATE.replace("BTC-EUR", "BTC-USD")
    decoded = decode("COINBASE_EXCHANGE", http(PRODUCTS_URL, PRODUCTS), STATUS, update, STATUS)
    (status,) = decoded.events.tables["market_status"].to_pylist()
    assert (status["status"], status["reason"]) == ("open", "online")
    (row,) = decoded.events.tables["instruments"].to_pylist()
    assert (row["price_increment"], row["base_currency"]) == (Decimal("0.01"), "BTC")


def test_silent() -> None:
    silent = [
        '{"type":"subscriptions","channels":[]}',
        '{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD",'
        '"time":"2014-11-07T08:19:28.464459Z"}',
        '{"type":"received"}',
    ]
    assert events("COINBASE_EXCHANGE", *silent) == []


def test_refused() -> None:
    bad = [
        '{"type":"error","message":"Failed to subscribe"}',
        UPDATE.replace('"sell"', '"short"'),
        MATCH.replace('"buy"', '"long"'),
        UPDATE.replace('"0.432"', '"0.-10000"'),
        UPDATE.replace("2019-08-01", "2019-02-30"),
        SNAPSHOT.replace('["0.247175","5299"]', '["0.247175"]'),
        "[]",
    ]
    found = [letters(decode("COINBASE_EXCHANGE", message))[0] for message in bad]
    assert found[0] == ("unknown_message", "type 'error' Failed to subscribe")
    assert [reason for reason, _ in found[1:]] == [
        "bad_side",
        "bad_side",
        "bad_size",
        "bad_timestamp",
        "malformed",
        "malformed",
    ]
