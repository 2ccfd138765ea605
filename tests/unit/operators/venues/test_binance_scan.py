"""Binance's byte scan against the exact decoder: the same rows for every byte of every message."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.operators.events import EVENT
from marketflow.operators.kernels import words
from marketflow.operators.kernels.symbols import find_symbol, make_symbols
from marketflow.operators.normalise.feed import FrameColumns, JsonFeed
from marketflow.operators.venues.binance.feed import Binance, BinanceFeed
from marketflow.operators.venues.binance.kernels.scan import DONE, decode_frames
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, frames
from tests.support.numbers import texts

SPOT_DEPTH = (
    '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT",'
    '"U":50093239189,"u":50093239202,"b":[["61737.63000000","0.00000000"],["61730.17","0.5"]],'
    '"a":[["61837.64000000","1.54698000"]]}}'
)
USDM_DEPTH = (
    '{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161308573,"T":1723161308571,'
    '"s":"BTCUSDT","U":5123112199494,"u":5123112201823,"pu":5123112198994,'
    '"b":[["5000.00","2.321"]],"a":[]}}'
)
COINM_DEPTH = (
    '{"stream":"btcusd_perp@depth","data":{"e":"depthUpdate","E":1591270260907,"T":1591270260891,'
    '"s":"BTCUSD_PERP","ps":"BTCUSD","U":17285681,"u":17285702,"pu":17285675,"b":[],'
    '"a":[["9517.8","10"]]}}'
)
SPOT_TRADE = (
    '{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,'
    '"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
)
USDM_TRADE = (
    '{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,'
    '"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}'
)
MICROSECONDS = SPOT_TRADE.replace("1723161255342", "1723161255342123")
AGG_TRADE = (
    '{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1633998523963,"s":"BTCUSDT",'
    '"a":15683430,"p":"0.35280000","q":"58.00000000","f":19862790,"l":19862790,'
    '"T":1633998523963,"m":false,"M":true}}'
)
SPOT_TICKER = (
    '{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000",'
    '"B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}'
)
USDM_TICKER = (
    '{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT",'
    '"b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256313}}'
)
#: Shapes the scan takes itself.
TAKEN = [
    SPOT_DEPTH,
    USDM_DEPTH,
    COINM_DEPTH,
    SPOT_TRADE,
    USDM_TRADE,
    MICROSECONDS,
    AGG_TRADE,
    SPOT_TICKER,
    USDM_TICKER,
]
#: Shapes it must leave alone.
LEFT = [
    SPOT_DEPTH.replace("@depth@100ms", "@depth20@100ms"),
    SPOT_DEPTH.replace('"a":[[', '"a": [['),
    SPOT_DEPTH.replace("BTCUSDT", "NEWCOIN"),
    SPOT_DEPTH.replace("BTCUSDT", r"BTC\u0055SDT"),
    SPOT_DEPTH.replace("0.5", "-0.5"),
    SPOT_DEPTH.replace("0.5", "1e-7"),
    SPOT_DEPTH.replace("0.5", "0.1234567890123"),
    SPOT_DEPTH.replace("61730.17", "123456789012345678901"),
    SPOT_DEPTH.replace("50093239189", "050093239189"),
    SPOT_DEPTH.replace("1723161255208", "17231612552080"),
    SPOT_DEPTH + " ",
    SPOT_DEPTH[:-1],
    SPOT_TRADE.replace('"m":true', '"m":1'),
    SPOT_TRADE.replace("1723161255342", "0"),
    USDM_TRADE.replace("MARKET", "INSURANCE_FUND"),
    SPOT_TICKER.replace("3.78826000", "0.00000000"),
    SPOT_DEPTH[SPOT_DEPTH.index('{"e"') : -1],
    '{"result":null,"id":1}',
    '{"lastUpdateId":50093239200,"bids":[["1","2"]],"asks":[]}',
    "{}",
    "",
]


def feeds() -> tuple[BinanceFeed, JsonFeed]:
    """Fast and exact; both know BTCUSDT and BTCUSD_PERP."""
    pair = BinanceFeed("spot"), JsonFeed(Binance("spot"))
    known = [
        SPOT_TICKER.replace('"BTCUSDT"', f'"{symbol}"') for symbol in ("BTCUSDT", "BTCUSD_PERP")
    ]
    for feed in pair:
        feed.apply(frames(known))
    return pair


def same(fast: BinanceFeed, exact: JsonFeed, items: list[TestFrame | str]) -> None:
    got, expected = fast.apply(frames(items)), exact.apply(frames(items))
    assert got.events.rows.tolist() == expected.events.rows.tolist()
    assert got.events.rows.tobytes() == expected.events.rows.tobytes()
    assert got.events.messages == expected.events.messages
    assert got.events.tables == expected.events.tables
    assert (got.dead is None) == (expected.dead is None)
    assert got.dead is None or got.dead.equals(expected.dead)
    assert pickle.dumps(fast.snapshot()) == pickle.dumps(exact.snapshot())


def taken(feed: BinanceFeed, payload: str) -> bool:
    """Whether the scan takes the payload itself."""
    columns = FrameColumns(frames([payload]))
    room = np.zeros(100, EVENT)
    _, _, why = decode_frames(feed.batch(columns), 0, room, 0)
    return why == DONE


@pytest.mark.parametrize("payload", TAKEN)
def test_usual_shapes_are_taken(payload: str) -> None:
    assert taken(feeds()[0], payload)
    same(*feeds(), [payload, SPOT_TRADE, payload])


@pytest.mark.parametrize("payload", LEFT)
def test_other_shapes_are_left(payload: str) -> None:
    fast, exact = feeds()
    assert not taken(fast, payload)
    same(fast, exact, [SPOT_DEPTH, payload, SPOT_TRADE])


edits = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "copy"]),
        st.integers(0, 10_000),
        st.sampled_from([*b'0123456789.,"[]{}:-+eE \\@dMT\x00\x1f\x7f\xff']) | st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
)


def edited(payload: str, changes: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(payload.encode())
    for what, place, byte in changes:
        place %= len(data) + 1
        if what == "insert":
            data.insert(place, byte)
        elif what == "copy":
            data[place:place] = data[place : place + 1 + byte % 32]
        elif place < len(data):
            data[place : place + 1] = bytes([byte] if what == "replace" else [])
    return bytes(data)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(TAKEN), edits), min_size=1, max_size=6))
def test_every_mutation_gives_the_same_rows(items: list[tuple[str, list]]) -> None:
    payloads = [edited(payload, changes) for payload, changes in items]
    same(*feeds(), [TestFrame(p) for p in payloads] + [SPOT_DEPTH])


NUMBERS = ["61730.17", "0.5", "61837.63000000", "2.321", "3.78826000", "1.54698000", "0.35280000"]
WHOLES = ["1723161255208", "50093239189", "50093239202", "1723161255342", "3735683259", "15683430"]


@settings(max_examples=150)
@given(st.sampled_from(TAKEN), texts, st.integers(-1, 10**20).map(str))
def test_every_number_gives_the_same_rows(payload: str, number: str, whole: str) -> None:
    swapped = [payload.replace(n, number) for n in NUMBERS]
    swapped += [payload.replace(n, whole) for n in WHOLES]
    same(*feeds(), [p.replace("\n", "") for p in swapped])


@given(st.lists(st.sampled_from(TAKEN + LEFT), max_size=12), st.integers(1, 4))
def test_cuts_mean_nothing(payloads: list[str], size: int) -> None:
    whole, cut = BinanceFeed("spot"), BinanceFeed("spot")
    batch = frames(payloads)
    expected = whole.apply(batch).events.rows
    parts = []
    for start in range(0, len(payloads), size):
        rows = cut.apply(batch.slice(start, size)).events.rows
        rows["frame"] += start
        parts.append(rows)
    assert np.concatenate([np.zeros(0, EVENT), *parts]).tobytes() == expected.tobytes()
    assert pickle.dumps(whole.snapshot()) == pickle.dumps(cut.snapshot())


def test_connections_are_remembered() -> None:
    fast, exact = feeds()
    items = [
        TestFrame(SPOT_DEPTH, connection="a"),
        TestFrame(SPOT_TRADE, connection="b"),
        TestFrame("", FrameKind.DISCONNECT, "a"),
        TestFrame(COINM_DEPTH, connection="a"),
        TestFrame("", FrameKind.DISCONNECT, "b"),
        TestFrame("", FrameKind.CONNECT, "a"),
    ]
    same(fast, exact, items)
    rows = fast.apply(frames(items)).events.rows
    assert rows[rows["kind"] == 42][["frame", "instrument"]].tolist() == [(2, 0), (5, 1)]


def test_restore_forgets_the_old_symbols() -> None:
    fast, exact = feeds()
    other = BinanceFeed("spot")
    swapped = [SPOT_TICKER.replace("BTCUSDT", s) for s in ("BTCUSD_PERP", "BTCUSDT")]
    other.apply(frames(swapped))
    other.restore(fast.snapshot())
    same(other, exact, [SPOT_TRADE, COINM_DEPTH])


@given(st.lists(st.text(min_size=0, max_size=30), unique=True, max_size=40), st.binary(max_size=30))
def test_symbol_table(symbols: list[str], other: bytes) -> None:
    table = make_symbols(tuple(symbols))
    plain = [all(ord(c) >= 32 and c not in '"\\' for c in s) for s in symbols]

    def find(data: bytes) -> int:
        text = np.frombuffer(data + b"x" * words.SPARE, np.uint8)
        start = words.address_of(text)
        return int(find_symbol(table, start, start + len(data)))

    for index, (symbol, is_plain) in enumerate(zip(symbols, plain, strict=True)):
        data = symbol.encode()
        assert find(data) == (index if is_plain and 0 < len(data) <= 24 else -1)
    if other not in [s.encode() for s in symbols]:
        assert find(other) == -1


@given(st.binary(min_size=8, max_size=8))
def test_eight_digits(data: bytes) -> None:
    text = np.frombuffer(data + b"0" * words.SPARE, np.uint8)
    value = words.word(words.address_of(text))
    assert words.is_digits(value) == (data.isdigit() and data.isascii())


@given(st.integers(0, 10**8 - 1))
def test_eight_digits_value(number: int) -> None:
    text = np.frombuffer(f"{number:08}".encode() + b"0" * words.SPARE, np.uint8)
    value = words.word(words.address_of(text))
    assert words.is_digits(value)
    assert words.eight_digits(value) == number


@given(st.binary(min_size=1, max_size=24), st.binary(max_size=30))
def test_literals(expected: bytes, data: bytes) -> None:
    for text in (data, expected + data, expected[:-1] + data):
        array = np.frombuffer(text + b"\1" * (2 * words.SPARE), np.uint8)
        start = words.address_of(array)
        found = words.after(start, words.literal(expected))
        assert (found == start + len(expected)) == array.tobytes().startswith(expected)
        assert found in (-1, start + len(expected))
