"""KuCoin: the messages of the handlers' docstrings, row by row, and what is refused."""

from __future__ import annotations

from decimal import Decimal

from marketflow.operators.venues.kucoin import Kucoin
from tests.support.decoded import Group, Print, Quote, decode, events, examples, http, letters

BOOK_URL = "https://api.kucoin.com/api/v3/market/orderbook/level2?symbol=BCHSV-USDT"
LIST_URL = "https://api.kucoin.com/api/v1/symbols"
SNAPSHOT, LISTING = examples(Kucoin._http)
(CHANGE,) = examples(Kucoin._level2)
(MATCH,) = examples(Kucoin._match)
(TICKER,) = examples(Kucoin._ticker)


def test_changes() -> None:
    expected = Group(
        "BCHSV-USDT",
        0,
        1_613_277_183_893,
        [],
        [(Decimal("243.01"), Decimal("0.5"))],
        [],
        first=1_613_277_183_893,
    )
    assert events("KUCOIN", CHANGE) == [expected]
    timed = CHANGE.replace('"symbol"', '"time":1663747970273,"symbol"')
    assert events("KUCOIN", timed) == [expected._replace(ts_event=1_663_747_970_273_000_000)]


def test_a_no_op_moves_the_sequence() -> None:
    (group,) = events("KUCOIN", CHANGE.replace('"243.01","0.5"', '"0","0"'))
    assert isinstance(group, Group) and group.last == 1_613_277_183_893
    assert group.asks == [(Decimal(0), Decimal(0))]


def test_rest_snapshot() -> None:
    assert events("KUCOIN", http(BOOK_URL, SNAPSHOT)) == [
        Group(
            "BCHSV-USDT",
            1_619_378_326_628_000_000,
            1_613_277_183_892,
            [(Decimal("242.649"), Decimal(5))],
            [(Decimal("243.01"), Decimal("0.68148185"))],
            [],
            snapshot=True,
        )
    ]
    assert events("KUCOIN", http(BOOK_URL.replace("level2?", "level2_100?"), SNAPSHOT)) != []


def test_match() -> None:
    assert events("KUCOIN", MATCH) == [
        Print(
            "DAPPT-BTC",
            1_619_378_327_739_050_725,
            Decimal("0.0000001117"),
            Decimal("81.8814"),
            "buy",
            "6085c09769bc506996295e36",
            1_612_701_563_869,
        )
    ]
    numeric = MATCH.replace("6085c09769bc506996295e36", "12067746561859585")
    (trade,) = events("KUCOIN", numeric)
    assert isinstance(trade, Print) and trade.trade_id == "12067746561859585"


def test_ticker() -> None:
    expected = Quote(
        "SNX-BTC",
        1_619_378_326_323_000_000,
        (Decimal("0.00028678"), Decimal("3.70422021")),
        (Decimal("0.00028717"), Decimal("14.04274325")),
        1_612_844_051_653,
    )
    assert events("KUCOIN", TICKER) == [expected]
    everything = TICKER.replace("ticker:SNX-BTC", "ticker:all").replace("trade.ticker", "SNX-BTC")
    assert events("KUCOIN", everything) == [expected]
    no_bids = TICKER.replace('"0.00028678"', "null")
    assert events("KUCOIN", no_bids) == [expected._replace(bid=None)]


def test_instrument_row_at_its_first_message() -> None:
    trade = MATCH.replace("DAPPT-BTC", "REQ-ETH")
    decoded = decode("KUCOIN", http(LIST_URL, LISTING), trade, trade)
    (row,) = decoded.events.tables["instruments"].drop_columns(["ts_event", "ts_recv"]).to_pylist()
    assert (row["price_increment"], row["size_increment"]) == (
        Decimal("0.0000001"),
        Decimal("0.0001"),
    )
    assert (row["base_currency"], row["quote_currency"], row["status"]) == ("REQ", "ETH", "open")


def test_silent() -> None:
    silent = [
        '{"id":"NSkIrWGB1s","type":"welcome"}',
        '{"id":"1","type":"ack"}',
        '{"id":"1","type":"pong"}',
        '{"data":{},"subject":"trade.candles.add","topic":"/market/candles:A-B_1min",'
        '"type":"message"}',
    ]
    assert events("KUCOIN", *silent) == []


def test_refused() -> None:
    bad = [
        '{"type":"error","code":404,"data":"topic /market/nothing is not found"}',
        CHANGE.replace("/market/level2:", "/spotMarket/level2Depth5:"),
        MATCH.replace('"buy"', '"both"'),
        MATCH.replace('"1619378327739050725"', '"-1"'),
        CHANGE.replace("1613277183893,", "9223372036854775808,"),
        CHANGE.replace('"sequenceEnd"', '"sequenceStop"'),
        http(BOOK_URL, '{"code":"429000","msg":"Too Many Requests"}'),
    ]
    reasons = [letters(decode("KUCOIN", message))[0][0] for message in bad]
    assert reasons == [
        "unknown_message",
        "unknown_message",
        "bad_side",
        "bad_timestamp",
        "out_of_range",
        "malformed",
        "malformed",
    ]
