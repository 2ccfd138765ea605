"""Coinbase Advanced Trade: the handlers' examples row by row, the chain, and what is refused."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal

from marketflow.operators.venues.coinbase.advanced import Coinbase
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

PRODUCTS_URL = "https://api.coinbase.com/api/v3/brokerage/market/products"
(PRODUCTS,) = examples(Coinbase._http)
(UPDATE,) = examples(Coinbase._l2_data)
(TRADES,) = examples(Coinbase._market_trades)
(TICKER,) = examples(Coinbase._ticker)
(STATUS,) = examples(Coinbase._status)


def book(sequence: int, product: str = "BTC-USD", kind: str = "update") -> str:
    message = json.loads(UPDATE)
    message["sequence_num"] = sequence
    message["events"][0].update(type=kind, product_id=product)
    return json.dumps(message)


def heartbeat(sequence: int) -> str:
    return json.dumps(
        {"channel": "heartbeats", "timestamp": "", "sequence_num": sequence, "events": []}
    )


def trades(sequence: int, kind: str, *ids: int) -> str:
    message = json.loads(TRADES)
    (trade,) = message["events"][0]["trades"]
    message["sequence_num"] = sequence
    message["events"] = [{"type": kind, "trades": [{**trade, "trade_id": str(i)} for i in ids]}]
    return json.dumps(message)


def previous(*items: str | TestFrame) -> list[tuple[str, int | None, bool]]:
    groups = [e for e in events("COINBASE", *items) if isinstance(e, Group)]
    return [(g.symbol, g.previous, g.snapshot) for g in groups]


def trade_ids(*items: str) -> list[str | None]:
    return [e.trade_id for e in events("COINBASE", *items) if isinstance(e, Print)]


def test_update() -> None:
    assert events("COINBASE", UPDATE) == [
        Group(
            "BTC-USD",
            1_786_309_548_854_000_000,
            36,
            [],
            [(Decimal("65091.5"), Decimal("0.5"))],
            [],
            previous=35,
        )
    ]


def test_update_without_level_times_has_the_time_of_its_message() -> None:
    (group,) = events(
        "COINBASE", UPDATE.replace("2026-08-09T21:05:48.854Z", "1970-01-01T00:00:00Z")
    )
    assert isinstance(group, Group) and group.ts_event == 1_786_309_548_899_000_000


def test_chain_of_a_product_runs_through_the_messages_of_others() -> None:
    assert previous(
        book(0, kind="snapshot"),
        book(1, "ETH-USD", "snapshot"),
        heartbeat(2),
        book(3),
        book(4, "ETH-USD"),
        book(5),
    ) == [
        ("BTC-USD", -1, True),
        ("ETH-USD", 0, True),
        ("BTC-USD", 0, False),
        ("ETH-USD", 1, False),
        ("BTC-USD", 3, False),
    ]


def test_a_lost_message_breaks_every_book_of_its_connection_only() -> None:
    other = TestFrame(book(7, "SOL-USD", "snapshot"), connection="other")
    told = previous(
        other,
        book(0, kind="snapshot"),
        book(1, "ETH-USD", "snapshot"),
        heartbeat(3),  # 2 is lost
        book(4),
        book(5),
        book(6, "ETH-USD"),
        other._replace(payload=book(8, "SOL-USD")),
    )
    # The books have seen no more than 0 and 1.
    assert told[3:] == [
        ("BTC-USD", 3, False),
        ("BTC-USD", 4, False),
        ("ETH-USD", 5, False),
        ("SOL-USD", 7, False),
    ]


def test_a_repeated_message_breaks_nothing() -> None:
    snapshot = book(0, kind="snapshot")
    assert previous(snapshot, heartbeat(1), heartbeat(1), book(2))[1:] == [("BTC-USD", 0, False)]


def test_a_new_connection_starts_a_new_chain() -> None:
    connect = TestFrame("", FrameKind.CONNECT, note="wss://advanced-trade-ws.coinbase.com")
    assert previous(book(0, kind="snapshot"), connect, book(1)) == [
        ("BTC-USD", -1, True),
        ("BTC-USD", 0, False),
    ]


def test_trade_has_the_side_of_the_taker() -> None:
    assert events("COINBASE", TRADES) == [
        Print(
            "BTC-USD",
            1_786_309_548_800_000_000,
            Decimal("65091.5"),
            Decimal("0.00149955"),
            "buy",
            "1068572091",
            44,
        )
    ]


def test_trades_come_in_order_of_time() -> None:
    assert trade_ids(trades(0, "update", 12, 11, 10)) == ["10", "11", "12"]


def test_history_before_the_recording_is_not_taken() -> None:
    snapshot = trades(0, "snapshot", 12, 11, 10)
    assert trade_ids(snapshot) == []
    assert trade_ids(snapshot, trades(1, "update", 13, 12)) == ["13"]


def test_history_after_a_reconnect_brings_what_was_missed() -> None:
    assert trade_ids(
        trades(0, "snapshot", 12, 11, 10),
        trades(1, "update", 13),
        trades(0, "snapshot", 15, 14, 13, 12),
        trades(1, "update", 16, 15),
    ) == ["13", "14", "15", "16"]


def test_ticker() -> None:
    expected = Quote(
        "BTC-USD",
        1_786_309_548_229_198_328,
        (Decimal("65083.66"), Decimal("0.20371215")),
        (Decimal("65083.67"), Decimal("0.24290402")),
        6,
    )
    assert events("COINBASE", TICKER) == [expected]
    no_bid = TICKER.replace('"best_bid":"65083.66"', '"best_bid":""')
    assert events("COINBASE", no_bid) == [expected._replace(bid=None)]


def test_status_is_a_row_when_it_changes_for_a_product_that_is_carried() -> None:
    assert decode("COINBASE", STATUS).events.tables == {}
    halted = STATUS.replace('"online"', '"delisted"').replace(
        '"sequence_num":0', '"sequence_num":9'
    )
    decoded = decode("COINBASE", UPDATE, STATUS, STATUS, halted)
    rows = decoded.events.tables["market_status"].select(["status", "reason"]).to_pylist()
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("open", "online"),
        ("delisted", "delisted"),
    ]


def test_instrument_row_at_its_first_message() -> None:
    decoded = decode("COINBASE", http(PRODUCTS_URL, PRODUCTS), UPDATE, UPDATE)
    (row,) = decoded.events.tables["instruments"].to_pylist()
    assert (row["price_increment"], row["size_increment"]) == (Decimal("0.01"), Decimal("1E-8"))
    assert (row["base_currency"], row["quote_currency"]) == ("BTC", "USD")
    assert row["status"] == "open"


def test_silent() -> None:
    silent = [
        heartbeat(0),
        '{"channel":"subscriptions","timestamp":"","sequence_num":1,"events":[]}',
        '{"channel":"candles","timestamp":"","sequence_num":2,"events":[]}',
    ]
    assert events("COINBASE", *silent) == []


def test_refused() -> None:
    bad = [
        '{"channel":"futures","timestamp":"","sequence_num":0,"events":[]}',
        '{"type":"error","message":"authentication failure"}',
        UPDATE.replace('"offer"', '"ask"'),
        UPDATE.replace('"65091.5"', '"six"'),
        UPDATE.replace('"0.5"', '"-1"'),
        TRADES.replace('"SELL"', '"UNKNOWN"'),
        TRADES.replace('"1068572091"', '"x"'),
        TRADES.replace("2026-08-09T21:05:48.80Z", "yesterday"),
    ]
    assert [letters(decode("COINBASE", message))[0][0] for message in bad] == [
        "unknown_message",
        "malformed",
        "bad_side",
        "bad_price",
        "negative_size",
        "bad_side",
        "malformed",
        "bad_timestamp",
    ]


def test_a_bad_level_leaves_the_rest_of_its_message() -> None:
    message = json.loads(UPDATE)
    (level,) = message["events"][0]["updates"]
    message["events"][0]["updates"] = [{**level, "new_quantity": "?"}, level]
    decoded = decode("COINBASE", json.dumps(message))
    assert [reason for reason, _ in letters(decoded)] == ["bad_size"]
    (group,) = plain(decoded.events)
    assert isinstance(group, Group) and len(group.asks) == 1


def test_state_survives_a_snapshot() -> None:
    first = [book(0, kind="snapshot"), trades(1, "snapshot", 12, 11)]
    then = [book(2), trades(3, "update", 13, 12)]
    whole = feed("COINBASE")
    whole.apply(frames(first))
    resumed = feed("COINBASE")
    resumed.restore(pickle.loads(pickle.dumps(whole.snapshot())))
    assert list(plain(resumed.apply(frames(then)).events)) == list(
        plain(whole.apply(frames(then)).events)
    )
