"""Bytes to columns and columns to books, each alone, beside peers on the same data."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.events import EventBatch, EventKind
from marketflow.operators.formats.itch.decoder import ItchDecoder
from marketflow.operators.venues.binance.feed import BinanceFeed
from tests.benchmarks import feeds, peers
from tests.benchmarks.harness import Result, benchmark, rate
from tests.reference.books import NaiveBook
from tests.reference.itch import ItchTwin

_SESSION = date(2026, 3, 2)
_REAL_ITCH = "nasdaq-itch50/AAPL_20191230_0935_first20000.itch50.zst"
_REAL_BINANCE = "binance-ws-hftbacktest/spot_btcusdt_20240808.gz"
#: What plain Python and object libraries are given of the same feed.
_SAMPLE = 200_000


def _once(work: Callable[[], int]) -> float:
    started = time.perf_counter()
    units = work()
    return units / (time.perf_counter() - started)


def _decode(batches: list[pa.RecordBatch]) -> int:
    decoder = ItchDecoder(_SESSION)
    return sum(decoder.apply(batch).events.messages for batch in batches)


def _twin(batches: list[pa.RecordBatch], most: int) -> int:
    twin = ItchTwin(_SESSION)
    for batch in batches:
        twin.frame(0, 0, batch.column("payload")[0].as_py())
        if twin.messages >= most:
            break
    return twin.messages


@benchmark("itch decode")
def itch_decode(quick: bool) -> Iterator[Result]:
    """Blocks in memory to EVENT rows (numpy columns), all message types."""
    count = 200_000 if quick else 4_000_000
    simulated = f"sim:?events={count}&seed=1&symbols=100"
    runs: list[tuple[str, list[pa.RecordBatch], str]] = [
        ("simulated", feeds.frames_of(simulated), f"{count:,} messages of 100 symbols"),
    ]
    real = feeds.capture(_REAL_ITCH)
    if real is not None:
        batches = feeds.itch_blocks(f"itch:{real}?date=2019-12-30", count // 2)
        what = (
            f"20,000 messages of AAPL, 2019-12-30, one block given again until {_decode(batches):,}"
        )
        runs.append(("recorded AAPL", batches, what))
    sample = feeds.frames_of(f"sim:?events={_SAMPLE // (40 if quick else 4)}")
    slow = {
        "plain Python struct": _once(lambda: _twin(sample, _SAMPLE)),
        **peers.measure("dbn", str(count)),
    }
    for name, batches, what in runs:
        value = rate(partial(_decode, batches))
        conditions = f"{what}, blocks of 64k messages in memory, 1 core"
        yield Result(f"ITCH decode, {name}", value, "messages/s", 40e6, conditions, peers=slow)


def _books(parts: list[list[tuple[int, EventBatch]]], tables: frozenset[str]) -> int:
    """Every part through fresh books; (event rows)."""
    config = BookConfig(tables=tables)
    shards: dict[int, BookShard] = {}
    rows = 0
    for part in parts:
        for shard, batch in part:
            if shard not in shards:
                shards[shard] = BookShard(shard, config)
            shards[shard].apply(batch)
            rows += len(batch.rows)
    return rows


def _naive(deltas: np.ndarray) -> Callable[[], int]:
    kinds = {1: EventKind.ADD, 2: EventKind.MODIFY, 3: EventKind.DELETE}
    rows = [
        {"instrument": i, "kind": kinds[a], "side": s, "order_lo": o, "price": p, "size": n}
        for i, a, s, o, p, n, _ in deltas.tolist()
    ]

    def run() -> int:
        books = {row["instrument"]: NaiveBook() for row in rows}
        for row in rows:
            books[row["instrument"]].apply(row)
        return len(rows)

    return run


@benchmark("l3 books")
def l3_books(quick: bool) -> Iterator[Result]:
    """Books of orders from decoded events, with finished trades and quotes batches out."""
    count = 200_000 if quick else 2_000_000
    batches = feeds.frames_of(f"sim:?events={count}&seed=1&symbols=100")
    parts = feeds.by_shard(batches, ItchDecoder(_SESSION))
    # One shard: what is measured is the engine, not the 16 small batches of a cut one.
    single = feeds.by_shard(batches, ItchDecoder(_SESSION, shards=1))
    deltas = feeds.Deltas(feeds.plain_events(single, _SAMPLE // (10 if quick else 1))).rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deltas.npy"
        np.save(path, deltas)
        slow = peers.measure("books", str(path))
    slow["plain Python, no quotes"] = _once(_naive(deltas))
    tables = frozenset({"trades", "quotes"})
    for name, input_parts, shards in (("1 shard", single, 1), ("16 shards", parts, 16)):
        value = rate(partial(_books, input_parts, tables))
        conditions = (
            f"{count:,} simulated messages of 100 symbols, batches of 64k messages over "
            f"{shards} shard(s), fresh books, tables trades and quotes, 1 core; peers apply the "
            f"first {len(deltas):,} changes as prebuilt objects and emit nothing"
        )
        yield Result(
            f"L3 books, {name}", value, "events/s", 8e6, conditions, peers=slow,
        )  # fmt: skip


@benchmark("l2 books")
def l2_books(quick: bool) -> Iterator[Result]:
    """Books of levels from decoded Binance depth, with quotes out."""
    count = 20_000 if quick else 300_000
    batches = feeds.frames_of(f"sim:?events={count}&format=binance&symbols=20")
    parts = feeds.by_shard(batches, BinanceFeed("spot"))
    rows = np.concatenate([batch.rows for part in parts for _, batch in part])
    levels = rows[rows["kind"] == EventKind.LEVEL]
    columns = ("instrument", "side", "price", "size", "price_scale", "size_scale")
    sample = np.stack([levels[name][:_SAMPLE].astype(np.int64) for name in columns], axis=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "levels.npy"
        np.save(path, sample)
        slow = peers.measure("levels", str(path))

    def run() -> int:
        _books(parts, frozenset({"quotes", "quality_events"}))
        return len(levels)

    conditions = (
        f"{len(levels):,} levels among {len(rows):,} rows (the rest applied, not counted) of "
        f"{count:,} simulated Binance messages of 20 symbols over 16 shards, continuity checked, "
        f"quotes out, 1 core; the peer sets the first {len(sample):,} levels as prebuilt Decimals"
    )
    yield Result("L2 books", rate(run), "levels/s", None, conditions, peers=slow)


class _Depth(msgspec.Struct):
    """What a typed parser makes of a depth message."""

    E: int
    s: str
    U: int
    u: int
    b: list[tuple[Decimal, Decimal]]
    a: list[tuple[Decimal, Decimal]]


class _DepthMessage(msgspec.Struct):
    stream: str
    data: _Depth


class _Trade(msgspec.Struct):
    E: int
    s: str
    t: int
    p: Decimal
    q: Decimal
    T: int
    m: bool


class _TradeMessage(msgspec.Struct):
    stream: str
    data: _Trade


def _json_depth(texts: list[bytes]) -> int:
    levels = 0
    for text in texts:
        data = json.loads(text)["data"]
        for side in (data["b"], data["a"]):
            levels += len([(Decimal(price), Decimal(size)) for price, size in side])
    return levels


def _json_trades(texts: list[bytes]) -> int:
    for text in texts:
        data = json.loads(text)["data"]
        Decimal(data["p"]), Decimal(data["q"])
    return len(texts)


def _typed_depth(texts: list[bytes]) -> int:
    decoder = msgspec.json.Decoder(_DepthMessage)
    found = (decoder.decode(text).data for text in texts)
    return sum(len(depth.b) + len(depth.a) for depth in found)


def _typed_trades(texts: list[bytes]) -> int:
    decoder = msgspec.json.Decoder(_TradeMessage)
    return len([decoder.decode(text) for text in texts])


@benchmark("venue json")
def venue_json(quick: bool) -> Iterator[Result]:
    """Binance messages in memory to EVENT rows, depth and trades each alone."""
    real = feeds.capture(_REAL_BINANCE)
    if real is not None:
        batches, what = feeds.frames_of(f"binance:{real}?market=spot"), "recorded BTCUSDT spot"
    else:
        batches, what = feeds.frames_of("sim:?events=40000&format=binance"), "simulated"
    for name, kind, target, typed, plain in (
        ("depthUpdate", EventKind.LEVEL, 15e6, _typed_depth, _json_depth),
        ("trade", EventKind.TRADE, 2e6, _typed_trades, _json_trades),
    ):
        messages = feeds.only(batches, f'"e":"{name}"')
        texts = messages.column("payload").to_pylist()[:20_000]
        slow = {
            "msgspec, Struct + Decimal": rate(partial(typed, texts), runs=1),
            "json + Decimal": rate(partial(plain, texts), runs=1),
        }
        block = feeds.repeated(messages, 1 if quick else max(1, 100_000 // len(messages)))
        feed = BinanceFeed("spot")  # knows its symbols after the first run, which is not counted
        events, _ = feed.apply(block)
        count = int(np.count_nonzero(events.rows["kind"] == kind))

        def run(feed: BinanceFeed = feed, block: pa.RecordBatch = block, count: int = count) -> int:
            feed.apply(block)
            return count

        unit = "levels/s" if kind == EventKind.LEVEL else "trades/s"
        conditions = f"{what}, {block.num_rows:,} {name} messages in memory in one batch, 1 core"
        yield Result(f"Binance JSON, {unit[:-2]}", rate(run), unit, target, conditions, peers=slow)
