"""The entry of market_data in the catalogue: what the runtime must know of it."""

from __future__ import annotations

from typing import Final

from marketflow.flows.catalogue import FlowSpec, Start
from marketflow.flows.market_data import compiled, decoders
from marketflow.flows.market_data.flow import MarketDataConfig, build
from marketflow.flows.market_data.settings import MarketDataSettings
from marketflow.operators.bars.core import BarsConfig, BarsShard
from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.normalise.core import Normaliser
from marketflow.schemas.tables.market_data import MARKET_DATA
from marketflow.schemas.units import NS_PER_MS


def make_config(start: Start) -> MarketDataConfig:
    """What makes the cores of one process."""
    settings = start.settings
    assert isinstance(settings, MarketDataSettings)

    def normaliser(feed: int) -> Normaliser:
        source = start.sources[feed]
        decoder = decoders.decoder(source, settings.shards)
        decoder.limit(settings.max_instruments)
        return Normaliser(source.name, decoder, start.plan(feed), source.partition or 0)

    wanted = frozenset(settings.tables)
    books = BookConfig(
        tables=wanted | {"trades"} if "bars" in wanted else wanted,
        depth_interval_ns=settings.depth_interval_ms * NS_PER_MS,
        clock_skew_ns=settings.clock_skew_ms * NS_PER_MS,
        feeds=tuple(source.name for source in start.sources),
        partitions=tuple(source.partition or 0 for source in start.sources),
        shards_per_feed=settings.shards,
        numbers=tuple(start.plan(feed).number for feed in range(len(start.sources))),
    )
    bars = BarsConfig(
        intervals=settings.intervals if "bars" in wanted else (),
        allowed_lateness_ns=settings.late_ms * NS_PER_MS,
    )
    return MarketDataConfig(
        normalise=start.cores("normalise", normaliser),
        books=start.cores("books", lambda index: BookShard(index, books)),
        bars=start.cores("bars", lambda _: BarsShard(bars)),
        intervals=bars.intervals,
    )


SPEC: Final = FlowSpec(
    name="market_data",
    build=build,
    config=make_config,
    by_feed=("normalise",),
    by_shard=("books", "bars"),
    tables={table.name: table for table in MARKET_DATA},
    settings=MarketDataSettings,
    check=decoders.check,
    check_venue=decoders.check_venue,
    rows_of=decoders.rows_of,
    kernels=compiled.parts,
    levels=frozenset({"stale_books", "books", "orders", "levels", "memory_bytes"}),
    clock="trades",
    venue_of=decoders.venue_of,
)
