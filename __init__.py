"""marketflow for notebooks: run flows, scan the lake, ask it in SQL, look at a book.

::

    import marketflow as mf

    mf.run("market_data", source="itch:day.itch50.gz?date=2026-03-02", sinks=["parquet:lake"])
    mf.scan("trades", lake="lake", symbols=["AAPL"], start="2026-03-02").collect()
    mf.sql("SELECT symbol, count(*) FROM quotes GROUP BY symbol", lake="lake")
    mf.book_at("AAPL", "2026-03-02T15:00:00", lake="lake")

Prices and sizes are exact decimals, times nanoseconds in UTC. Mistakes are exceptions whose text
names the fix.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

__all__ = ["book_at", "feeds", "run", "scan", "sql"]

#: A moment: ISO text, a date (its start), a datetime (UTC where it names no zone), or int ns.
Moment = str | date | datetime | int


def run(
    flow: str, source: str | Sequence[str], sinks: str | Sequence[str], **options: Any
) -> dict[str, Any]:
    """Run a flow to the end of its sources; returns the summary of ``marketflow run --json``.

    ``source`` and ``sinks`` are URLs, one or several; options as of the command line, such as
    ``recovery=DIR`` and ``processes=N``.
    """
    from marketflow.flows.runtime.run import run as run_flow

    return run_flow(flow, _several(source), _several(sinks), **options)


def scan(
    table: str,
    *,
    lake: str | Path,
    symbols: Sequence[str] | None = None,
    venues: Sequence[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    floats: bool = False,
) -> pl.LazyFrame:
    """A table of the lake as a lazy frame, ``date`` last; rows of [start, end).

    Only the dates and venues that can matter are opened, and of their files only the row groups
    that can hold the symbols and times. A symbol or venue that the table does not have is an
    error, which names the nearest. ``floats``: prices and sizes as float64, to plot them; they are
    exact decimals otherwise.
    """
    from marketflow.flows.queries.polars_lake import scan_lake

    named = _names("symbols", symbols), _names("venues", venues)
    return scan_lake(table, Path(lake), *named, start, end, floats)


def sql(
    query: str, *, lake: str | Path | None = None, dsn: str | None = None, floats: bool = False
) -> pl.DataFrame:
    """The result of a SELECT over the tables of a lake (DuckDB's SQL) or of a database
    (PostgreSQL's, see ``marketflow migrate``). Decimals are exact, or float64 with ``floats``, to
    plot them; times are UTC."""
    from marketflow.flows.errors import UsageError
    from marketflow.flows.queries.sql import query_frame

    if (lake is None) == (dsn is None):
        raise UsageError("say where: sql(query, lake=DIR) or sql(query, dsn=DSN)")
    return query_frame(query, None if lake is None else Path(lake), dsn, floats)


def feeds(*, lake: str | Path | None = None, dsn: str | None = None) -> pl.DataFrame:
    """The feeds that were loaded into a lake or a database: a row for each one that a run claimed,
    with its source, state (running, complete, cut off), rows by table (JSON), event times and
    settings."""
    return sql("SELECT * FROM feeds ORDER BY started, feed", lake=lake, dsn=dsn)


def book_at(symbol: str, ts: Moment, *, lake: str | Path, venue: str | None = None) -> pl.DataFrame:
    """The book of a symbol as its newest ``depth`` row at or before ``ts`` shows it.

    Columns: side (bid, ask), level (1 is best), price, size, count, book_state, ts_event, venue;
    bids first, best first on each side. Empty where there is no such row or the book was empty.
    Raises ValueError when several venues have the symbol and none is named, and for a symbol or
    venue without any book, with the nearest that has one.
    """
    from marketflow.flows.queries.polars_lake import book_levels

    return book_levels(symbol, ts, Path(lake), venue)


def _several(urls: str | Sequence[str]) -> list[str]:
    return [urls] if isinstance(urls, str) else list(urls)


def _names(what: str, names: Sequence[str] | None) -> list[str] | None:
    if isinstance(names, str):
        raise ValueError(f"{what} is a list: write {what}=[{names!r}]")
    return None if names is None else list(names)
