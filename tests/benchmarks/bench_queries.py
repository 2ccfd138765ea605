"""SQL on a lake of 50 million rows, beside plain DuckDB over the same files in the same run.

Plain is a connection that stays open and reads the files by a glob: what a user of DuckDB would
write, with the same rows as answer. Ours is the whole call, each time: ``mf.sql`` lists the files
as the lake's journal has them, makes the view and asks.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl

import marketflow as mf
from marketflow.schemas.units import NS_PER_DAY, NS_PER_S
from marketflow.sinks.lake.writer import ParquetWriter
from tests.benchmarks.bench_parquet import ROUND_ROWS, Day
from tests.benchmarks.harness import Result, benchmark
from tests.support.batches import START_NS

_DAYS, _OPEN_S, _SESSION_S = 5, 52_200, 23_400
#: Rows of each table over all days; quick: a round of each day.
_ROWS: Final = {"quotes": 30_000_000, "trades": 13_000_000, "depth": 7_000_000}
_RUNS, _STARTS = 15, 9
_TIMES_PLAIN: Final = 1.5
_BOOK_MS, _START_MS = 50.0, 400.0
_AT: Final = "2026-01-04 18:00:00"
#: Ours; plain has ``{minute}`` as it must write it and the files in place of the table.
_QUERIES: Final = {
    "bars of a symbol-day from trades": """
        SELECT {minute} AS minute, arg_min(price, row_sequence) AS open, max(price) AS high,
            min(price) AS low, arg_max(price, row_sequence) AS close, sum(size) AS volume
        FROM trades WHERE symbol = 'SYM5' AND date = '2026-01-03' GROUP BY 1 ORDER BY 1""",
    "last 10 trades": """
        SELECT epoch_ns(ts_event) AS t, price, size, aggressor_side FROM trades
        WHERE symbol = 'SYM5' ORDER BY ts_event DESC, row_sequence DESC LIMIT 10""",
    "spread by minute of a symbol-day": """
        SELECT {minute} AS minute, avg(ask_price - bid_price) AS spread FROM quotes
        WHERE symbol = 'SYM5' AND date = '2026-01-03' AND origin = 'book'
            AND book_state = 'valid' GROUP BY 1 ORDER BY 1""",
}
_BOOK: Final = f"""
    SELECT bid_prices, bid_sizes, ask_prices, ask_sizes FROM depth
    WHERE symbol = 'SYM5' AND date = '{_AT[:10]}' AND ts_event <= '{_AT}'
    ORDER BY ts_event DESC, row_sequence DESC LIMIT 1"""
_BOOK_ANY_DAY: Final = _BOOK.replace(f" AND date = '{_AT[:10]}'", "")


def _write_lake(lake: Path, quick: bool) -> int:
    """Sessions of several days by the lake's own sink; returns the rows."""
    writer = ParquetWriter(lake, "w0", "bench")
    written = 0
    for table, rows in _ROWS.items():
        rounds = 1 if quick else -(-rows // _DAYS // ROUND_ROWS)
        step_ns = _SESSION_S * NS_PER_S // rounds
        day = Day(table, step_ns * 30 // 32 * 16 // ROUND_ROWS)
        for number in range(_DAYS):
            opening = START_NS + number * NS_PER_DAY + _OPEN_S * NS_PER_S
            for part in range(rounds):
                for item in day.round(opening + part * step_ns):
                    writer.write(item)
                writer.snapshot()
                written += ROUND_ROWS
    writer.snapshot()
    writer.close()
    writer.finish()
    return written


def _medians(works: Sequence[Callable[[], Any]], runs: int) -> list[float]:
    """Milliseconds of each, one after the other in every run; a run before warms up."""
    taken: list[list[float]] = [[] for _ in works]
    for run in range(runs + 1):
        for work, times in zip(works, taken, strict=True):
            started = time.perf_counter()
            work()
            if run:
                times.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(times) for times in taken]


def _plain(query: str, lake: Path) -> str:
    minute = "date_trunc('minute', make_timestamp_ns(epoch_ns(ts_event)))"
    for table in _ROWS:
        files = f"read_parquet('{lake}/{table}/*/*/*.parquet', hive_partitioning = true)"
        query = query.replace(f"FROM {table}", f"FROM {files}")
    return query.replace("{minute}", minute)


def _duckdb(con: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    found: pl.DataFrame = con.sql(query).pl()
    return found


def _start(lake: Path) -> None:
    command = str(Path(sys.executable).with_name("marketflow"))
    query = "SELECT symbol, price FROM trades LIMIT 1"
    subprocess.run([command, "sql", "--lake", lake, query], check=True, capture_output=True)


@benchmark("queries", pinned=False)
def queries(quick: bool) -> Iterator[Result]:
    """The README's questions to a large lake."""
    with tempfile.TemporaryDirectory(prefix="marketflow-bench-", dir="/var/tmp") as folder:
        lake = Path(folder) / "lake"
        rows = _write_lake(lake, quick)
        files = len(list(lake.rglob("*.parquet")))
        size = f"{rows:,} rows in {files} files"
        con = duckdb.connect()
        con.execute("SET TimeZone = 'UTC'")
        runs = 3 if quick else _RUNS
        for name, query in _QUERIES.items():
            ours, plain = (
                query.replace("{minute}", "date_trunc('minute', ts_event)"),
                _plain(query, lake),
            )
            if name.startswith("last"):
                ours = ours.replace("epoch_ns(ts_event)", "ts_event_epoch_ns")
            works = [partial(mf.sql, ours, lake=lake), partial(_duckdb, con, plain)]
            found, wanted = works[0](), works[1]()
            assert len(found) and found.rows() == mf_rows(wanted), name
            took, beside = _medians(works, runs)
            yield Result(
                f"sql, {name}", took, "ms", _TIMES_PLAIN * beside, size, "lower", {"plain": beside}
            )
        books = {
            "sql, book at a time": lambda: mf.sql(_BOOK, lake=lake),
            "sql, book at a time, its day unknown": lambda: mf.sql(_BOOK_ANY_DAY, lake=lake),
            "mf.book_at": lambda: mf.book_at("SYM5", _AT, lake=lake),
        }
        plain = _plain(_BOOK, lake).replace(f"'{_AT}'", f"'{_AT}+00'")
        assert books["sql, book at a time"]().equals(con.sql(plain).pl())
        *found_ms, beside = _medians([*books.values(), partial(_duckdb, con, plain)], runs)
        for name, value in zip(books, found_ms, strict=True):
            target = None if "unknown" in name else _BOOK_MS
            yield Result(name, value, "ms", target, size, "lower", {"plain": beside})
        [start] = _medians([lambda: _start(lake)], 2 if quick else _STARTS)
        conditions = "whole command, a row of trades printed, caches of the disk warm"
        yield Result("start of marketflow sql", start, "ms", _START_MS, conditions, "lower")


def mf_rows(plain: Any) -> list[tuple[Any, ...]]:
    """Rows of a plain answer with times as ours have them."""
    from marketflow.flows.queries.polars_lake import told

    return told(plain, False).rows()
