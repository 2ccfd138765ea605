"""The lake as polars frames: lazy scans that open only what can matter, and books at a moment.

Times are UTC and prices exact decimals, also in the answers of queries (``told``); floats only
where somebody asks for them, to plot. A name that the lake does not know is an error that names
the nearest.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Final

import polars as pl

from marketflow.flows.errors import UsageError, nearest
from marketflow.flows.queries.describe import known_table
from marketflow.schemas.fields import Kind, Table
from marketflow.schemas.moments import date_at, date_of, moment_ns
from marketflow.schemas.tables.market_data import DEPTH
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lake.layout import check_lake, list_files, list_partitions

#: Symbols that an error names.
_SOME: Final = 10
_TIME: Final = pl.Datetime("ns", "UTC")
_DECIMAL: Final = pl.Decimal(28, 12)
_TYPES: Final[dict[Kind, pl.DataType | type[pl.DataType]]] = {
    Kind.SHARD: pl.Int64,
    Kind.INT32: pl.Int32,
    Kind.INT64: pl.Int64,
    Kind.UINT8: pl.UInt8,
    Kind.BOOL: pl.Boolean,
    Kind.DECIMAL: _DECIMAL,
    Kind.SUM: pl.Decimal(38, 12),
    Kind.TIME: _TIME,
    Kind.CODE: pl.String,
    Kind.NAME: pl.String,
    Kind.ID: pl.String,
    Kind.TEXT: pl.String,
    Kind.BYTES: pl.Binary,
    Kind.DECIMALS: pl.List(_DECIMAL),
    Kind.COUNTS: pl.List(pl.Int32),
}
_BOOK: Final = pl.Schema(
    {
        "side": pl.String(),
        "level": pl.Int64(),
        "price": _DECIMAL,
        "size": _DECIMAL,
        "count": pl.Int32(),
        "book_state": pl.String(),
        "ts_event": _TIME,
        "venue": pl.String(),
    }
)


def scan_lake(
    name: str,
    root: Path,
    symbols: list[str] | None,
    venues: list[str] | None,
    start: str | date | datetime | int | None,
    end: str | date | datetime | int | None,
    floats: bool = False,
) -> pl.LazyFrame:
    """A table as a lazy frame (see marketflow.scan). Raises UsageError with the fix."""
    table = known_table(name)
    _check(root)
    for given, column in ((symbols, "symbol"), (venues, "venue")):
        if given is not None and column not in table.names:
            raise UsageError(f"{name} has no {column}: leave out {column}s=")
    _check_venues(root, table, venues or [])
    _check_symbols(root, table, symbols or [])
    first_ns = None if start is None else _moment("start", start)
    end_ns = None if end is None else _moment("end", end)
    files = list_files(
        root,
        name,
        first=None if first_ns is None else date_at(first_ns),
        last=None if end_ns is None else date_at(end_ns - 1),
        venues=venues,
    )
    frame = _frame(table, root, files)
    if first_ns is not None:
        frame = frame.filter(pl.col(table.time_field) >= pl.lit(first_ns, dtype=_TIME))
    if end_ns is not None:
        frame = frame.filter(pl.col(table.time_field) < pl.lit(end_ns, dtype=_TIME))
    if symbols is not None:
        frame = frame.filter(pl.col("symbol").is_in(symbols))
    if floats:
        frame = frame.with_columns(
            pl.col(field.name).cast(
                pl.List(pl.Float64) if field.kind is Kind.DECIMALS else pl.Float64
            )
            for field in table.fields
            if field.kind in (Kind.DECIMAL, Kind.SUM, Kind.DECIMALS)
        )
    return frame


def told(frame: pl.DataFrame, floats: bool) -> pl.DataFrame:
    """The answer to a query, with times in UTC, which SQL's are without saying so."""
    types = {name: _shown(kind, floats) for name, kind in frame.schema.items()}
    return frame.cast({n: kind for n, kind in types.items() if kind != frame.schema[n]})


def _shown(kind: pl.DataType, floats: bool) -> pl.DataType:
    """The type of a column as notebooks have it."""
    if isinstance(kind, pl.Datetime) and kind.time_zone is None:
        return pl.Datetime(kind.time_unit, "UTC")
    if isinstance(kind, pl.Decimal) and floats:
        return pl.Float64()
    if isinstance(kind, pl.List):
        return pl.List(_shown(kind.inner, floats))  # type: ignore[arg-type]
    return kind


