"""OKX v5 and v3: the handlers' examples row by row, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from marketflow.operators.events import EventKind
from marketflow.operators.venues.okx.v5 import Okx
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

INSTRUMENTS_URL = "https://www.okx.com/api/v5/public/instruments?instType=SWAP"
(INSTRUMENTS,) = examples(Okx._http)
(UPDATE,) = examples(Okx._book)
(BBO,) = examples(Okx._bbo)
(TRADE,) = examples(Okx._trade)
(TICKER,) = examples(Okx._ticker)
(FUNDING,) = examples(Okx._funding)
(MARK,) = examples(Okx._value)
(OLD_DEPTH,) = examples(Okx._depth)
(OLD_TRADE,) = examples(Okx._old_trade)
(OLD_TICKER,) = examples(Okx._old_ticker)
(OLD_FUNDING,) = examples(Okx._funding_rate)
(OLD_MARK,) = examples(Okx._mark_price)


def checksum(message: str) -> int | None:
    end = decode("OKX", message).events.rows[-1]
    assert end["kind"] == EventKind.END
    return int(end["size"]) if end["count"] else None


def passing(table: str, *messages: str) -> list[tuple[object, ...]]:
    """Values that are told, without times of arrival."""
    decoded = decode("OKX", *messages)
    assert letters(decoded) == []
    batch = decoded.events.tables[table].drop_columns(["instrument", "ts_event", "ts_recv"])
    return [tuple(v for v in row.values() if v is not None) for row in batch.to_pylist()]


def test_update() -> None:
    expected = Group(
        "BTC-USDT",
        1_652_459_225_453_000_000,
        123_456,
        [(Decimal("30177.8"), Decimal("0.649"))],
        [(Decimal("30243.5"), Decimal("1.2112"))],
        [],
        previous=123_455,
        counts=(1, 4),
    )
    assert events("OKX", UPDATE) == [expected]
    snapshot = UPDATE.replace('"update"', '"snapshot"')
    assert events("OKX", snapshot) == [expected._replace(snapshot=True)]


def test_without_numbers_there_is_no_chain() -> None:
    (group,) = events("OKX", UPDATE.replace(',"prevSeqId":123455,"seqId":123456', ""))
    assert isinstance(group, Group) and (group.last, group.previous) == (None, None)


def test_checksum_is_signed_and_0_says_nothing() -> None:
    assert checksum(UPDATE) == -652_563_973
    assert checksum(UPDATE.replace("-652563973", "0")) is None
    assert checksum(OLD_DEPTH) == 1_684_272_782


def test_first_channel_keeps_the_book() -> None:
    five = UPDATE.replace('"books"', '"books5"').replace('"action":"update",', "")
    assert [e.snapshot for e in events("OKX", five) if isinstance(e, Group)] == [True]
    assert len(events("OKX", UPDATE, five, UPDATE)) == 2
    other = five.replace("BTC-USDT", "ETH-USDT")
    assert len(events("OKX", UPDATE, other)) == 2


def test_bbo_is_a_quote() -> None:
    expected = Quote(
        "BTC-USDT-SWAP",
        1_651_761_120_004_000_000,
        (Decimal("38632.3"), Decimal(990)),
        (Decimal("38632.4"), Decimal(727)),
        363_996_337,
    )
    assert events("OKX", BBO) == [expected]
    no_asks = BBO.replace('[["38632.4","727","0","22"]]', "[]")
    assert events("OKX", no_asks) == [expected._replace(ask=None)]


def test_trade() -> None:
    expected = Print(
        "BTC-USDT",
        1_652_459_224_818_000_000,
        Decimal(30236),
        Decimal("0.0002"),
        "buy",
        "338476307",
    )
    assert events("OKX", TRADE) == [expected]
    assert events("OKX", TRADE.replace('"trades"', '"trades-all"')) == [expected]


def test_ticker() -> None:
    expected = Quote(
        "BTC-USDT",
        1_652_459_224_956_000_000,
        (Decimal("30228.6"), Decimal("0.23393")),
        (Decimal("30228.7"), Decimal("1.55896972")),
    )
    assert events("OKX", TICKER) == [expected]
    no_bid = TICKER.replace('"bidPx":"30228.6"', '"bidPx":""')
    assert events("OKX", no_bid) == [expected._replace(bid=None)]


def test_funding_and_values() -> None:
    (row,) = passing("funding", FUNDING)
    assert row[0] == Decimal("0.00048105")
    assert passing("statistics", MARK) == [("mark_price", Decimal("2.1729"))]
    interest = MARK.replace("mark-price", "open-interest").replace("markPx", "oi")
    assert passing("statistics", interest) == [("open_interest", Decimal("2.1729"))]
    index = MARK.replace("mark-price", "index-tickers").replace("markPx", "idxPx")
    assert passing("statistics", index) == [("index_price", Decimal("2.1729"))]


def test_instrument_row_at_its_first_message() -> None:
    swap = TRADE.replace("BTC-USDT", "BTC-USD-SWAP")
    decoded = decode("OKX", http(INSTRUMENTS_URL, INSTRUMENTS), swap, swap)
    (row,) = decoded.events.tables["instruments"].to_pylist()
    assert (row["price_increment"], row["size_increment"]) == (Decimal("0.1"), Decimal(1))
    assert (row["contract_multiplier"], row["is_inverse"]) == (Decimal(100), True)
    assert (row["base_currency"], row["settlement_currency"]) == (None, "BTC")
    assert row["status"] == "open"


def test_v3() -> None:
    assert events("OKX", OLD_DEPTH) == [
        Group(
            "XRP-USD-SWAP",
            1_564_617_608_930_000_000,
            None,
            [(Decimal("0.3196"), Decimal(1646))],
            [(Decimal("0.3198"), Decimal(264))],
            [],
            counts=(14, 5),
        )
    ]
    plain_numbers = OLD_DEPTH.replace('["0.3198","264","0","5"]', "[0.3198,264,0,5]")
    assert events("OKX", plain_numbers) == events("OKX", OLD_DEPTH)
    trade = Print(
        "BCH-USDT",
        1_564_617_608_806_000_000,
        Decimal("328.74"),
        Decimal("0.12"),
        "sell",
        "423886239",
    )
    assert events("OKX", OLD_TRADE) == [trade]
    assert events("OKX", OLD_TRADE.replace('"size"', '"qty"')) == [trade]
    assert events("OKX", OLD_TICKER) == [
        Quote(
            "EOS-USDT",
            1_577_836_798_352_000_000,
            (Decimal("2.584"), Decimal("1574.0289")),
            (Decimal("2.585"), Decimal("849.6017")),
        )
    ]
    ((rate, _),) = passing("funding", OLD_FUNDING)
    assert rate == Decimal("0.00023534")
    assert passing("statistics", OLD_MARK) == [("mark_price", Decimal("329.3"))]


def test_v3_ticker_without_sizes_is_statistics() -> None:
    old = OLD_TICKER.replace("best_bid_size", "x").replace("best_ask_size", "y")
    assert list(plain(decode("OKX", old).events)) == []
    assert passing("statistics", old) == [
        ("best_bid", Decimal("2.584")),
        ("best_ask", Decimal("2.585")),
    ]


@pytest.mark.parametrize(
    "message",
    [
        "pong",
        '{"event":"subscribe","arg":{"channel":"tickers","instId":"BTC-USDT"}}',
        '{"arg":{"channel":"candle1D","instId":"BTC-USDT"},"data":[]}',
        '{"table":"spot/candle60s","data":[]}',
    ],
)
def test_silent(message: str) -> None:
    assert events("OKX", message) == []


def test_refused() -> None:
    bad = [
        '{"event":"error","msg":"Invalid request","code":"60012"}',
        '{"arg":{"channel":"grid-orders","instId":"BTC-USDT"},"data":[]}',
        '{"table":"spot/margin_account","data":[]}',
        "{}",
        TRADE.replace('"buy"', '"?"'),
        OLD_TRADE.replace('"sell"', '"?"'),
        OLD_TRADE.replace('"size":"0.12",', ""),
        UPDATE.replace('"1652459225453"', '""'),
        UPDATE.replace('"0.649"', '"-0.649"'),
        UPDATE.replace(',"0","1"]', "]"),
    ]
    assert letters(decode("OKX", bad[0])) == [("unknown_message", "event 'error' Invalid request")]
    assert [letters(decode("OKX", message))[0][0] for message in bad] == [
        "unknown_message",
        "unknown_message",
        "unknown_message",
        "unknown_message",
        "bad_side",
        "bad_side",
        "bad_size",
        "bad_timestamp",
        "negative_size",
        "malformed",
    ]
