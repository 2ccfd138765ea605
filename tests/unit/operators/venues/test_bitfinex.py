"""Bitfinex v2: frames by channel, the connection's chain, and what is refused."""

from __future__ import annotations

import pickle
from decimal import Decimal

import pytest

from marketflow.operators.events import BookType
from marketflow.operators.venues.bitfinex import Bitfinex
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, frames
from tests.support.decoded import (
    Group,
    Order,
    Other,
    Print,
    decode,
    events,
    examples,
    feed,
    letters,
    plain,
)

CONF, SUBSCRIBED = examples(Bitfinex._event)
(SENT,) = examples(Bitfinex._sent)
TE, TRADES = examples(Bitfinex._trades)
(TICKER,) = examples(Bitfinex._ticker)
SNAPSHOT = "[232958,[[0.037107,1,11111],[0.0371,2,-300]],18]"
NAME = "BITFINEX"


def subscribed(channel: str, number: int, symbol: str, **more: str) -> str:
    pairs = "".join(f',"{key}":"{value}"' for key, value in more.items())
    head = f'"event":"subscribed","channel":"{channel}","chanId":{number},"symbol":"{symbol}"'
    return "{" + head + pairs + "}"


RAW = subscribed("book", 433290, "tBTCUSD", prec="R0")
RAW_SNAPSHOT = "[433290,[[34753002978,7294.7,1.54340371],[34753002979,7295,-2]],1]"


def groups(*items: str | TestFrame) -> list[Group]:
    return [e for e in events(NAME, *items) if isinstance(e, Group)]


def test_examples_of_the_book_are_what_the_code_takes() -> None:
    text = Bitfinex._book.__doc__ or ""
    assert SUBSCRIBED.startswith('{"event":"subscribed","channel":"book","chanId":232958')
    for example in (
        "[232958,[[0.037107,1,11111],[0.0371,1,300]],18]",
        "[433290,[34753002978,0,1],20]",
    ):
        assert example in text
        assert len(groups(SUBSCRIBED, RAW, example)) == 1


def test_snapshot_and_changes() -> None:
    snapshot, change, gone = groups(
        SUBSCRIBED, SNAPSHOT, "[232958,[1.5E-7,3,-1e-7],19]", "[232958,[0.0371,0,-1],20]"
    )
    assert snapshot == Group(
        "tSNGUSD",
        0,
        18,
        [(Decimal("0.037107"), Decimal(11111))],
        [(Decimal("0.0371"), Decimal(300))],
        [],
        snapshot=True,
        counts=(1, 2),
    )
    assert (change.asks, change.counts) == ([(Decimal("1.5E-7"), Decimal("1E-7"))], (3,))
    assert (change.previous, change.last) == (18, 19)
    assert (gone.asks, gone.previous) == ([(Decimal("0.0371"), Decimal(0))], 19)


def test_decimals_as_strings_and_time() -> None:
    sent = '[232958,["0.0371",2,"-300"],1564617601214]'
    (change,) = groups(SUBSCRIBED, sent)
    assert change == Group(
        "tSNGUSD",
        1_564_617_601_214_000_000,
        None,
        [],
        [(Decimal("0.0371"), Decimal(300))],
        [],
        counts=(2,),
    )


def test_empty_book_and_bulk_updates() -> None:
    (empty,) = groups(SUBSCRIBED, "[232958,[],1]")
    assert empty.snapshot and not empty.bids and not empty.asks
    bulk = "[232958,[[0.0371,1,1],[0.0372,1,-1]],19]"
    assert [g.snapshot for g in groups(SUBSCRIBED, SNAPSHOT, bulk)] == [True, True]
    flags = CONF.replace("65536", str(65536 + 536870912))
    assert [g.snapshot for g in groups(flags, SUBSCRIBED, SNAPSHOT, bulk)] == [True, False]


