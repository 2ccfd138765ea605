"""Market data: feeds -> events -> books -> trades, quotes, depth, bars -> sinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from operators import bars, book, normalise
from operators.normalise import Normaliser


@dataclass(frozen=True, slots=True)
class MarketDataConfig:
    """``normaliser`` makes the core of one feed by its index; the rest configures the shards."""

    normaliser: Callable[[int], Normaliser]
    book: book.BookConfig
    bars: bars.BarsConfig


def build(source: Source, sink: Sink, config: MarketDataConfig) -> Dataflow:
    """The market_data flow. Step ids are part of the recovery format."""
    flow = Dataflow("market_data")
    frames = op.input("feed", flow, source)
    events, feed_rows = normalise.step("normalise", frames, config.normaliser)
    books = book.step("books", events, config.book)
    candles = bars.step("bars", books, config.bars)
    rows = op.merge("rows", books, candles, feed_rows)
    op.output("sinks", op.key_on("one_writer", rows, lambda _: "0"), sink)
    return flow
