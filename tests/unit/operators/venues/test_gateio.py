"""Gate.io v4: the messages of the handlers' docstrings, row by row, and what is refused."""

from __future__ import annotations

from decimal import Decimal

from marketflow.operators.venues.gateio import Gateio
from tests.support.decoded import (
    Group,
    Other,
    Print,
    Quote,
    decode,
    events,
    examples,
    http,
    letters,
)

BOOK_URL = (
    "https://api.gateio.ws/api/v4/spot/order_book?currency_pair=FAST_USDT&limit=100&with_id=true"
)
LIST_URL = "https://api.gateio.ws/api/v4/spot/currency_pairs"
SNAPSHOT, LISTING = examples(Gateio._http)
(UPDATE,) = examples(Gateio._update)
(OBU,) = examples(Gateio._obu)
(TOP,) = examples(Gateio._top_levels)
(TRADE,) = examples(Gateio._trade)
(BOOK_TICKER,) = examples(Gateio._book_ticker)
(TICKER,) = examples(Gateio._ticker)


def test_update() -> None:
    expected = Group(
        "DIS_USDT",
        1_619_093_562_998_000_000,
        1_750_488,
        [(Decimal("121.5"), Decimal("0.148")), (Decimal("73.5"), Decimal(0))],
        [],
        [],
        first=1_750_488,
    )
    assert events("GATEIO", UPDATE) == [expected]
    assert events("GATEIO", UPDATE.replace('"a":[]', '"a":null')) == [expected]


def test_rest_snapshot() -> None:
    expected = Group(
        "FAST_USDT",
        0,
        1_138_115,
        [(Decimal("10.2"), Decimal("85.961"))],
        [(Decimal("10.63"), Decimal(5))],
        [],
        snapshot=True,
    )
    assert events("GATEIO", http(BOOK_URL, SNAPSHOT)) == [expected]
    timed = SNAPSHOT.replace("{", '{"current":1682689052257,"update":1682689052253,', 1)
    expected = expected._replace(ts_event=1_682_689_052_253_000_000)
    assert events("GATEIO", http(BOOK_URL, timed)) == [expected]


def test_obu() -> None:
    expected = Group(
        "BTC_USDT",
        1_754_006_400_261_000_000,
        25_847_113_075,
        [(Decimal("115765.1"), Decimal("0.337839"))],
        [(Decimal("115765.2"), Decimal("0.631155"))],
        [],
        snapshot=True,
    )
    assert events("GATEIO", OBU) == [expected]
    change = OBU.replace('"full":true', '"U":25847113070')
    expected = expected._replace(first=25_847_113_070, snapshot=False)
    assert events("GATEIO", change) == [expected]


def test_top_levels_count_only_without_updates() -> None:
    expected = Group(
        "BTC_USDT",
        1_606_295_412_123_000_000,
        48_791_820,
        [(Decimal("19079.55"), Decimal("0.0195"))],
        [(Decimal("19080.24"), Decimal("0.1638"))],
        [],
        snapshot=True,
    )
    assert events("GATEIO", TOP) == [expected]
    update = UPDATE.replace("DIS_USDT", "BTC_USDT")
    assert len(events("GATEIO", update, TOP)) == 1
    # Top levels are no base for updates.
    found = events("GATEIO", TOP, update, update)
    assert [type(e) for e in found] == [Group, Other, Group, Group]
    assert found[1] == Other("DISCONNECT", "BTC_USDT")


def test_trade() -> None:
    assert events("GATEIO", TRADE) == [
        Print(
            "NEO_BTC",
            1_619_093_562_050_357_200,
            Decimal("0.0018678"),
            Decimal("0.5"),
            "sell",
            "816997068",
        )
    ]


def test_book_ticker() -> None:
    expected = Quote(
        "ETC_ETH",
        1_682_689_046_131_000_000,
        (Decimal("0.010326"), Decimal("0.001")),
        (Decimal("0.010366"), Decimal(10)),
        517_377_894,
    )
    assert events("GATEIO", BOOK_TICKER) == [expected]
    no_asks = BOOK_TICKER.replace('"0.010366"', '""').replace('"10"', '""')
    assert events("GATEIO", no_asks) == [expected._replace(ask=None)]


def test_ticker_is_statistics() -> None:
    decoded = decode("GATEIO", TICKER)
    rows = decoded.events.tables["statistics"].select(["kind", "value"]).to_pylist()
    assert [(row["kind"], row["value"]) for row in rows] == [
        ("last_price", Decimal("0.0018716")),
        ("best_bid", Decimal("0.0018697")),
        ("best_ask", Decimal("0.0018734")),
        ("volume_24h", Decimal("1138.01640718")),
    ]


def test_instrument_row_at_its_first_message() -> None:
    decoded = decode("GATEIO", http(LIST_URL, LISTING), TRADE.replace("NEO_BTC", "IHT_ETH"))
    (row,) = decoded.events.tables["instruments"].drop_columns(["ts_event", "ts_recv"]).to_pylist()
    assert (row["price_increment"], row["size_increment"]) == (
        Decimal("0.000000001"),
        Decimal("0.1"),
    )
    assert (row["base_currency"], row["quote_currency"], row["status"]) == ("IHT", "ETH", "open")


def test_silent() -> None:
    silent = [
        '{"time":1619093532,"channel":"spot.trades","event":"subscribe",'
        '"result":{"status":"success"}}',
        '{"time":1619093534,"channel":"spot.candlesticks","event":"update","result":{"n":"1m_A"}}',
        '{"time":1545404023,"channel":"spot.pong","event":"","result":null}',
    ]
    assert events("GATEIO", *silent) == []


def test_refused() -> None:
    bad = [
        '{"method":"trades.update","params":["BTC_USDT",[]],"id":null}',
        '{"time":1,"channel":"spot.trades","event":"subscribe","error":{"code":2,'
        '"message":"unknown currency pair"},"result":null}',
        TRADE.replace("spot.trades", "spot.orders"),
        UPDATE.replace('"U":1750488,', ""),
        OBU.replace("ob.BTC_USDT.400", "BTC_USDT"),
        TRADE.replace('"sell"', '"none"'),
        TRADE.replace("1619093562050.3572", "1619093562050.3572001"),
    ]
    reasons = [letters(decode("GATEIO", message))[0][0] for message in bad]
    assert reasons == [
        "unknown_message",
        "unknown_message",
        "unknown_message",
        "malformed",
        "malformed",
        "bad_side",
        "bad_timestamp",
    ]