def test_a_lost_frame_breaks_every_book_of_the_connection_at_once() -> None:
    other = subscribed("book", 7, "tBTCUSD", prec="P0")
    late = subscribed("book", 8, "tETHUSD", prec="P0")
    found = groups(
        SUBSCRIBED,
        other,
        late,
        "[232958,[],1]",
        "[7,[],2]",
        '[8,"hb",3]',
        '[8,"hb",6]',  # 4 and 5 are lost
        "[7,[9000,1,1],7]",
    )
    lost = [(g.symbol, g.previous, g.last, g.bids) for g in found[2:4]]
    assert lost == [("tSNGUSD", 5, 5, []), ("tBTCUSD", 5, 5, [])]
    # The book knows of 5 only: the chain goes on from the hole, so nothing else is reported.
    assert (found[4].symbol, found[4].previous, found[4].last) == ("tBTCUSD", 5, 7)
    assert len(found) == 5


def test_a_refused_change_leaves_a_hole() -> None:
    messages = [SUBSCRIBED, SNAPSHOT, "[232958,[0.1,1],19]", "[232958,[0.1,1,1],20]"]
    decoded = decode(NAME, *messages)
    assert [reason for reason, _ in letters(decoded)] == ["malformed"]
    last = list(plain(decoded.events))[-1]
    # The book has seen 18.
    assert isinstance(last, Group) and (last.previous, last.last) == (19, 20)


def test_chains_are_of_one_connection() -> None:
    again = [TestFrame(m, connection="second") for m in (SUBSCRIBED, SNAPSHOT)]
    assert len(groups(SUBSCRIBED, "[232958,[],1]", *again, "[232958,[1,1,1],2]")) == 3
    back = TestFrame("", FrameKind.CONNECT, "ws")
    found = events(NAME, SUBSCRIBED, "[232958,[],7]", back, SUBSCRIBED, "[232958,[],1]")
    assert [type(e) for e in found] == [Group, Other, Group]


def test_raw_book() -> None:
    decoded = decode(
        NAME,
        RAW,
        RAW_SNAPSHOT,
        "[433290,[34753002978,7294.8,1],2]",
        "[433290,[34753002980,7294,1],3]",
        "[433290,[34753002979,0,-1],4]",
    )
    assert decoded.events.instruments.rows["book_type"].tolist() == [BookType.L3]
    found = [e.orders for e in plain(decoded.events) if isinstance(e, Group)]
    assert found == [
        [
            Order("ADD", "bid", "34753002978", Decimal("7294.7"), Decimal("1.54340371")),
            Order("ADD", "ask", "34753002979", Decimal(7295), Decimal(2)),
        ],
        [Order("MODIFY", "bid", "34753002978", Decimal("7294.8"), Decimal(1))],
        [Order("ADD", "bid", "34753002980", Decimal(7294), Decimal(1))],
        [Order("DELETE", "ask", "34753002979", None, Decimal(0))],
    ]


@pytest.mark.parametrize(
    "before", [[], [subscribed("ticker", 1, "tBTCUSD"), "[1,[" + "1," * 9 + "1],1]"]]
)
def test_one_book_per_symbol(before: list[str]) -> None:
    """A raw book is known before the symbol's first ticker because it was asked for."""
    asked = TestFrame(
        '{"event":"subscribe","channel":"book","symbol":"tBTCUSD","prec":"R0"}', FrameKind.SENT
    )
    levels = subscribed("book", 5, "tBTCUSD", prec="P0")
    decoded = decode(
        NAME, asked, *before, RAW, levels, "[5,[],2]", RAW_SNAPSHOT.replace(",1]", ",3]")
    )
    assert decoded.events.instruments.rows["book_type"].tolist() == [BookType.L3]
    assert letters(decoded) == [("unknown_message", "second book P0 of tBTCUSD: R0 is kept")]
    assert len([e for e in plain(decoded.events) if isinstance(e, Group)]) == 1


def test_trades() -> None:
    channel = subscribed("trades", 89, "tBTCUSD")
    expected = Print(
        "tBTCUSD",
        1_564_617_600_709_000_000,
        Decimal("10087.98969503"),
        Decimal("0.00705845"),
        "buy",
        "382489563",
        18,
    )
    assert events(NAME, channel, TE, TE.replace('"te"', '"tu"')) == [expected]
    assert events(NAME, channel, TE.replace("0.00705845", "-0.00705845")) == [
        expected._replace(aggressor="sell")
    ]


