"""Bybit v5: the handlers' examples row by row, and what is refused."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal

from marketflow.operators.venues.bybit import Bybit
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, frames
from tests.support.decoded import (
    Group,
    Print,
    Quote,
    decode,
    events,
    examples,
    feed,
    http,
    letters,
    plain,
)

INSTRUMENTS_URL = "https://api.bybit.com/v5/market/instruments-info?&category=linear&limit=1000"
LINEAR = TestFrame("", FrameKind.CONNECT, note="wss://stream.bybit.com/v5/public/linear")
(INSTRUMENTS,) = examples(Bybit._http)
(DELTA,) = examples(Bybit._orderbook)
(TRADE,) = examples(Bybit._trade)
(LIQUIDATION,) = examples(Bybit._liquidations)
TICKER, TICKER_DELTA = examples(Bybit._ticker)


def top(u: int, kind: str, bids: list[list[str]], asks: list[list[str]]) -> str:
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": u, "seq": 1}
    return json.dumps({"topic": "orderbook.1.BTCUSDT", "type": kind, "ts": 5, "data": data})


def passing(table: str, *items: str | TestFrame) -> list[dict[str, object]]:
    batch = decode("BYBIT", *items).events.tables[table]
    return batch.drop_columns(["instrument", "ts_event", "ts_recv"]).to_pylist()


def test_delta() -> None:
    expected = Group(
        "BTCUSDT",
        1_786_310_818_129_000_000,
        15_076_953,
        [(Decimal("65095.3"), Decimal("0.005"))],
        [(Decimal("65116.6"), Decimal(0))],
        [],
    )
    assert events("BYBIT", DELTA) == [expected]
    snapshot = DELTA.replace('"delta"', '"snapshot"')
    assert events("BYBIT", snapshot) == [expected._replace(snapshot=True)]
    restart = DELTA.replace("15076953", "1")
    assert events("BYBIT", restart) == [expected._replace(last=1, snapshot=True)]


def test_without_the_engine_time_the_senders_counts() -> None:
    old = json.loads(DELTA)
    del old["cts"]
    (group,) = events("BYBIT", json.dumps(old))
    assert isinstance(group, Group) and group.ts_event == 1_786_310_818_130_000_000


def test_market_of_a_connection() -> None:
    spot = TestFrame(DELTA, connection="spot")
    decoded = decode(
        "BYBIT",
        LINEAR,
        LINEAR._replace(connection="spot", note="wss://stream.bybit.com/v5/public/spot"),
        LINEAR._replace(connection="inverse", note="wss://stream.bybit.com/v5/public/inverse/?a=b"),
        DELTA,
        spot,
        spot._replace(connection="inverse"),
        spot._replace(connection="unknown"),
    )
    assert decoded.events.instruments.venues == ("BYBIT_LINEAR", "BYBIT", "BYBIT_INVERSE")
    assert decoded.events.instruments.symbols == ("BTCUSDT",) * 3


def test_first_depth_keeps_the_book() -> None:
    other = DELTA.replace("orderbook.200", "orderbook.50")
    assert len(events("BYBIT", DELTA, other, DELTA)) == 2
    reconnected = TestFrame("", FrameKind.DISCONNECT)
    found = events("BYBIT", DELTA, reconnected, other, DELTA)
    assert [event.symbol for event in found if isinstance(event, Group)] == ["BTCUSDT"] * 2
    elsewhere = TestFrame("", FrameKind.CONNECT, connection="other", note="wss://h/v5/public/spot")
    assert len(events("BYBIT", DELTA, elsewhere, other)) == 1


def test_depth_1_is_a_quote() -> None:
    found = events(
        "BYBIT",
        top(7, "snapshot", [["27994.60", "0.047"]], [["27994.80", "25.4"]]),
        top(8, "delta", [["27994.60", "0.012"]], []),
        top(9, "delta", [["27994.60", "0"], ["27991.70", "0.777"]], [["27994.80", "0"]]),
        top(10, "snapshot", [], [["1", "2"]]),
    )
    bid = Decimal("27994.6")
    ask = (Decimal("27994.8"), Decimal("25.4"))
    assert found == [
        Quote("BTCUSDT", 5_000_000, (bid, Decimal("0.047")), ask, 7),
        Quote("BTCUSDT", 5_000_000, (bid, Decimal("0.012")), ask, 8),
        Quote("BTCUSDT", 5_000_000, (Decimal("27991.7"), Decimal("0.777")), None, 9),
        Quote("BTCUSDT", 5_000_000, None, (Decimal(1), Decimal(2)), 10),
    ]


def test_trade() -> None:
    expected = Print(
        "BTCUSDT",
        1_786_310_819_680_000_000,
        Decimal("65114.2"),
        Decimal("0.004"),
        "sell",
        "a9188a0a-82bc-50de-be60-03eedbe3cdd7",
        753_843_919_382,
    )
    assert events("BYBIT", TRADE) == [expected]
    number = TRADE.replace("a9188a0a-82bc-50de-be60-03eedbe3cdd7", "2290000001189048101")
    assert events("BYBIT", number) == [expected._replace(trade_id="2290000001189048101")]


def test_ticker() -> None:
    assert events("BYBIT", LINEAR, TICKER)[-1] == Quote(
        "BTCUSDT",
        1_786_310_817_883_000_000,
        (Decimal("65114.2"), Decimal("5.954")),
        (Decimal("65114.3"), Decimal("10.47")),
    )
    (funding,) = passing("funding", LINEAR, TICKER)
    assert (funding["rate"], funding["mark_price"], funding["index_price"]) == (
        Decimal("0.0001"),
        Decimal("65117.44"),
        Decimal("65137.76"),
    )
    assert passing("statistics", LINEAR, TICKER) == [
        {"kind": "open_interest", "value": Decimal("59891.732"), "text": None, "sequence": None}
    ]


def test_a_ticker_delta_is_put_onto_what_is_known() -> None:
    delta = TICKER_DELTA.replace("DOGEUSDT", "BTCUSDT")
    decoded = decode("BYBIT", LINEAR, TICKER, delta)
    assert list(plain(decoded.events))[-1] == Quote(
        "BTCUSDT",
        1_786_310_819_234_000_000,
        (Decimal("65114.2"), Decimal("5.954")),
        (Decimal("0.07054"), Decimal(15919)),
    )
    assert decoded.events.tables["funding"].num_rows == 1
    rate = delta.replace('"ask1Price":"0.07054","ask1Size":"15919"', '"fundingRate":"0.0002"')
    _, funding = passing("funding", LINEAR, TICKER, rate)
    assert (funding["rate"], funding["mark_price"]) == (Decimal("0.0002"), Decimal("65117.44"))
    again = TICKER.replace('"markPrice":"65117.44",', "")
    _, funding = passing("funding", LINEAR, TICKER, again)
    assert funding["mark_price"] is None


def test_a_ticker_of_a_dated_contract_has_no_funding_rate() -> None:
    dated = TICKER.replace('"0.0001"', '""').replace('"1786320000000"', '""')
    (funding,) = passing("funding", LINEAR, dated)
    assert (funding["rate"], funding["ts_next"]) == (None, None)


def test_a_ticker_of_spot_has_nothing() -> None:
    decoded = decode("BYBIT", TICKER)
    assert len(decoded.events.rows) == 0 and decoded.events.tables == {}


def test_instrument_row_at_its_first_message() -> None:
    trade = TRADE.replace("BTCUSDT", "0GUSDT")
    (row,) = passing("instruments", http(INSTRUMENTS_URL, INSTRUMENTS), LINEAR, trade, trade)
    assert (row["price_increment"], row["size_increment"]) == (Decimal("0.0001"), Decimal("0.1"))
    assert (row["is_inverse"], row["status"]) == (False, "open")


def test_state_survives_a_snapshot() -> None:
    whole = feed("BYBIT")
    whole.apply(frames([LINEAR, TICKER]))
    resumed = feed("BYBIT")
    resumed.restore(pickle.loads(pickle.dumps(whole.snapshot())))
    then = frames([TICKER_DELTA.replace("DOGEUSDT", "BTCUSDT"), TRADE])
    assert list(plain(resumed.apply(then).events)) == list(plain(whole.apply(then).events))


def test_liquidations_have_the_side_of_the_order() -> None:
    old = (
        '{"data":{"price":"0.03803","side":"Buy","size":"1637","symbol":"GALAUSDT",'
        '"updatedTime":1673251091822},"topic":"liquidation.GALAUSDT","ts":1673251091822,'
        '"type":"snapshot"}'
    )
    rows = passing("statistics", LIQUIDATION, old)
    assert [(row["kind"], row["value"], row["text"]) for row in rows] == [
        ("liquidation_buy", Decimal(2846), "price 0.02456"),
        ("liquidation_sell", Decimal(1637), "price 0.03803"),
    ]


def test_silent() -> None:
    silent = [
        '{"success":true,"ret_msg":"","conn_id":"d8bu1olkndm7crnfs1e0-j6akw","op":"subscribe"}',
        '{"success":true,"ret_msg":"pong","conn_id":"1","op":"ping"}',
        '{"topic":"kline.1.BTCUSDT","data":[],"ts":1,"type":"snapshot"}',
    ]
    assert events("BYBIT", *silent) == []


def test_refused() -> None:
    bad = [
        '{"success":false,"ret_msg":"error:handler not found","op":"subscribe"}',
        "{}",
        '{"topic":"orderBookL2_25.BTCUSD","type":"snapshot","data":[],"timestamp_e6":1}',
        TRADE.replace('"Sell"', '"?"'),
        TRADE.replace('"65114.20"', '""'),
        DELTA.replace('"65095.30"', '"1,5"'),
        DELTA.replace('"u":15076953', '"u":"x"'),
        DELTA.replace("15076953", "9223372036854775808"),
        LIQUIDATION.replace('"Sell"', '"?"'),
        TICKER.replace('"0.0001"', '"low"'),
    ]
    items = [[message] for message in bad]
    items[-1] = [LINEAR, bad[-1]]
    assert [letters(decode("BYBIT", *item))[0][0] for item in items] == [
        "unknown_message",
        "unknown_message",
        "unknown_message",
        "bad_side",
        "bad_price",
        "bad_price",
        "malformed",
        "out_of_range",
        "bad_side",
        "bad_price",
    ]
