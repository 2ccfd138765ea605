"""Huobi: the messages of the handlers' docstrings, packed as sent, row by row; what is refused."""

from __future__ import annotations

import gzip
import zlib
from decimal import Decimal

import pytest

from marketflow.operators.events import Continuity, SnapshotRule
from marketflow.operators.venues import huobi
from marketflow.operators.venues.huobi import Huobi
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame
from tests.support.decoded import Group, Print, Quote, decode, events, examples, http, letters

NAME = "HUOBI"
(LISTING,) = examples(Huobi._http)
STEP0, MBP = examples(Huobi._depth)
(ANSWER,) = examples(Huobi._snapshot)
(TRADE,) = examples(Huobi._trade)
(BBO,) = examples(Huobi._bbo)


def packed(message: str) -> TestFrame:
    return TestFrame(gzip.compress(message.encode(), mtime=0))


def test_whole_book() -> None:
    expected = Group(
        "trioeth",
        1_618_678_069_870_000_000,
        100_182_534_679,
        [(Decimal("9.121E-7"), Decimal("92730.24"))],
        [(Decimal("9.199E-7"), Decimal("21003.78"))],
        [],
        snapshot=True,
    )
    assert events(NAME, packed(STEP0)) == events(NAME, STEP0) == [expected]
    refreshed = STEP0.replace("depth.step0", "mbp.refresh.20").replace("version", "seqNum")
    assert events(NAME, packed(refreshed)) == [expected]
    rules = decode(NAME, packed(STEP0)).events.instruments.rows
    assert rules["snapshot_rule"].tolist() == [SnapshotRule.EVERY]


def test_increments_and_the_answer_they_are_spliced_onto() -> None:
    decoded = decode(NAME, packed(MBP), packed(ANSWER))
    rules = decoded.events.instruments.rows[0]
    assert (rules["snapshot_rule"], rules["continuity"]) == (
        SnapshotRule.SPLICE,
        Continuity.PREVIOUS_EQUALS,
    )
    change, snapshot = events(NAME, packed(MBP), packed(ANSWER))
    assert change == Group(
        "btcusdt",
        1_593_561_600_793_000_000,
        109_409_288_160,
        [(Decimal("9135.95"), Decimal("0.4998"))],
        [(Decimal("9138.6"), Decimal("0.010259"))],
        [],
        previous=109_409_288_130,
    )
    assert isinstance(snapshot, Group)
    assert (snapshot.snapshot, snapshot.last) == (True, 109_409_288_160)


def test_one_kind_of_book_per_symbol() -> None:
    step0 = STEP0.replace("trioeth", "btcusdt")
    assert len(events(NAME, MBP, step0)) == 1
    assert len(events(NAME, step0, MBP, ANSWER)) == 1
    # Known before the first quote registers the symbol, because it was asked for.
    asked = TestFrame('{"sub":"market.btcusdt.mbp.150","id":"1"}', FrameKind.SENT)
    rules = decode(NAME, asked, BBO, MBP).events.instruments.rows
    assert rules["snapshot_rule"].tolist() == [SnapshotRule.SPLICE]


def test_trades_are_oldest_first_and_their_ids_exact() -> None:
    expected = Print(
        "trioeth",
        1_618_678_027_940_000_000,
        Decimal("9.2E-7"),
        Decimal("20995.88"),
        "buy",
        "100045088885",
    )
    assert events(NAME, packed(TRADE)) == [expected]
    old = TRADE.replace('"tradeId":100045088885,', "")
    assert events(NAME, old) == [expected._replace(trade_id="100182534526255757567432481")]
    texts = old.replace("100182534526255757567432481", '"100182534526255757567432481"')
    assert events(NAME, texts) == events(NAME, old)
    item = TRADE[TRADE.index("[{") + 1 : TRADE.index("]")]
    two = TRADE.replace("]", "," + item.replace("100045088885", "100045088884") + "]")
    assert [e.trade_id for e in events(NAME, two) if isinstance(e, Print)] == [
        "100045088884",
        "100045088885",
    ]


def test_bbo() -> None:
    expected = Quote(
        "btcusdt",
        1_575_158_404_057_000_000,
        (Decimal("7541.16"), Decimal("0.002329")),
        (Decimal("7543.59"), Decimal("2.323241")),
        103_273_695_595,
    )
    assert events(NAME, packed(BBO)) == [expected]
    assert events(NAME, BBO.replace("7541.16", "null")) == [expected._replace(bid=None)]
    assert events(NAME, BBO.replace('"seqId":103273695595,', "")) == [
        expected._replace(sequence=None)
    ]


def test_instrument_row_at_its_first_message() -> None:
    url = "https://api.huobi.pro/v1/common/symbols"
    decoded = decode(NAME, http(url, LISTING), packed(TRADE.replace("trioeth", "yeebtc")))
    (row,) = decoded.events.tables["instruments"].drop_columns(["ts_event", "ts_recv"]).to_pylist()
    assert (row["price_increment"], row["size_increment"]) == (
        Decimal("0.0000000001"),
        Decimal("0.01"),
    )
    assert (row["base_currency"], row["quote_currency"], row["status"]) == ("yee", "btc", "open")


def test_silent() -> None:
    silent = [
        '{"ping":1618678073643}',
        '{"id":1,"status":"ok","subbed":"market.trioeth.depth.step0","ts":1618678070653}',
        '{"ch":"market.btcusdt.kline.1min","ts":1,"tick":{}}',
        '{"ch":"market.btcusdt.detail","ts":1,"tick":{}}',
        '{"id":"1","status":"ok","rep":"market.btcusdt.kline.1min","data":[]}',
    ]
    sent = TestFrame('{"pong":1618678098643}', FrameKind.SENT)
    assert events(NAME, *map(packed, silent), sent) == []


@pytest.mark.parametrize(
    "payload",
    [
        gzip.compress(STEP0.encode(), mtime=0)[:-4],  # cut off
        gzip.compress(STEP0.encode(), mtime=0)[:30] + b"\xff" * 30,  # broken
        b"\x1f\x8b",
        gzip.compress(bytes(huobi.MAX_MESSAGE_BYTES + 1), mtime=0),  # a bomb
    ],
)
def test_a_frame_that_does_not_unpack(payload: bytes) -> None:
    reason, _ = letters(decode(NAME, TestFrame(payload)))[0]
    assert reason == "invalid_encoding"


def test_plain_deflate_is_no_gzip() -> None:
    decoded = decode(NAME, TestFrame(zlib.compress(STEP0.encode())))
    assert letters(decoded)[0][0] == "malformed"


def test_refused() -> None:
    bad = [
        '{"status":"error","err-code":"bad-request","err-msg":"invalid topic","id":"1"}',
        "{}",
        STEP0.replace("depth.step0", "depth.size_150.high_freq"),
        STEP0.replace('"tick"', '"update":true,"tick"'),
        TRADE.replace('"buy"', '"none"'),
        TRADE.replace("1618678027940,", "-1,"),
        STEP0.replace("[[9.121E-7", "[9.121E-7"),
    ]
    reasons = [letters(decode(NAME, packed(message)))[0][0] for message in bad]
    assert reasons == [
        "unknown_message",
        "unknown_message",
        "unknown_message",
        "unknown_message",
        "bad_side",
        "bad_timestamp",
        "malformed",
    ]