def test_latest_trades_come_oldest_first_and_only_once() -> None:
    channel = subscribed("trades", 89, "tBTCUSD")
    latest = "[89,[[13,1003,1,3],[12,1002,-1,2],[11,1001,1,1]],1]"
    live = '[89,"te",[14,1004,1,4],2]'
    back = TestFrame("", FrameKind.CONNECT, "ws")
    again = "[89,[[15,1005,1,5],[14,1004,1,4],[13,1003,1,3]],1]"
    found = [
        e.trade_id
        for e in events(NAME, channel, latest, live, back, channel, again)
        if isinstance(e, Print)
    ]
    assert found == ["11", "12", "13", "14", "15"]


def test_funding_trades_have_the_rate_for_a_price() -> None:
    channel = subscribed("trades", 9, "fUSD")
    (trade,) = events(NAME, channel, '[9,"fte",[133323,1574694605000,-59.84,0.00023647,2],4]')
    assert trade == Print(
        "fUSD",
        1_574_694_605_000_000_000,
        Decimal("0.00023647"),
        Decimal("59.84"),
        "sell",
        "133323",
        4,
    )


def test_ticker_is_statistics() -> None:
    decoded = decode(NAME, subscribed("ticker", 232949, "tBFTUSD"), TICKER)
    rows = decoded.events.tables["statistics"].select(["kind", "value"]).to_pylist()
    assert [(row["kind"], row["value"]) for row in rows] == [
        ("best_bid", Decimal("0.068965")),
        ("best_ask", Decimal("0.0774")),
        ("last_price", Decimal("0.076989")),
        ("volume_24h", Decimal("101459.39453471")),
    ]


def test_silent() -> None:
    silent = [
        '{"event":"info","version":2,"serverId":"083bd8d4","platform":{"status":1}}',
        '{"event":"info","code":20051,"msg":"Stopping. Please try to reconnect"}',
        CONF,
        SUBSCRIBED,
        '[204928,"hb",1]',
        '[232958,"cs",-1234567,2]',
        '[0,"wu",[],3]',
        subscribed("candles", 4, "", key="trade:1m:tBTCUSD"),
        "[4,[1,2,3,4,5,6],4]",
        subscribed("book", 5, "fUSD", prec="P0"),
        "[5,[0.0002,30,1,-100],5]",
        '{"event":"unsubscribed","status":"OK","chanId":4}',
        TestFrame(SENT, FrameKind.SENT),
        TestFrame("no json", FrameKind.SENT),
    ]
    assert events(NAME, *silent) == []


def test_refused() -> None:
    trades = subscribed("trades", 89, "tBTCUSD")
    bad = [
        ["[6957,[1,2,3],1]"],
        ['{"event":"error","msg":"symbol: invalid","code":10300}'],
        [subscribed("news", 3, "tBTCUSD"), "[3,[],1]"],
        [trades, '[89,"xx",[1,2,3,4],1]'],
        [trades, '[89,"te",[1,2,3],1]'],
        [trades, '[89,"te",[1,-2,3,4],1]'],
        [SUBSCRIBED, '[232958,[0.1,1,"x"],1]'],
        ["[1]"],
        ["7"],
        ["[" * 3000],
    ]
    reasons = [letters(decode(NAME, *messages))[0][0] for messages in bad]
    assert reasons == [
        "unknown_instrument",
        "unknown_message",
        "unknown_message",
        "unknown_message",
        "malformed",
        "bad_timestamp",
        "bad_size",
        "malformed",
        "malformed",
        "malformed",
    ]


def test_snapshot_and_restore_in_the_middle() -> None:
    messages = [SUBSCRIBED, RAW, SNAPSHOT, RAW_SNAPSHOT.replace(",1]", ",19]")]
    rest = ["[433290,[34753002978,7294.8,1],20]", '[232958,"hb",22]', "[232958,[0.1,1,1],23]"]
    first = feed(NAME)
    first.apply(frames(messages))
    second = feed(NAME)
    second.restore(pickle.loads(pickle.dumps(first.snapshot())))
    one, other = first.apply(frames(rest)), second.apply(frames(rest))
    assert one.events.rows.tobytes() == other.events.rows.tobytes()
    assert len(list(plain(one.events))) == 4
