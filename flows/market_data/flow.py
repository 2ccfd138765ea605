"""Market data: feeds -> events -> books -> trades, quotes, depth, bars -> sinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from marketflow.operators.bars.core import bars_input, without_bars
from marketflow.operators.engine import Core, core_step
from marketflow.operators.events import EventBatch, Rows
from marketflow.operators.mid_history import is_shown
from marketflow.operators.normalise.core import Normalised


@dataclass(frozen=True, slots=True)
class MarketDataConfig:
    """What makes the core of each step: of a feed by its index, of books and bars by their shard.
    ``intervals``: of the bars; none: only the venues' own."""

    normalise: Callable[[int], Core[pa.RecordBatch, Normalised]]
    books: Callable[[int], Core[EventBatch, Rows]]
    bars: Callable[[int], Core[Rows, Rows]]
    intervals: tuple[str, ...]


def build(source: Source[Any], sink: Sink[Any], config: MarketDataConfig) -> Dataflow:
    """The market_data flow. Step ids are part of the recovery format."""
    flow = Dataflow("market_data")
    feeds = op.map("normalise_feed", op.input("feed", flow, source), _with_feed)
    normalised = core_step("normalise", feeds, config.normalise)
    feed_rows = op.map("normalise_rows", normalised, lambda result: result.feed)
    events = op.flat_map("normalise_by_shard", normalised, _by_shard)
    books = core_step("books", events, config.books)
    traded = op.filter_map("bars_trades", books, lambda rows: bars_input(rows, config.intervals))
    bars = core_step("bars", traded, config.bars)
    others = op.map("others", books, without_bars)
    rows = op.filter("shown", op.merge("merged", others, bars, feed_rows), is_shown)
    op.output("sinks", op.key_on("one_writer", rows, lambda _: "0"), sink)
    return flow


def _with_feed(item: tuple[str, pa.RecordBatch]) -> tuple[str, tuple[int, pa.RecordBatch]]:
    key, frames = item
    return key, (int(key), frames)


def _by_shard(result: Normalised) -> list[tuple[str, tuple[int, EventBatch]]]:
    return [(str(shard), (shard, batch)) for shard, batch in result.parts]
