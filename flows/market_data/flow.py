"""Market data: feeds -> events -> books -> trades, quotes, depth, bars -> sinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from marketflow.operators import mid_history as warmup
from marketflow.operators.bars import core as bars
from marketflow.operators.books import core as book
from marketflow.operators.mid_history import Warmup
from marketflow.operators.normalise import core as normalise
from marketflow.operators.normalise.core import Normaliser


def _in_the_store(step: str, index: int, core: Any) -> Any:
    """The core as it is: the engine keeps its state."""
    return core


@dataclass(frozen=True, slots=True)
class MarketDataConfig:
    """``normaliser`` makes the core of one feed by its index; the rest configures the shards.
    ``warmup``: where a replay begins in mid-history, and from where it is shown. ``keep``: what
    becomes of each core by step and index, where its state is kept (flows.runtime.aside)."""

    normaliser: Callable[[int], Normaliser]
    book: book.BookConfig
    bars: bars.BarsConfig
    warmup: Warmup = field(default_factory=Warmup)
    keep: Callable[[str, int, Any], Any] = _in_the_store

    def dress(self, step: str) -> Callable[[int, Any], Any]:
        """What a step does with the cores it makes."""
        warm = self.warmup.dress(step)
        return lambda index, core: self.keep(step, index, warm(index, core))


def build(source: Source[Any], sink: Sink[Any], config: MarketDataConfig) -> Dataflow:
    """The market_data flow. Step ids are part of the recovery format."""
    flow = Dataflow("market_data")
    frames = op.input("feed", flow, source)
    normaliser = config.dress(warmup.NORMALISE)
    events, feed_rows = normalise.step(
        "normalise", frames, lambda feed: normaliser(feed, config.normaliser(feed))
    )
    books = book.step("books", events, config.book, config.dress(warmup.BOOKS))
    candles = bars.step("bars", books, config.bars, config.dress(warmup.BARS))
    others = op.map("others", books, bars.without_bars)
    rows = op.merge("rows", others, candles, feed_rows)
    if config.warmup.show_from:
        rows = op.filter("shown", rows, warmup.is_shown)
    op.output("sinks", op.key_on("one_writer", rows, lambda _: "0"), sink)
    return flow
