"""Market data: feeds -> events -> books -> trades, quotes, depth, bars -> sinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from operators import bars, book, normalise, warmup
from operators.normalise import Normaliser
from operators.warmup import Warmup


@dataclass(frozen=True, slots=True)
class MarketDataConfig:
    """``normaliser`` makes the core of one feed by its index; the rest configures the shards.
    ``warmup``: where a replay begins in mid-history, and from where it is shown."""

    normaliser: Callable[[int], Normaliser]
    book: book.BookConfig
    bars: bars.BarsConfig
    warmup: Warmup = field(default_factory=Warmup)


def build(source: Source, sink: Sink, config: MarketDataConfig) -> Dataflow:
    """The market_data flow. Step ids are part of the recovery format."""
    flow = Dataflow("market_data")
    frames = op.input("feed", flow, source)
    warm = config.warmup.dress
    normaliser = warm(warmup.NORMALISE)
    events, feed_rows = normalise.step(
        "normalise", frames, lambda feed: normaliser(feed, config.normaliser(feed))
    )
    books = book.step("books", events, config.book, warm(warmup.BOOKS))
    candles = bars.step("bars", books, config.bars, warm(warmup.BARS))
    others = op.map("others", books, bars.without_bars)
    rows = op.merge("rows", others, candles, feed_rows)
    if config.warmup.show_from:
        rows = op.filter("shown", rows, warmup.is_shown)
    op.output("sinks", op.key_on("one_writer", rows, lambda _: "0"), sink)
    return flow
