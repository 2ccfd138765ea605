"""Independent Reserve: orders by GUID, the splice of a snapshot without a nonce, refusals."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal

from marketflow.operators.events import BookType
from marketflow.operators.venues.independent_reserve import HELD_MESSAGES, IndependentReserve
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, frames
from tests.support.decoded import (
    Group,
    Order,
    Print,
    decode,
    events,
    examples,
    feed,
    http,
    letters,
    plain,
)

NAME = "INDEPENDENT_RESERVE"
URL = (
    "https://api.independentreserve.com/Public/GetAllOrders"
    "?primaryCurrencyCode=pmgt&secondaryCurrencyCode=nzd"
)
(SNAPSHOT,) = examples(IndependentReserve._snapshot)
NEW, CHANGED, CANCELED = examples(IndependentReserve._order_event)
(TRADE,) = examples(IndependentReserve._trade)
MADE_AT_MS = 1_649_023_819_504
GUIDS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(10)]


def message(event: str, nonce: int, guid: str, time_ms: int, coin: str = "pmgt") -> str:
    data: dict[str, object] = {"OrderType": "LimitBid", "OrderGuid": guid}
    if event == "NewOrder":
        data |= {"Price": {"aud": 2000.5, "nzd": 2100.5}, "Volume": 2.0}
    elif event == "OrderChanged":
        data |= {"Volume": 1.0}
    channel = f"orderbook-{coin}"
    return json.dumps(
        {"Channel": channel, "Nonce": nonce, "Data": data, "Time": time_ms, "Event": event}
    )


def groups(*items: str | TestFrame) -> list[Group]:
    return [e for e in events(NAME, *items) if isinstance(e, Group)]


def test_snapshot() -> None:
    assert groups(http(URL, SNAPSHOT)) == [
        Group(
            "PmgtNzd",
            1_649_023_819_504_864_700,
            None,
            [],
            [],
            [
                Order(
                    "ADD",
                    "bid",
                    "ba059b48-5d41-4aa4-b94a-83aafdc4b427",
                    Decimal("2755.07"),
                    Decimal("3.82223"),
                )
            ],
            snapshot=True,
        )
    ]
    rules = decode(NAME, http(URL, SNAPSHOT)).events.instruments.rows
    assert rules["book_type"].tolist() == [BookType.L3]


def test_each_event_on_each_currency_with_a_snapshot() -> None:
    aud, nzd = (
        SNAPSHOT.replace("Pmgt", "Eth").replace('"Nzd"', f'"{code}"') for code in ("Aud", "Nzd")
    )
    found = groups(http(URL, aud), http(URL, nzd), NEW)[2:]
    guid = "52db62a0-bdc8-4d7e-8d87-d0aa64f6f62c"
    time = 1_649_023_838_826_000_000
    assert found == [
        Group(
            "EthAud",
            time,
            19933,
            [],
            [],
            [Order("ADD", "ask", guid, Decimal("4729.7"), Decimal(15))],
        ),
        Group(
            "EthNzd",
            time,
            19933,
            [],
            [],
            [Order("ADD", "ask", guid, Decimal("5152.18"), Decimal(15))],
        ),
    ]


def test_changed_and_canceled() -> None:
    xbt, dot = (SNAPSHOT.replace("Pmgt", coin) for coin in ("Xbt", "Dot"))
    found = groups(http(URL, xbt), http(URL, dot), CHANGED, CANCELED)[2:]
    assert [(g.symbol, g.last, g.orders) for g in found] == [
        (
            "XbtNzd",
            65607,
            [
                Order(
                    "ORDER_SIZE",
                    "bid",
                    "fee7094c-1921-44b7-8d8d-8b6e1cedb270",
                    None,
                    Decimal("0.5"),
                )
            ],
        ),
        (
            "DotNzd",
            5100,
            [Order("DELETE", "bid", "50acf7b9-851e-4926-a3dd-bf9bf297ed97", None, Decimal(0))],
        ),
    ]


def test_a_market_order_only_moves_the_nonce() -> None:
    market = message("NewOrder", 7, GUIDS[0], MADE_AT_MS).replace("LimitBid", "MarketBid")
    market = market.replace('"Price": {"aud": 2000.5, "nzd": 2100.5}', '"Price": {}')
    (_, group) = groups(http(URL, SNAPSHOT), market)
    assert (group.last, group.orders) == (7, [])


def test_messages_that_arrive_before_the_snapshot_are_applied_on_top_of_it() -> None:
    """Long before it was made: surely in it. From a second before: again, for it does no harm."""
    found = groups(
        message("NewOrder", 1, GUIDS[1], MADE_AT_MS - 1100),
        message("NewOrder", 2, GUIDS[2], MADE_AT_MS - 900),
        message("OrderCanceled", 3, GUIDS[2], MADE_AT_MS + 10),
        message("NewOrder", 9, GUIDS[4], MADE_AT_MS, coin="eth"),
        http(URL, SNAPSHOT),
        message("NewOrder", 4, GUIDS[3], MADE_AT_MS + 20),
    )
    assert [(g.snapshot, g.last, [o.kind for o in g.orders]) for g in found] == [
        (True, None, ["ADD"]),
        (False, 2, ["ADD"]),
        (False, 3, ["DELETE"]),
        (False, 4, ["ADD"]),
    ]


def test_what_is_held_back_is_bounded_and_of_one_connection() -> None:
    many = [message("NewOrder", n, GUIDS[0], MADE_AT_MS) for n in range(5 + HELD_MESSAGES)]
    found = groups(*many, http(URL, SNAPSHOT))
    assert [g.last for g in found] == [None, *range(5, HELD_MESSAGES + 5)]
    lost = TestFrame("", FrameKind.DISCONNECT, note="reset by peer")
    assert len(groups(*many, lost, http(URL, SNAPSHOT))) == 1


def test_a_snapshot_older_than_what_is_held_shows_a_hole() -> None:
    late = [message("NewOrder", n, GUIDS[0], MADE_AT_MS + 9) for n in range(HELD_MESSAGES + 5)]
    assert [g.last for g in groups(*late, http(URL, SNAPSHOT))][:4] == [None, 3, 5, 6]
    assert [g.last for g in groups(*late[:9], http(URL, SNAPSHOT))] == [None, *range(9)]


def test_trade() -> None:
    assert events(NAME, TRADE) == [
        Print(
            "EthAud",
            1_643_578_106_552_573_000,
            Decimal("3650.81"),
            Decimal("0.543"),
            "sell",
            "6d1c2e90-592a-409c-a8d8-58b2d25e0b0b",
            78,
        )
    ]


def test_silent() -> None:
    silent = [
        '{"Time":1649023809081,"Event":"Heartbeat"}',
        '{"Data":["orderbook-etc"],"Time":1649023809121,"Event":"Subscriptions"}',
        http("https://api.independentreserve.com/Public/GetValidPrimaryCurrencyCodes", '["Xbt"]'),
    ]
    assert events(NAME, *silent) == []


def test_refused() -> None:
    bad = [
        '{"Event":"Error","Data":"no such channel","Time":1}',
        NEW.replace("orderbook-eth", "somewhere"),
        NEW.replace("LimitOffer", "Swap"),
        NEW.replace("52db62a0-bdc8-4d7e-8d87-d0aa64f6f62c", "nobody's, with far too long a name"),
        NEW.replace("15.0", '"many"'),
        TRADE.replace('"Sell"', '"Swap"'),
        TRADE.replace("2022-01-31T", "2022-01-32T"),
    ]
    kept = http(URL, SNAPSHOT.replace("Pmgt", "Eth").replace('"Nzd"', '"Aud"'))
    reasons = [letters(decode(NAME, kept, message))[0][0] for message in bad]
    assert reasons == [
        "unknown_message",
        "unknown_message",
        "bad_side",
        "bad_id",
        "bad_size",
        "bad_side",
        "bad_timestamp",
    ]


def test_a_refused_order_still_moves_the_nonce() -> None:
    """Its id is a dead letter of its own: the message was not lost."""
    bad = message("NewOrder", 5, "nobody's, with far too long a name", MADE_AT_MS)
    decoded = decode(NAME, http(URL, SNAPSHOT), bad)
    last = list(plain(decoded.events))[-1]
    assert isinstance(last, Group) and (last.last, last.orders) == (5, [])


def test_snapshot_and_restore_in_the_middle() -> None:
    first = feed(NAME)
    first.apply(frames([message("NewOrder", 1, GUIDS[1], MADE_AT_MS)]))
    second = feed(NAME)
    second.restore(pickle.loads(pickle.dumps(first.snapshot())))
    rest = frames([http(URL, SNAPSHOT), message("OrderCanceled", 2, GUIDS[1], MADE_AT_MS)])
    one, other = first.apply(rest), second.apply(rest)
    assert one.events.rows.tobytes() == other.events.rows.tobytes()
    assert len(list(plain(one.events))) == 3
