"""Event building and the message-wise frame loop, with a venue made for it."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given

from marketflow.operators.dead_letters import RAW_BYTES
from marketflow.operators.events import EVENT, NO_SEQUENCE, EventKind, IdKind, SnapshotRule
from marketflow.operators.kernels import numbers
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Decoded, Frame, JsonFeed, VenueDecoder
from marketflow.operators.normalise.timestamps import ms_ns
from marketflow.operators.numbers import exact
from marketflow.schemas.codes import AggressorSide, MarketStatus, RowFlag, Side
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.shards import shard_of
from marketflow.schemas.units import NO_PRICE
from tests.support.captures import TestFrame, frames
from tests.support.numbers import parse, texts


class Toy(VenueDecoder):
    """Messages are JSON objects whose ``do`` names what to build."""

    VENUE = "TOY"
    RULES = BookRules(snapshot_rule=SnapshotRule.IN_STREAM, max_levels=10)
    STATE = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind not in (FrameKind.DATA, FrameKind.HTTP):
            return
        message: dict[str, Any] = msgspec.json.decode(frame.payload)
        self.count += 1
        getattr(self, message.pop("do"))(out, out.instrument(message.pop("s", "ABC")), message)

    def book(self, out: EventBuilder, instrument: int, m: dict[str, Any]) -> None:
        out.begin(instrument, ms_ns(m["E"]), first=m.get("U"), last=m["u"], snapshot=m.get("snap"))
        out.levels(Side.BID, msgspec.json.encode(m["b"]))
        for price, size in m.get("a", []):
            out.level(Side.ASK, price, size)
        out.end(m.get("crc"))

    def trade(self, out: EventBuilder, instrument: int, m: dict[str, Any]) -> None:
        out.trade(instrument, ms_ns(m["E"]), m["p"], m["q"], AggressorSide.SELL, m["id"])

    def quote(self, out: EventBuilder, instrument: int, m: dict[str, Any]) -> None:
        out.venue_quote(instrument, 5, m["b"], m["a"], sequence=m["u"])

    def orders(self, out: EventBuilder, instrument: int, m: dict[str, Any]) -> None:
        out.begin(instrument, 7, last=m["u"])
        out.clear()
        for kind, order_id, price, size in m["o"]:
            out.order(EventKind[kind], Side.BID, order_id, price, size)
        out.end()

    def status(self, out: EventBuilder, instrument: int, m: dict[str, Any]) -> None:
        out.row("market_status", instrument, 9, status=MarketStatus.OPEN, reason=m["r"])

    def funding(self, out: EventBuilder, instrument: int, m: dict[str, Any]) -> None:
        out.row("funding", instrument, 9, rate=m["r"], ts_next=11)


def run(*items: dict[str, Any] | TestFrame, feed: JsonFeed | None = None) -> Decoded:
    rows = [i if isinstance(i, TestFrame) else msgspec.json.encode(i).decode() for i in items]
    return (feed or JsonFeed(Toy())).apply(frames(rows))


def reasons(decoded: Decoded) -> list[tuple[str, bytes]]:
    if decoded.dead is None:
        return []
    return [(r["reason"], r["raw"]) for r in decoded.dead.to_pylist()]


BOOK = {"do": "book", "E": 1, "U": 4, "u": 5, "b": [["1.50", "2"]], "a": [["2", "0.0"]], "crc": -7}
TRADE = {"do": "trade", "E": 3, "p": "1.5", "q": "2", "id": 77}


def test_book_group() -> None:
    rows = run(BOOK).events.rows
    assert rows.dtype == EVENT
    kinds = [EventKind.BEGIN, EventKind.LEVEL, EventKind.LEVEL, EventKind.END]
    assert rows["kind"].tolist() == kinds
    assert rows["ts_event"].tolist() == [10**6] * 4
    assert rows["ts_recv"].tolist() == [1_600_000_000_000_000_000] * 4
    assert rows["sequence"].tolist() == [5] * 4
    assert rows["side"].tolist() == [0, Side.BID, Side.ASK, 0]
    assert rows["order_lo"].tolist() == [4, 0, 0, 0]
    assert rows["order_hi"].view("i8").tolist() == [NO_SEQUENCE, 0, 0, 0]
    assert rows["price"].tolist() == [NO_PRICE, 150, 2, NO_PRICE]
    assert rows["price_scale"].tolist() == [0, 2, 0, 0]
    assert rows["size"].tolist() == [0, 2, 0, -7]
    assert rows["size_scale"].tolist() == [0, 0, 1, 0]
    assert rows["count"].tolist() == [0, 0, 0, 1]
    assert rows["flags"].tolist() == [0] * 4


def test_snapshot_flag_is_on_the_whole_group() -> None:
    rows = run({**BOOK, "snap": True}).events.rows
    assert set(rows["flags"].tolist()) == {int(RowFlag.SNAPSHOT)}


def test_trade_and_quote() -> None:
    decoded = run(TRADE, {"do": "quote", "b": ["1", "2"], "a": None, "u": 9})
    trade, bid, ask = decoded.events.rows
    assert (trade["price"], trade["price_scale"], trade["size"]) == (15, 1, 2)
    assert (trade["trade_lo"], trade["trade_kind"]) == (77, IdKind.UINT)
    assert (trade["side"], trade["flags"]) == (AggressorSide.SELL, RowFlag.LAST)
    assert (bid["kind"], bid["price"], bid["flags"], bid["frame"]) == (24, 1, 0, 1)
    assert (ask["kind"], ask["price"], ask["flags"], ask["sequence"]) == (25, NO_PRICE, 1, 9)


def test_orders() -> None:
    items = [["ADD", "12", "1.0", "5"], ["DELETE", "x" * 30, None, None], ["REDUCE", 3, None, "1"]]
    decoded = run({"do": "orders", "u": 1, "o": items})
    rows = decoded.events.rows
    kinds = ["BEGIN", "CLEAR", "ADD", "REDUCE", "END"]
    assert [EventKind(k).name for k in rows["kind"]] == kinds
    assert rows["order_lo"][2:4].tolist() == [12, 3]
    assert reasons(decoded)[0][0] == "bad_id"


def test_a_bad_level_or_trade_dies_alone() -> None:
    decoded = run(
        {**BOOK, "b": [["1" * 30, "1"], ["3", "-1"], ["4", "1"]], "a": [["x", "1"], ["5", "1"]]},
        {**TRADE, "q": "-2"},
        TRADE,
    )
    prices = decoded.events.rows["price"].tolist()
    assert prices == [NO_PRICE, 4, 5, NO_PRICE, 15]
    assert reasons(decoded) == [
        ("out_of_range", b'["' + b"1" * 30 + b'","1"]'),
        ("negative_size", b'["3","-1"]'),
        ("bad_price", b'["x","1"]'),
        ("negative_size", b'["1.5","-2"]'),
    ]


def test_many_bad_levels() -> None:
    decoded = run({**BOOK, "b": [["x", str(i)] for i in range(50)]})
    assert len(reasons(decoded)) == 50
    assert len(decoded.events.rows) == 3


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("{", "malformed"),
        ('{"do":"book","E":1,"u":5,"b":[["1"]]}', "malformed"),
        ('{"do":"book","E":1,"u":5,"b":[["1","2"]],"a":[["1","2"]],"crc":1e3}', "malformed"),
        ('{"do":"book","E":-1,"u":5,"b":[]}', "bad_timestamp"),
        ('{"do":"book","E":1,"u":99999999999999999999999999,"b":[]}', "out_of_range"),
        ("[" * 100_000, "malformed"),
    ],
)
def test_a_failed_frame_is_undone(payload: str, reason: str) -> None:
    if "1e3" in payload:
        payload = payload.replace('"b":[["1","2"]]', '"b":[["1","2"],[]]')
    decoded = run(TRADE, TestFrame(payload), TRADE)
    assert reasons(decoded) == [(reason, payload.encode()[:RAW_BYTES])]
    assert decoded.events.rows["kind"].tolist() == [EventKind.TRADE] * 2
    assert decoded.events.messages == 3


def test_passing_rows_and_their_bad_values() -> None:
    decoded = run(
        {"do": "status", "r": "open now"},
        {"do": "funding", "r": "0.00010000"},
        {"do": "funding", "r": "much"},
    )
    columns = ["instrument", "status", "reason"]
    status = decoded.events.tables["market_status"].select(columns).to_pylist()[0]
    assert (status["instrument"], status["status"], status["reason"]) == (0, "open", "open now")
    assert decoded.events.tables["funding"].column("rate").to_pylist() == [Decimal("0.0001")]
    assert decoded.events.tables["funding"].column("ts_next").cast("int64").to_pylist() == [11]
    assert [r for r, _ in reasons(decoded)] == ["bad_price"]


def test_dead_letters_without_arrival_have_the_latest_known_time() -> None:
    feed = JsonFeed(Toy())
    raw = msgspec.json.encode(TRADE)
    early = run(TestFrame(raw, ts_recv=0), TestFrame("{", ts_recv=0), feed=feed)
    late = run(TestFrame("{", ts_recv=0), feed=feed)
    for decoded in (early, late):
        assert decoded.dead is not None
        assert decoded.dead.column("ts_recv").cast("int64").to_pylist() == [3 * 10**6]


def test_control_frames() -> None:
    book = msgspec.json.encode(BOOK)
    other = msgspec.json.encode({**BOOK, "s": "XYZ"})
    decoded = run(
        TestFrame("", FrameKind.CONNECT, "a"),
        TestFrame(book, connection="a"),
        TestFrame(other, connection="b"),
        TestFrame("", FrameKind.CONNECT, "a"),  # not told that it was lost
        TestFrame("", FrameKind.DISCONNECT, "a"),  # nothing new was carried
        TestFrame("", FrameKind.DISCONNECT, "b", "reset by peer"),
        TestFrame("half", FrameKind.TRUNCATED),
        TestFrame("bad", FrameKind.BROKEN, note="not gzip"),
        TestFrame("", FrameKind.END),
    )
    rows = decoded.events.rows
    lost = rows[rows["kind"] == EventKind.DISCONNECT]
    assert lost[["frame", "instrument"]].tolist() == [(3, 0), (5, 1)]
    assert rows["kind"][-1] == EventKind.FEED_END
    assert rows["instrument"][-1] == -1
    assert reasons(decoded) == [("truncated", b"half"), ("invalid_encoding", b"bad")]
    assert decoded.events.messages == 2


def test_instruments() -> None:
    feed = JsonFeed(Toy(), shards=7)
    first = run(BOOK, {**TRADE, "s": "XYZ"}, feed=feed).events.instruments
    assert first.symbols == ("ABC", "XYZ")
    assert first.venues == ("TOY", "TOY")
    assert first.rows["shard"].tolist() == [shard_of("TOY", s, 7) for s in first.symbols]
    assert first.rows["max_levels"].tolist() == [10, 10]
    assert run(BOOK, feed=feed).events.instruments is first
    assert shard_of("BINANCE", "BTCUSDT", 16) == 6, "the shard of an instrument never changes"


def test_snapshot_restores_and_copies() -> None:
    feed = JsonFeed(Toy())
    run(BOOK, TestFrame(msgspec.json.encode(BOOK), connection="a"), feed=feed)
    state = pickle.loads(pickle.dumps(feed.snapshot()))
    again = JsonFeed(Toy())
    again.restore(state)
    lost = TestFrame("", FrameKind.DISCONNECT, "a")
    expected = run({**TRADE, "s": "NEW"}, lost, feed=feed)
    got = run({**TRADE, "s": "NEW"}, lost, feed=again)
    assert got.events.rows.tobytes() == expected.events.rows.tobytes()
    assert got.events.instruments.symbols == ("ABC", "NEW")
    assert again.venue.count == feed.venue.count
    assert pickle.loads(pickle.dumps(feed.snapshot())) != state
    with pytest.raises(ValueError, match="--recovery"):
        again.restore((0, *state[1:]))
    with pytest.raises(ValueError, match="shards"):
        JsonFeed(Toy(), shards=3).restore(state)


@given(texts)
def test_exact_equals_the_kernel(text: str) -> None:
    assert exact(text) == parse(text)
    assert exact(text.encode()) == parse(text)


def test_exact_takes_what_json_decoders_hand_over() -> None:
    assert exact(5) == (5, 0, numbers.OK)
    assert exact(True)[2] == numbers.GARBAGE
    assert exact(msgspec.Raw(b'"1.50"')) == (150, 2, numbers.OK)
    assert exact(msgspec.Raw(b"1e-7")) == (1, 7, numbers.OK)
    assert exact("٣")[2] == numbers.GARBAGE
