"""The database sink beside the server's own COPY of the same rows from a file of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg
import pyarrow as pa

from marketflow.infra.migrate import migrate
from marketflow.infra.services.base import Service, ServiceError
from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import NS_PER_DAY
from marketflow.sinks.timescale.encode import HEADER, TRAILER, Words, encode, to_columns
from marketflow.sinks.timescale.writer import TimescaleWriter, copy_statement
from tests.benchmarks import peers
from tests.benchmarks.harness import Result, benchmark, rate
from tests.support.batches import START_NS, Feed, Item
from tests.support.services.local import new_database, services_folder, start

_SHARDS: Final = 16
_SYMBOLS: Final = tuple(f"S{i}" for i in range(50))


class _Day(Feed):
    """Batches one after the other in time, as a flow hands them over."""

    batches = 40
    made = 0

    def _times(self, rows: int) -> np.ndarray:
        span = NS_PER_DAY // self.batches
        self.made += 1
        times = self.rng.integers(0, span, rows)
        return START_NS + (self.made - 1) * span + np.sort(times)


def _items(table: str, rows: int, batches: int) -> list[Item]:
    feed = _Day(np.random.default_rng(1), symbols=_SYMBOLS)
    feed.batches = batches
    return [feed.item(k % _SHARDS, {table: rows // batches}) for k in range(batches)]


def _file(items: list[Item], table: str, path: Path) -> None:
    """The rows as the server's own COPY reads them."""
    words = Words()
    with path.open("wb") as file:
        file.write(HEADER)
        for item in items:
            for piece in encode(TABLES[table], _columns(item, table, words), words):
                file.write(piece)
        file.write(TRAILER)
    path.chmod(0o644)


def _columns(item: Item, table: str, words: Words) -> list[Any]:
    return to_columns(TABLES[table], item.tables[table], words)


def _bound(service: Service, table: str, path: Path) -> float:
    """Seconds of COPY FROM file, committed."""
    with new_database(service) as dsn:
        migrate(dsn, TABLES)
        with psycopg.connect(dsn) as connection:
            started = time.perf_counter()
            connection.execute(copy_statement(table).replace("STDIN", f"'{path}'"))
            connection.commit()
            return time.perf_counter() - started


def _sink(service: Service, items: list[Item]) -> float:
    """Seconds of the sink, exactly once included."""
    with new_database(service) as dsn:
        migrate(dsn, TABLES)
        writer = TimescaleWriter(dsn, recovery="bench")
        started = time.perf_counter()
        for item in items:
            writer.write(item)
        writer.snapshot()
        seconds = time.perf_counter() - started
        writer.close()
        return seconds


@benchmark("timescale sink", pinned=False)
def timescale_sink(quick: bool) -> Iterator[Result]:
    """Sink and bound in turn, because the machine's speed drifts; figures are medians."""
    with services_folder() as folder:
        try:
            service = start("timescale", folder)
        except ServiceError:
            return  # no server to be had here: nothing to measure
        try:
            for table, rows in (("quotes", 400_000), ("trades", 400_000), ("depth", 60_000)):
                rows = 20_000 if quick else rows
                yield _beside(service, folder, table, rows, runs=1 if quick else 3)
        finally:
            service.down()


def _beside(service: Service, folder: Path, table: str, rows: int, runs: int) -> Result:
    items = _items(table, rows, 40)
    path = folder / f"{table}.bin"
    _file(items, table, path)
    _sink(service, items)
    bounds, sinks = [], []
    for _ in range(runs):
        bounds.append(_bound(service, table, path))
        sinks.append(_sink(service, items))
    bound = rows / statistics.median(bounds)
    slow = _peers(service, folder, items) if table == "quotes" else {}
    return Result(
        f"timescale sink: {table}",
        rows / statistics.median(sinks),
        "rows/s",
        0.85 * bound,
        f"{rows:,} rows of {len(_SYMBOLS)} symbols in 40 batches into an indexed hypertable, "
        "transactions of 100,000 rows, fsync on, sink and server on 2 cores; "
        "target: 85 % of the server-side COPY",
        peers={"server-side COPY of a binary file": bound, **slow},
    )


def _peers(service: Service, folder: Path, items: list[Item]) -> dict[str, float]:
    """Libraries with eight columns of the same quotes, into a hypertable with one index."""
    rows = pa.Table.from_batches([item.tables["quotes"] for item in items])
    texts = [pa.string() if pa.types.is_dictionary(f.type) else f.type for f in rows.schema]
    times = [pa.timestamp("us", "UTC") if pa.types.is_timestamp(kind) else kind for kind in texts]
    plain = [c.cast(kind, safe=False) for c, kind in zip(rows.columns, times, strict=True)]
    table = pa.table(plain, names=rows.schema.names)
    path = folder / "peer.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with new_database(service) as dsn:
        migrate(dsn, TABLES)
        return peers.measure("postgres", dsn, str(path))


@benchmark("copy binary")
def copy_binary(quick: bool) -> Iterator[Result]:
    """Arrow batches to COPY BINARY, without a server."""
    for table, target in (("quotes", 2e6), ("trades", None), ("book_events", None)):
        items = _items(table, 10_000 if quick else 200_000, 10)
        words = Words()

        def once(items: list[Item] = items, table: str = table, words: Words = words) -> int:
            for item in items:
                for _ in encode(TABLES[table], _columns(item, table, words), words):
                    pass
            return sum(item.tables[table].num_rows for item in items)

        yield Result(
            f"COPY BINARY encoder: {table}",
            rate(once, runs=1 if quick else 5),
            "rows/s",
            target,
            f"{items[0].tables[table].num_rows:,} rows a batch, 1 core",
        )
