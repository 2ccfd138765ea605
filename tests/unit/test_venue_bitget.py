"""Bitget v1: the handlers' examples row by row, and what is refused."""

from __future__ import annotations

import json
from decimal import Decimal

from operators.events import EventKind
from operators.venues.bitget import Bitget
from tests.captures import TestFrame
from tests.decoded import Group, Print, decode, events, examples, http, letters, plain

PRODUCTS_URL = "https://api.bitget.com/api/spot/v1/public/products"
CONTRACTS_URL = "https://api.bitget.com/api/mix/v1/market/contracts?productType=umcbl"
PRODUCTS, CONTRACTS = examples(Bitget._http)
(UPDATE,) = examples(Bitget._book)
(TRADE,) = examples(Bitget._trade)
(TICKER,) = examples(Bitget._ticker)


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
