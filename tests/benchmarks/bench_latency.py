"""One tick through an idle flow: from the moment the venue sends it to the writer that has it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
from bytewax.run import cli_main

from marketflow.flows.market_data import flow as market_data
from marketflow.flows.market_data.flow import MarketDataConfig
from marketflow.operators.bars.core import BarsConfig, BarsShard
from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.normalise.core import Normaliser
from marketflow.operators.venues.binance.feed import BinanceFeed
from marketflow.schemas.shards import ShardPlan
from marketflow.sinks.engine import WriterSink
from tests.benchmarks.harness import Result, benchmark
from tests.benchmarks.live import Arrivals, LiveSource, one_frame, quote, trade, venue

_GAP_MS = 3
_WARM_TICKS = 100
_INTERVALS = ("1s", "1m", "1h")


def _through(ticks: int, kind: str, table: str) -> np.ndarray:
    """Latencies in microseconds, without the first ticks (which load kernels and grow tables)."""
    arrivals = Arrivals(table)
    config = MarketDataConfig(
        normalise=lambda feed: Normaliser("live", BinanceFeed("spot"), ShardPlan(feed)),
        books=lambda shard: BookShard(shard, BookConfig()),
        bars=lambda _: BarsShard(BarsConfig(_INTERVALS)),
        intervals=_INTERVALS,
    )
    with venue(ticks + _WARM_TICKS, _GAP_MS, kind) as line:
        flow = market_data.build(LiveSource(line), WriterSink([arrivals]), config)
        cli_main(flow, epoch_interval=timedelta(seconds=2))
    assert arrivals.thread == "sinks", "the writer runs in its own thread, as in the product"
    return np.array(arrivals.waited[_WARM_TICKS:]) / 1000


def _alone(ticks: int, kind: str) -> float:
    """Median of what the steps themselves take, without engine, socket and thread (µs)."""
    make = trade if kind == "trade" else quote
    normaliser = Normaliser("live", BinanceFeed("spot"), ShardPlan(0))
    shards: dict[int, tuple[BookShard, BarsShard]] = {}
    taken = []
    for number in range(ticks):
        now = time.time_ns()
        frame = one_frame(make(number, now // 1_000_000), now)
        started = time.perf_counter_ns()
        for shard, batch in normaliser.apply(frame).parts:
            if shard not in shards:
                shards[shard] = (
                    BookShard(shard, BookConfig()),
                    BarsShard(BarsConfig(_INTERVALS)),
                )
            book, bars = shards[shard]
            bars.apply(book.apply(batch))
        taken.append(time.perf_counter_ns() - started)
    return float(np.median(taken[_WARM_TICKS:])) / 1000


@benchmark("tick latency", pinned=False)
def tick_latency(quick: bool) -> Iterator[Result]:
    """Trades and best prices of Binance, one every few milliseconds."""
    ticks = 300 if quick else 3000
    for kind, table in (("trade", "trades"), ("bookTicker", "quotes")):
        _through(1, kind, table)  # loads the kernels
        waited = _through(ticks, kind, table)
        steps = _alone(ticks, kind)
        conditions = (
            f"{len(waited):,} Binance {kind} messages, one each {_GAP_MS} ms, from another process "
            f"over a socket; through normalise, books (all tables) and bars of 3 intervals to the "
            f"writer thread; 2-second epochs, not pinned, steps alone {steps:.0f} µs; "
            f"worst {waited.max():,.0f} µs"
        )
        for quantile, target in ((50, 100), (99, 500)):
            yield Result(
                f"one {kind} through an idle flow, p{quantile}",
                float(np.percentile(waited, quantile)), "µs", target, conditions, better="lower",
            )  # fmt: skip
