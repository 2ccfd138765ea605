"""Kernels of market_data that are compiled ahead of a run: of its books, rows and decoders."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from marketflow.flows.catalogue import Part
from marketflow.flows.market_data import decoders
from marketflow.sources.config import SourceConfig
from marketflow.sources.files.config import BinanceConfig, ItchConfig
from marketflow.sources.simulator.config import SimulatorConfig


def warm_books() -> None:
    from marketflow.operators.books.core import BookConfig, BookShard
    from marketflow.operators.events import EVENT, NO_INSTRUMENTS, EventBatch

    shard = BookShard(0, BookConfig())
    shard.apply(EventBatch(np.zeros(0, EVENT), NO_INSTRUMENTS))
    shard.restore(shard.snapshot())


def warm_rows() -> None:
    """Rows of every table that a kernel writes, into bars and a lake."""
    from marketflow.operators.bars.core import BarsConfig, BarsShard
    from marketflow.operators.events import INSTRUMENT, Instruments, Rows
    from marketflow.operators.rows import rows_to_batch
    from marketflow.schemas.derived.kernel_rows import row_dtype
    from marketflow.schemas.tables import TABLES
    from marketflow.sinks.registry import parse_sink

    instruments = Instruments.of(np.zeros(1, INSTRUMENT), ["VENUE"], ["SYMBOL"])
    made = {}
    for name in ("trades", "quotes", "depth", "book_events", "quality_events"):
        rows = np.zeros(2, row_dtype(TABLES[name]))
        rows["ts_event"] = 1
        made[name] = rows_to_batch(TABLES[name], rows, instruments, 0, 0)
    bars = BarsShard(BarsConfig(("1s",))).apply(Rows(0, made, ended=True))
    with tempfile.TemporaryDirectory(prefix="marketflow-kernels-") as folder:
        writer = parse_sink(f"parquet:{Path(folder) / 'lake'}").open()
        writer.write(Rows(0, {**made, **bars.tables}))
        writer.close()


def _decoded(source: str, frames: pa.RecordBatch) -> None:
    from marketflow.operators.normalise.core import Normaliser
    from marketflow.schemas.shards import ShardPlan
    from marketflow.sources.registry import parse_source

    decoder = decoders.decoder(parse_source(source), 1)
    Normaliser("warm", decoder, ShardPlan(0, 1)).apply(frames)


def _frames(payload: bytes) -> pa.RecordBatch:
    from marketflow.schemas.messages import frame_batches as framing

    bounds = np.array([0, len(payload)], np.int64)
    stamps = np.ones(1, np.int64)
    return framing.batch(
        np.zeros(1, np.int64), framing.payloads(pa.py_buffer(payload), bounds), ts_recv=stamps
    )


def warm_itch() -> None:
    """The system event that begins a day."""
    body = b"S" + bytes(10) + b"O"
    _decoded("sim:", _frames(len(body).to_bytes(2, "big") + body))


def warm_binance() -> None:
    trade = (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1.0",'
        b'"q":"1.0","T":1,"m":true,"M":true}}'
    )
    _decoded("sim:?format=binance", _frames(trade))


_HERE: Final = "marketflow.flows.market_data.compiled"
_SPLIT: Final = "marketflow.operators.kernels.split:split_rows"
BOOKS: Final = Part(
    "books",
    24,
    (
        "marketflow.operators.books.kernels.engine:run",
        "marketflow.operators.books.kernels.pack:pack",
    ),
    f"{_HERE}:warm_books",
)
ROWS: Final = Part(
    "rows",
    13,
    (
        "marketflow.operators.kernels.widen:fill",
        "marketflow.operators.bars.kernels.bars:emit_until",
        "marketflow.sinks.lake.order:_scatter_runs",
    ),
    f"{_HERE}:warm_rows",
)
ITCH: Final = Part(
    "itch",
    4,
    ("marketflow.operators.formats.itch.kernels.itch:decode", _SPLIT),
    f"{_HERE}:warm_itch",
)
BINANCE: Final = Part(
    "binance",
    9,
    ("marketflow.operators.venues.binance.kernels.scan:decode_frames", _SPLIT),
    f"{_HERE}:warm_binance",
)


def parts(sources: Sequence[SourceConfig] | None) -> list[Part]:
    """Kernel parts that a run over these sources needs; None: any run."""
    if sources is None:
        return [BOOKS, ROWS, ITCH, BINANCE]
    wanted = [BOOKS, ROWS]
    for source in sources:
        match source:
            case ItchConfig() | SimulatorConfig(format="itch"):
                wanted.append(ITCH)
            case BinanceConfig() | SimulatorConfig():
                wanted.append(BINANCE)
            case _ if (venue := decoders.raw_venue(source)) == decoders.ITCH:
                wanted.append(ITCH)
            case _ if venue.startswith("BINANCE"):
                wanted.append(BINANCE)
    return wanted
