"""Bitget v1, v2 and v3: the handlers' examples row by row, and what is refused."""

from __future__ import annotations

import json
import zlib
from decimal import Decimal

import numpy as np
import pytest

from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.events import EventKind
from marketflow.operators.venues.bitget.decoder import Bitget
from marketflow.schemas.units import NS_PER_MS
from tests.support.captures import TestFrame
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

PRODUCTS_URL = "https://api.bitget.com/api/spot/v1/public/products"
CONTRACTS_URL = "https://api.bitget.com/api/mix/v1/market/contracts?productType=umcbl"
PRODUCTS, CONTRACTS, SYMBOLS_2, CONTRACTS_2, INSTRUMENTS_3 = examples(Bitget._http)
UPDATE, BOOK_2, BOOK_3 = examples(Bitget._book)
TRADE, TRADE_2, TRADE_3 = examples(Bitget._trade)
TICKER, TICKER_2, TICKER_3 = examples(Bitget._ticker)


def venue_of(message: str) -> str:
    return decode("BITGET", message).events.instruments.venues[0]


def trades(action: str, *times: int) -> str:
    message = json.loads(TRADE)
    message["action"] = action
    message["data"] = [[str(t), "0.5555", "1", "buy"] for t in times]
    return json.dumps(message)


def trade_times_ms(*items: str) -> list[int]:
    return [e.ts_event // 1_000_000 for e in events("BITGET", *items) if isinstance(e, Print)]


def passing(table: str, *items: str | TestFrame) -> list[dict[str, object]]:
    batch = decode("BITGET", *items).events.tables[table]
    return batch.drop_columns(["instrument", "ts_event", "ts_recv"]).to_pylist()


def test_update() -> None:
    expected = Group(
        "CULTUSDT",
        1_649_290_077_611_000_000,
        None,
        [(Decimal("0.00003395"), Decimal(440000))],
        [(Decimal("0.00003614"), Decimal(600000))],
        [],
    )
    assert events("BITGET", UPDATE) == [expected]
    snapshot = UPDATE.replace('"update"', '"snapshot"')
    assert events("BITGET", snapshot) == [expected._replace(snapshot=True)]
    end = decode("BITGET", UPDATE).events.rows[-1]
    assert (end["kind"], end["count"], end["size"]) == (EventKind.END, 1, -1_816_604_544)


def test_market_of_an_instrument() -> None:
    assert venue_of(UPDATE) == venue_of(UPDATE.replace('"sp"', '"SP"')) == "BITGET"
    assert venue_of(UPDATE.replace('"sp"', '"mc"')) == "BITGET_MIX"


def test_first_channel_keeps_the_book() -> None:
    five = UPDATE.replace('"books"', '"books5"')
    assert [e.snapshot for e in events("BITGET", five) if isinstance(e, Group)] == [True]
    assert len(events("BITGET", UPDATE, five)) == 1


def test_trade() -> None:
    assert events("BITGET", TRADE) == [
        Print(
            "GOGUSDT",
            1_649_290_078_140_000_000,
            Decimal("0.5555"),
            Decimal("18.3496"),
            "buy",
            None,
        )
    ]


def test_trades_come_in_order_of_time_and_history_only_after_a_reconnect() -> None:
    assert trade_times_ms(trades("update", 3, 2, 1)) == [1, 2, 3]
    assert trade_times_ms(trades("snapshot", 3, 2), trades("update", 4)) == [4]
    again = trades("snapshot", 6, 5, 4, 3)
    assert trade_times_ms(trades("snapshot", 3, 2), trades("update", 4), again) == [4, 5, 6]


def test_ticker_is_statistics_and_funding() -> None:
    assert list(plain(decode("BITGET", TICKER).events)) == []
    statistics = {row["kind"]: row["value"] for row in passing("statistics", TICKER)}
    assert statistics == {
        "best_bid": Decimal("113.36"),
        "best_ask": Decimal("113.41"),
        "open_interest": Decimal("21957.17"),
    }
    (funding,) = passing("funding", TICKER)
    assert (funding["rate"], funding["mark_price"], funding["index_price"]) == (
        Decimal("-0.0001"),
        Decimal("113.381"),
        Decimal("113.427"),
    )
    spot = (
        '{"action":"snapshot","arg":{"instType":"sp","channel":"ticker","instId":"CULTUSDT"},'
        '"data":[{"instId":"CULTUSDT","last":"0.00003511","bestBid":"0.000036",'
        '"bestAsk":"0.000036","ts":1649290076193,"labeId":0}]}'
    )
    batch = decode("BITGET", spot).events
    assert set(batch.tables) == {"statistics"}


def test_instrument_rows_at_their_first_message() -> None:
    spot = UPDATE.replace("CULTUSDT", "EOSUSDT")
    (row,) = passing("instruments", http(PRODUCTS_URL, PRODUCTS), spot, spot)
    assert (row["price_increment"], row["size_increment"]) == (
        Decimal("0.0001"),
        Decimal("0.0001"),
    )
    assert (row["base_currency"], row["status"]) == ("EOS", "open")
    mix = UPDATE.replace("CULTUSDT", "BTCUSDT").replace('"sp"', '"mc"')
    (row,) = passing("instruments", http(CONTRACTS_URL, CONTRACTS), mix)
    assert (row["price_increment"], row["size_increment"]) == (Decimal("0.5"), Decimal("0.001"))
    assert (row["is_inverse"], row["settlement_currency"]) == (False, "USDT")


def test_silent() -> None:
    silent = [
        "pong",
        '{"event":"subscribe","arg":{"instType":"sp","channel":"books","instId":"CULTUSDT"}}',
        '{"action":"update","arg":{"instType":"sp","channel":"candle1m","instId":"A"},"data":[]}',
    ]
    assert events("BITGET", *silent) == []


def test_refused() -> None:
    bad = [
        '{"event":"error","code":30001,"msg":"instType:sp,channel:nothing doesn\'t exist"}',
        UPDATE.replace('"sp"', '"xx"'),
        UPDATE.replace('"books"', '"orders"'),
        TRADE.replace('"buy"', '"long"'),
        TRADE.replace(',"buy"', ""),
        UPDATE.replace('"1649290077611"', '"-1"'),
        UPDATE.replace('"600000"', '"many"'),
    ]
    assert [letters(decode("BITGET", message))[0][0] for message in bad] == [
        "unknown_message",
        "unknown_instrument",
        "unknown_message",
        "bad_side",
        "malformed",
        "bad_timestamp",
        "bad_size",
    ]


def changed(message: str, **values: object) -> str:
    """The message with other values in its ``arg`` (channel, topic ...) and beside it."""
    found = json.loads(message)
    for name, value in values.items():
        (found["arg"] if name in found["arg"] else found)[name] = value
    return json.dumps(found)


@pytest.mark.parametrize(
    ("market", "venue"),
    [
        ("SPOT", "BITGET"),
        ("USDT-FUTURES", "BITGET_USDT_FUTURES"),
        ("COIN-FUTURES", "BITGET_COIN_FUTURES"),
        ("USDC-FUTURES", "BITGET_USDC_FUTURES"),
    ],
)
@pytest.mark.parametrize("message", [BOOK_2, TRADE_2, TICKER_2, BOOK_3, TRADE_3, TICKER_3])
def test_a_venue_is_one_market(message: str, market: str, venue: str) -> None:
    assert venue_of(changed(message, instType=market)) == venue
    assert venue_of(changed(message, instType=market.lower())) == venue


@pytest.mark.parametrize("channel", ["books", "books1", "books5", "books15"])
def test_books_of_v2(channel: str) -> None:
    message = changed(BOOK_2, channel=channel)
    assert events("BITGET", message) == [
        Group(
            "BTCUSDT",
            1_695_710_946_294 * NS_PER_MS,
            123,
            [(Decimal("26274.8"), Decimal("0.0009")), (Decimal("26274.7"), Decimal("0.0027"))],
            [(Decimal("26274.9"), Decimal("0.0009")), (Decimal("26275.0"), Decimal("0.0500"))],
            [],
            snapshot=True,
        )
    ]
    update = changed(message, action="update")
    # Of one, five and fifteen levels every message is the whole book.
    assert [e.snapshot for e in events("BITGET", update) if isinstance(e, Group)] == [
        channel != "books"
    ]


@pytest.mark.parametrize("topic", ["books", "books1", "books5", "books50"])
def test_books_of_v3(topic: str) -> None:
    assert events("BITGET", changed(BOOK_3, topic=topic)) == [
        Group(
            "BTCUSDT",
            1_746_698_732_562 * NS_PER_MS,
            1_304_314_508_780_744_705,
            [(Decimal("99756.6"), Decimal("0.0128"))],
            [(Decimal("99756.7"), Decimal("23.9774"))],
            [],
            snapshot=True,
        )
    ]


def test_sequences_may_be_text() -> None:
    text = BOOK_3.replace('"pseq":0', '"pseq":"7"').replace(
        '"seq":1304314508780744705', '"seq":"9"'
    )
    (group,) = events("BITGET", text)
    assert isinstance(group, Group) and (group.previous, group.last) == (7, 9)
    refused = decode("BITGET", text.replace('"seq":"9"', '"seq":"nine"'))
    assert letters(refused)[0][0] == "malformed"


def test_trades_of_v2_and_v3() -> None:
    assert events("BITGET", TRADE_2, TRADE_3) == [
        Print(
            "BTCUSDT",
            1_701_910_980_366 * NS_PER_MS,
            Decimal("43854.01"),
            Decimal("0.0535"),
            "buy",
            "1116461060594286593",
        ),
        Print(
            "BTCUSDT",
            1_736_348_770_627 * NS_PER_MS,
            Decimal(100000),
            Decimal("0.00118"),
            "buy",
            "1260903622036942849",
        ),
    ]


def trades_3(action: str, *ids: int) -> str:
    """Trades of one millisecond, told apart by their ids alone."""
    message = json.loads(TRADE_3)
    (trade,) = message["data"]
    return json.dumps(message | {"action": action, "data": [trade | {"i": str(i)} for i in ids]})


def test_ids_tell_history_apart_within_a_millisecond() -> None:
    items = (trades_3("snapshot", 9, 8), trades_3("update", 11, 10), trades_3("snapshot", 12, 11))
    prints = [e for e in events("BITGET", *items) if isinstance(e, Print)]
    assert [e.trade_id for e in prints] == ["10", "11", "12"]


def test_tickers_of_v2_and_v3_are_quotes() -> None:
    decoded = decode("BITGET", TICKER_2)
    assert list(plain(decoded.events)) == [
        Quote(
            "BTCUSDT",
            1_701_843_962_811 * NS_PER_MS,
            (Decimal("43476.3"), Decimal("0.1")),
            (Decimal("43476.8"), Decimal("3.055")),
        )
    ]
    (funding,) = passing("funding", TICKER_2)
    assert (funding["rate"], funding["mark_price"]) == (Decimal("0.000096"), Decimal("43476.4"))
    (interest,) = passing("statistics", TICKER_2)
    assert (interest["kind"], interest["value"]) == ("open_interest", Decimal("50670.787"))
    assert events("BITGET", TICKER_3) == [
        Quote(
            "BTCUSDT",
            1_753_230_479_687 * NS_PER_MS,
            (Decimal("119811.26"), Decimal("0.008732")),
            (Decimal("119831.18"), Decimal("0.004297")),
        )
    ]
    assert set(decode("BITGET", TICKER_3).events.tables) == set()


def test_listings_of_v2_and_v3() -> None:
    base = "https://api.bitget.com/api"
    (row,) = passing("instruments", http(f"{base}/v2/spot/public/symbols", SYMBOLS_2), BOOK_2)
    assert (row["price_increment"], row["size_increment"]) == (
        Decimal("0.01"),
        Decimal("0.000001"),
    )
    assert (row["is_inverse"], row["status"]) == (None, "open")
    url = f"{base}/v2/mix/market/contracts?productType=USDT-FUTURES"
    eth = changed(BOOK_2, instType="USDT-FUTURES", instId="ETHUSDT")
    (row,) = passing("instruments", http(url, CONTRACTS_2), eth)
    assert (row["price_increment"], row["settlement_currency"]) == (Decimal("0.01"), "USDT")
    url = f"{base}/v3/market/instruments?category=COIN-FUTURES"
    coin = changed(BOOK_3, instType="coin-futures", symbol="BTCUSD")
    (row,) = passing("instruments", http(url, INSTRUMENTS_3), coin)
    assert (row["price_increment"], row["is_inverse"]) == (Decimal("0.5"), True)


def test_liquidations_are_statistics() -> None:
    (message,) = examples(Bitget._liquidation)
    (row,) = passing("statistics", message)
    assert (row["kind"], row["value"], row["text"]) == (
        "liquidation_sell",
        Decimal("37.722858"),
        "price 89000",
    )
    silent = changed(TICKER_3, topic="kline")
    assert events("BITGET", silent, silent.replace('"action"', '"event":"subscribe","a"')) == []


Levels = list[list[str]]


def crc(bids: Levels, asks: Levels) -> int:
    """The documented checksum of sides of equal length."""
    text = ":".join(":".join(level) for pair in zip(bids, asks, strict=True) for level in pair)
    return int(np.int32(np.uint32(zlib.crc32(text.encode()))))


def book(
    api: int, action: str, seq: int, bids: Levels, asks: Levels, pseq: int = 0,
    checksum: int | None = None,
) -> str:  # fmt: skip
    """A message of the channel ``books``."""
    ts = str(1_600_000_000_000 + seq)  # as they arrive
    if api == 2:
        arg = {"instType": "USDT-FUTURES", "channel": "books", "instId": "BTCUSDT"}
        data: dict[str, object] = {"bids": bids, "asks": asks, "seq": seq, "ts": ts}
    else:
        arg = {"instType": "usdt-futures", "topic": "books", "symbol": "BTCUSDT"}
        data = {"b": bids, "a": asks, "seq": seq, "pseq": pseq, "ts": ts}
    if checksum is not None:
        data["checksum"] = checksum
    return json.dumps({"action": action, "arg": arg, "data": [data], "ts": int(ts)})


def kept(*items: str) -> tuple[dict[str, int], list[tuple[str, int | None, int | None]]]:
    """(checksums, quality events but late ones) of the messages through their book."""
    shard = BookShard(0, BookConfig(tables=frozenset({"quality_events"})))
    rows = shard.apply(decode("BITGET", *items).events)
    found = rows.tables["quality_events"].to_pylist() if "quality_events" in rows.tables else []
    quality = [(row["kind"], row["sequence_from"], row["sequence_to"]) for row in found]
    stats = {name: rows.stats.get(name, 0) for name in ("checksums_verified", "checksums_failed")}
    return stats, [event for event in quality if event[0] != "late"]


BIDS, ASKS = [["99.50", "1.0"], ["99.40", "2"]], [["99.60", "3.10"], ["99.70", "4"]]


@pytest.mark.parametrize("api", [2, 3])
def test_checksums_of_v2_and_v3(api: int) -> None:
    new = [["99.45", "5.0"]]
    after = crc([BIDS[0], new[0]], ASKS)
    items = [
        book(api, "snapshot", 10, BIDS, ASKS, checksum=0),  # 0: none
        book(api, "update", 11, [["99.40", "0"], *new], [], 10, checksum=after),
    ]
    assert kept(*items) == ({"checksums_verified": 1, "checksums_failed": 0}, [])
    bad = book(api, "update", 12, [["99.30", "1"]], [["99.80", "1"]], 11, checksum=7)
    stats, quality = kept(*items, bad)
    assert stats["checksums_failed"] == 1
    assert [kind for kind, *_ in quality] == ["bad_checksum", "stale"]


def test_the_chain_of_v3() -> None:
    """A snapshot lies within the first update behind it; then seq and pseq chain."""
    start = [
        book(3, "snapshot", 10, BIDS, ASKS),
        book(3, "update", 12, [["99.40", "1"]], [], 9),
        book(3, "update", 15, [["99.40", "2"]], [], 12),
    ]
    assert kept(*start)[1] == []
    lost = book(3, "update", 20, [["99.40", "3"]], [], 17)
    assert kept(*start, lost)[1] == [("gap", 16, 17), ("stale", 20, 20)]


def test_a_venue_that_numbers_anew_must_show_its_whole_book() -> None:
    start = [book(3, "snapshot", 10, BIDS, ASKS), book(3, "update", 12, [["99.40", "1"]], [], 10)]
    anew = book(3, "update", 2, [["99.40", "3"]], [], 0)
    _, quality = kept(*start, anew)
    assert "stale" in [kind for kind, *_ in quality]
    whole = [book(3, "snapshot", 3, BIDS, ASKS), book(3, "update", 4, [["99.40", "1"]], [], 3)]
    assert [kind for kind, *_ in kept(*start, anew, *whole)[1]][-1] == "valid"