def book_levels(
    symbol: str, ts: str | date | datetime | int, root: Path, venue: str | None
) -> pl.DataFrame:
    """Levels of the newest depth row at or before ``ts`` (see marketflow.book_at)."""
    _check(root)
    _check_venues(root, DEPTH, [] if venue is None else [venue])
    at = pl.lit(_moment("ts", ts), dtype=_TIME)
    last = date_at(_moment("ts", ts))
    days = sorted({p.day for p in list_partitions(root, DEPTH.name)}, reverse=True)
    for day in days:
        when = date_of(day)
        if when > last:
            continue
        files = list_files(
            root, DEPTH.name, first=when, last=when, venues=None if venue is None else [venue]
        )
        frame = _frame(DEPTH, root, files).filter(pl.col("symbol") == symbol)
        newest = (
            frame.filter(pl.col("ts_event") <= at).group_by("venue").agg(pl.col("ts_event").max())
        )
        found = newest.collect()
        if len(found) > 1:
            known = ", ".join(sorted(found["venue"]))
            raise UsageError(f"{symbol} is traded on {known}: name one with venue=")
        if len(found):
            [(venue_name, moment)] = found.with_columns(pl.col("ts_event").cast(pl.Int64)).rows()
            same = (pl.col("venue") == venue_name) & (pl.col("ts_event") == pl.lit(moment, _TIME))
            return _levels(frame.filter(same).collect().sort("row_sequence").tail(1))
    _check_symbols(root, DEPTH, [symbol])
    return pl.DataFrame(schema=_BOOK)


def _levels(row: pl.DataFrame) -> pl.DataFrame:
    sides = []
    for side in ("bid", "ask"):
        columns = [f"{side}_prices", f"{side}_sizes", f"{side}_counts"]
        levels = row.select(*columns, "book_state", "ts_event", "venue").explode(columns)
        levels = levels.rename(dict(zip(columns, ("price", "size", "count"), strict=True)))
        levels = levels.filter(pl.col("price").is_not_null())
        number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
        sides.append(levels.with_columns(pl.lit(side).alias("side"), number.alias("level")))
    return pl.concat(sides).select(*_BOOK).cast(_BOOK)


def _frame(table: Table, root: Path, files: list[Path]) -> pl.LazyFrame:
    names = [*table.names, "date"]
    if not files:
        types = {f.name: _TYPES[f.kind] for f in table.fields}
        return pl.LazyFrame(schema={**types, "date": pl.Date})
    # A folder above the lake that looks like a hive one has to be named too; nobody selects it.
    above = [part.partition("=")[0] for part in root.parts if "=" in part]
    hive: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(above, pl.String)
    hive["date"] = pl.Date
    if table.has_venue:
        hive["venue"] = pl.String
    frame = pl.scan_parquet(
        files,
        hive_partitioning=True,
        hive_schema=hive,
        missing_columns="insert",
        extra_columns="ignore",
    )
    return frame.select(names)


def _moment(name: str, value: str | date | datetime | int) -> int:
    """ns since 1970-01-01 UTC. UsageError with the forms."""
    try:
        return moment_ns(value)
    except ValueError as error:
        raise UsageError(f"{name}={error}") from None


def _check_venues(root: Path, table: Table, venues: list[str]) -> None:
    """Raise UsageError for a venue of which the table has no rows."""
    known = {p.venue for p in list_partitions(root, table.name) if p.venue is not None}
    for venue in venues:
        if known and venue not in known:
            names = ", ".join(sorted(known))
            near = nearest(venue, known)
            raise UsageError(f"no venue {venue!r} in {table.name} of {root}{near}; known: {names}")


def _check_symbols(root: Path, table: Table, symbols: list[str]) -> None:
    """Raise UsageError for a symbol of which the table has no rows, of any venue and time."""
    if not symbols:
        return
    from duckdb import IOException

    from marketflow.flows.queries.duckdb_lake import lake_cursor

    try:
        with lake_cursor(root, table.name) as con:
            for symbol in symbols:
                one = f"SELECT 1 FROM {table.name} WHERE symbol = ? LIMIT 1"
                if con.execute(one, [symbol]).fetchone() is None:
                    every = f"SELECT DISTINCT symbol FROM {table.name} ORDER BY 1"
                    _unknown(root, table, symbol, [s for (s,) in con.execute(every).fetchall()])
    except IOException:
        return  # a compaction removed a file: the scan itself will tell


def _unknown(root: Path, table: Table, symbol: str, known: list[str]) -> None:
    if known:
        some = ", ".join(known[:_SOME]) + (", …" if len(known) > _SOME else "")
        near = nearest(symbol, known)
        raise UsageError(f"no symbol {symbol!r} in {table.name} of {root}{near}; known: {some}")


def _check(root: Path) -> None:
    try:
        check_lake(root)
    except SinkError as error:
        raise UsageError(str(error)) from None
