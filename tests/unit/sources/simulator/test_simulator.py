"""The simulated feeds: the same seed, the same bytes; resume; and what makes them valid."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from marketflow.operators.events import SnapshotRule
from marketflow.operators.formats.itch.decoder import ItchDecoder
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.errors import SourceError
from marketflow.sources.reader import Limits, Reader
from marketflow.sources.registry import parse_source
from marketflow.sources.simulator.chance import TICKERS, ticker, zipf_table
from marketflow.sources.simulator.config import MAX_SYMBOLS
from marketflow.sources.simulator.reader import open_simulator, write_itch
from tests.support.itch_messages import split

ITCH = "sim:?events=30000&seed=7&symbols=20"
BINANCE = "sim:?events=12000&seed=7&symbols=8&format=binance"


def reader(url: str, position: Any = None, max_rows: int = 1_000) -> Reader:
    return open_simulator(parse_source(url), position, Limits(max_rows=max_rows))


def batches(source: Reader) -> Iterator[pa.RecordBatch]:
    while (batch := source.read()) is not None:
        yield batch


def frames(source: Reader) -> list[tuple[Any, ...]]:
    """Every frame as (offset, ts_recv, kind, note, payload)."""
    found: list[tuple[Any, ...]] = []
    for batch in batches(source):
        names = ("offset", "ts_recv", "kind", "note", "payload")
        found += zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    return found


def content(source: Reader) -> bytes:
    return b"".join(frame[-1] for frame in frames(source))


@pytest.fixture(scope="module")
def itch() -> list[bytes]:
    return split(content(reader(ITCH)))


@pytest.mark.parametrize(
    ("url", "digest"),
    [
        (ITCH, "aa6cf86f6ff9f0cf"),
        (BINANCE, "6af4a150376526b2"),
    ],
)
def test_a_seed_means_these_bytes_for_ever(url: str, digest: str) -> None:
    whole = content(reader(url))
    assert hashlib.sha256(whole).hexdigest()[:16] == digest
    assert content(reader(url, max_rows=77)) == whole
    assert content(reader(url.replace("seed=7", "seed=8"))) != whole


@pytest.mark.parametrize("url", [ITCH, BINANCE])
def test_going_on_at_a_position_gives_the_rest(url: str) -> None:
    whole = content(reader(url))
    source = reader(url)
    seen = 0
    for count, batch in enumerate(batches(source)):
        seen += sum(len(p) for p in batch.column("payload").to_pylist())
        if count % 7 == 0 or count > 27:
            position = pickle.loads(pickle.dumps(source.position()))
            rest = frames(reader(url, position, max_rows=3_000))
            assert b"".join(frame[-1] for frame in rest) == whole[seen:]
            assert not rest or rest[0][0] == seen
    assert source.read() is None
    assert reader(url, source.position()).read() is None


def test_a_position_is_a_copy_and_stays_small() -> None:
    source = reader(ITCH)
    source.read()
    first = source.position()
    before = pickle.dumps(first)
    for _ in range(20):
        source.read()
    assert pickle.dumps(first) == before
    assert abs(len(pickle.dumps(source.position())) - len(before)) < 100
    assert len(before) < 20 * 12_000


def test_positions_of_another_feed_are_refused() -> None:
    position = reader(ITCH).position()
    with pytest.raises(SourceError, match="--recovery"):
        reader(ITCH.replace("seed=7", "seed=8"), position)
    with pytest.raises(SourceError, match="--recovery"):
        reader(ITCH, (99, *position[1:]))


@pytest.mark.parametrize("events", [0, 1, 5, 46, 47, 60, 500])
@pytest.mark.parametrize("form", ["itch", "binance"])
def test_a_feed_has_as_many_messages_as_asked_for(events: int, form: str) -> None:
    found = frames(reader(f"sim:?events={events}&symbols=10&format={form}"))
    assert [frame[2] for frame in found].count(FrameKind.END) == 1
    assert found[-1][2] == FrameKind.END
    data = [frame[-1] for frame in found[:-1]]
    assert (len(split(b"".join(data))) if form == "itch" else len(data)) == events


def test_offsets_are_those_of_the_bytes() -> None:
    for url in (ITCH, BINANCE):
        offset = 0
        for frame in frames(reader(url)):
            assert frame[0] == offset
            offset += len(frame[-1])


class Books:
    """Price-time priority the plain way: price -> reference -> shares, in order of arrival."""

    def __init__(self) -> None:
        self.sides: dict[tuple[int, bytes], dict[int, dict[int, int]]] = {}
        self.orders: dict[int, tuple[tuple[int, bytes], int]] = {}
        self.ended: Counter[str] = Counter()

    def add(self, locate: int, side: bytes, ref: int, price: int, shares: int) -> None:
        assert ref not in self.orders
        assert shares > 0
        key = (locate, side)
        self.sides.setdefault(key, {}).setdefault(price, {})[ref] = shares
        self.orders[ref] = (key, price)
        bids, asks = (self.sides.get((locate, s)) for s in (b"B", b"S"))
        assert not bids or not asks or max(bids) < min(asks), "crossed or locked"

    def take(self, ref: int, shares: int | None, why: str) -> bytes:
        key, price = self.orders[ref]
        level = self.sides[key][price]
        if why == "executed":
            best = (max if key[1] == b"B" else min)(self.sides[key])
            assert price == best
            assert next(iter(level)) == ref, "not the oldest"
        left = 0 if shares is None else level[ref] - shares
        assert left >= 0
        level[ref] = left
        if left == 0:
            self.ended[why] += 1
            del level[ref], self.orders[ref]
            if not level:
                del self.sides[key][price]
        return key[1]


def test_executions_hit_the_oldest_order_at_the_best_price_and_no_book_crosses(
    itch: list[bytes],
) -> None:
    books = Books()
    matches: list[int] = []
    for message in itch:
        letter, locate = chr(message[2]), int.from_bytes(message[3:5], "big")

        def number(at: int, size: int, message: bytes = message) -> int:
            return int.from_bytes(message[2 + at : 2 + at + size], "big")

        ref = number(11, 8)
        match letter:
            case "A" | "F":
                books.add(locate, message[21:22], ref, number(32, 4), number(20, 4))
            case "E" | "C":
                books.take(ref, number(19, 4), "executed")
                matches.append(number(23, 8))
            case "X":
                books.take(ref, number(19, 4), "reduced")
            case "D":
                books.take(ref, None, "deleted")
            case "U":
                side = books.take(ref, None, "replaced")
                books.add(locate, side, number(19, 8), number(31, 4), number(27, 4))
            case "P":
                matches.append(number(36, 8))
            case "Q":
                matches.append(number(31, 8))
    assert len(set(matches)) == len(matches)
    assert "reduced" not in books.ended
    executed = books.ended["executed"] / books.ended.total()
    assert 0.03 < executed < 0.07, "about 95 % of the orders are cancelled"


def test_the_day_looks_like_one(itch: list[bytes]) -> None:
    times = [int.from_bytes(m[7:13], "big") for m in itch]
    assert times == sorted(times)
    kinds = Counter(chr(m[2]) for m in itch)
    assert set(kinds) == set("SRHIQAFECXDUP")
    assert kinds["Q"] == 2 * kinds["R"] == 2 * kinds["H"] == 40
    assert [m[13:14] for m in itch if m[2:3] == b"S"] == [b"O", b"S", b"Q", b"M", b"E", b"C"]
    flow = [m for m in itch if m[2:3] in b"AFECXDUP"]
    gaps = np.diff([int.from_bytes(m[7:13], "big") for m in flow])
    assert np.median(gaps) * 10 < np.mean(gaps), "arrivals are clustered"
    by_symbol = Counter(int.from_bytes(m[3:5], "big") for m in flow)
    assert by_symbol[1] > 5 * by_symbol[20] > 0
    begin, end = (int(h * 3_600e9) for h in (9.5, 16))
    assert all(begin <= int.from_bytes(m[7:13], "big") < end for m in flow)
    last = int.from_bytes(flow[-1][7:13], "big")
    assert last > end - 60 * 10**9


def test_the_decoder_takes_every_message(tmp_path: Path) -> None:
    decoder = ItchDecoder(date(2026, 3, 2))
    messages = 0
    for batch in batches(reader(ITCH)):
        events, dead = decoder.apply(batch)
        assert dead is None
        messages += events.messages
    assert messages == 30_000
    assert events.instruments.symbols == ("*", *(ticker(i) for i in range(20)))
    assert set(events.instruments.rows["snapshot_rule"]) == {SnapshotRule.NONE}
    path = tmp_path / "sim.itch"
    write_itch(path, 30_000, 7, 20)
    assert path.read_bytes() == content(reader(ITCH))


class Depth:
    """Price levels of one symbol, kept from the messages."""

    def __init__(self) -> None:
        self.levels: dict[str, dict[str, str]] = {"b": {}, "a": {}}
        self.id = 0

    def best(self) -> tuple[tuple[str, str], ...]:
        bid = max(self.levels["b"], key=float)
        ask = min(self.levels["a"], key=float)
        assert float(bid) < float(ask)
        return (bid, self.levels["b"][bid]), (ask, self.levels["a"][ask])

    def update(self, side: str, levels: list[list[str]]) -> None:
        for price, size in levels:
            if float(size):
                self.levels[side][price] = size
            else:
                self.levels[side].pop(price, None)


def test_binance_books_agree_with_the_tickers() -> None:
    books: dict[str, Depth] = {}
    tickers: dict[str, tuple[int, Any]] = {}
    sent: dict[str, int] = {}
    trades: dict[str, int] = {}
    compared = 0
    for _, ts_recv, kind, note, payload in frames(reader(BINANCE))[:-1]:
        message = json.loads(payload)
        if kind == FrameKind.HTTP:
            name = note.split("symbol=")[1].split("&")[0]
            assert name not in books
            books[name] = book = Depth()
            book.id = message["lastUpdateId"]
            assert sent[name] == book.id
            book.update("b", message["bids"])
            book.update("a", message["asks"])
            assert [float(p) for p, _ in message["bids"]] == sorted(
                (float(p) for p, _ in message["bids"]), reverse=True
            )
            book.best()
            continue
        data, stream = message["data"], message["stream"]
        name = data["s"]
        assert stream.split("@")[0].upper() == name
        if stream.endswith("depth@100ms"):
            assert name not in sent or data["U"] == sent[name] + 1
            assert data["u"] >= data["U"]
            sent[name] = data["u"]
            assert data["b"] or data["a"]
            assert 0 <= ts_recv - data["E"] * 10**6 < 5 * 10**6
            if name in books:
                books[name].update("b", data["b"])
                books[name].update("a", data["a"])
                if name in tickers:
                    assert tickers[name][0] <= data["u"]
                    assert books[name].best() == tickers[name][1]
                    compared += 1
        elif stream.endswith("bookTicker"):
            tickers[name] = (data["u"], ((data["b"], data["B"]), (data["a"], data["A"])))
        else:
            assert data["t"] == trades.get(name, data["t"] - 1) + 1
            trades[name] = data["t"]
            assert float(data["q"]) > 0
    assert len(books) == 8
    assert compared > 2_000
    assert len(trades) == 8


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("events=x", "events=x is not a whole number"),
        ("events=-1", "events"),
        ("symbols=0", "1 to 10,000"),
        ("seed=1_0", "seed"),
        ("format=fix", "itch, binance"),
        ("date=2026-3-2", "YYYY-MM-DD"),
        ("date=0001-01-01", "YYYY-MM-DD"),
        ("speed=9", "known: events, seed"),
    ],
)
def test_wrong_parameters_are_named_with_the_fix(query: str, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        reader(f"sim:?{query}")


@pytest.mark.parametrize("count", [1, 2, 100, 10_000])
def test_every_symbol_has_its_share(count: int) -> None:
    shares = np.bincount(zipf_table(count), minlength=count)
    assert shares.min() >= 1
    assert np.all(np.diff(shares) <= 0)


def test_tickers_differ() -> None:
    assert len({ticker(i) for i in range(TICKERS)}) == TICKERS
    assert TICKERS >= MAX_SYMBOLS
