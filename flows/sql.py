"""Queries over a lake, for the command line and for Python: read-only, errors in one clear line."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.errors import RunFailed, UsageError
from flows.lake import open_lake
from schemas.tables import TABLES
from sinks.jsonl import json_rows

_T = TypeVar("_T")

FORMATS: Final = ("table", "csv", "json", "parquet")
_MAX_TABLE_ROWS: Final = 1000
_BATCH_ROWS: Final = 65_536
_ANY_WIDTH: Final = 100_000
_READS: Final = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN})


def query_lake(query: str, lake: Path, use: Callable[[duckdb.DuckDBPyRelation], _T]) -> _T:
    """Run a SELECT over the lake and hand its relation to ``use``.

    Raises UsageError (the query or the lake is wrong) or RunFailed, with the fix in the text.
    A compaction may remove a file between the opening and the reading: then once more.
    """
    for attempt in (1, 2):
        con = open_lake(lake)
        try:
            return use(_relation(con, query))
        except duckdb.IOException as error:
            if attempt == 2:
                raise RunFailed(f"cannot read the lake {lake}: {_one_line(error)}") from None
        except duckdb.Error as error:
            raise _explained(error) from None
        finally:
            con.close()
    raise AssertionError


def _relation(con: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyRelation:
    statements = con.extract_statements(query)
    if len(statements) != 1:
        raise UsageError(f"one SELECT at a time, not {len(statements)} statements")
    if statements[0].type not in _READS:
        kind = statements[0].type.name
        raise UsageError(
            f"{kind} is not allowed here, a lake is read-only: write a SELECT; to keep a result "
            "use --format parquet --out FILE"
        )
    relation = con.sql(query)
    assert relation is not None
    return relation


def _explained(error: duckdb.Error) -> UsageError:
    text = _one_line(error)
    if "Table with name" in text:
        text = re.sub(r" Did you mean .*", "", text)
        return UsageError(f"{text} Tables of a lake: {', '.join(TABLES)}")
    if "syntax error" in text:
        return UsageError(f'{text}; write one SELECT, such as "SELECT count(*) FROM trades"')
    return UsageError(text)


def _one_line(error: duckdb.Error) -> str:
    """DuckDB's message without its kind and its drawing of the query."""
    text = str(error).split("\n\nLINE ")[0]
    text = re.sub(r"^(Catalog|Binder|Parser) Error: ", "", text)
    return " ".join(text.split())


def print_query(query: str, lake: Path, form: str, out: Path | None, console: Console) -> None:
    """Run the query and write its result in ``form`` to ``out``, or to standard output.

    ``json`` is a list of row objects: decimals as strings, times ISO 8601 with nanoseconds.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form!r} is none of {', '.join(FORMATS)}")
    if form == "parquet" and out is None and sys.stdout.isatty():
        raise UsageError("--format parquet is not for a terminal: name a file with --out FILE")
    if form == "table" and out is None:
        query_lake(query, lake, lambda relation: _print_table(relation, console))
        return
    write = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}.get(form)
    if write is None:
        raise UsageError("--out goes with --format csv, json or parquet")

    begun = False

    def write_out(relation: duckdb.DuckDBPyRelation) -> None:
        nonlocal begun
        if begun and out is None:  # half of it may be out already
            raise RunFailed("the lake was compacted while the query ran: run it again")
        begun = True
        with _destination(out) as file:
            write(relation, file)

    query_lake(query, lake, write_out)


@contextmanager
def _destination(out: Path | None) -> Iterator[IO[bytes]]:
    """The file, whole or not at all; standard output without one."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(out)
    except OSError as error:
        raise RunFailed(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _batches(relation: duckdb.DuckDBPyRelation) -> Iterator[pa.RecordBatch]:
    yield from relation.to_arrow_reader(_BATCH_ROWS)


def rows_of(relation: duckdb.DuckDBPyRelation, trim: bool = False) -> Iterator[dict[str, Any]]:
    """Rows as exact JSON values; whole numbers of any size stay numbers. ``trim`` leaves out the
    trailing zeros of decimals, for people."""
    whole = [n for n, t in zip(relation.columns, relation.types, strict=True) if t == "HUGEINT"]
    for batch in _batches(relation):
        for row in json_rows(batch, trim=trim):
            for name in whole:
                row[name] = None if row[name] is None else int(row[name])
            yield row


def _write_json(relation: duckdb.DuckDBPyRelation, file: IO[bytes]) -> None:
    file.write(b"[")
    for number, row in enumerate(rows_of(relation)):
        text = json.dumps(row, ensure_ascii=False)
        file.write((",\n " if number else "\n ").encode() + text.encode())
    file.write(b"\n]\n")


def _write_csv(relation: duckdb.DuckDBPyRelation, file: IO[bytes]) -> None:
    lines = _Lines(file)
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(relation.columns)
    for row in rows_of(relation):
        writer.writerow([_cell(value, "") for value in row.values()])


class _Lines:
    """Text in, UTF-8 out: what csv needs of a file, without owning it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text.encode())


def _write_parquet(relation: duckdb.DuckDBPyRelation, file: IO[bytes]) -> None:
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def _print_table(relation: duckdb.DuckDBPyRelation, console: Console) -> None:
    """A table, or one block per row where the table would be wider than the terminal."""
    rows = [
        [_cell(value, "NULL") for value in row.values()]
        for row in rows_of(relation.limit(_MAX_TABLE_ROWS + 1), trim=True)
    ]
    names = relation.columns
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    if rows and console.is_terminal and sum(widths) + 3 * len(widths) + 1 > console.width:
        _print_blocks(names, rows[:_MAX_TABLE_ROWS], console)
    else:
        table = Table()
        for name, kind in zip(names, relation.types, strict=True):
            text = str(kind) in ("VARCHAR", "BLOB", "BOOLEAN", "UUID")
            table.add_column(Text(name), justify="left" if text else "right", no_wrap=True)
        for row in rows[:_MAX_TABLE_ROWS]:
            table.add_row(*map(Text, row))
        if not console.is_terminal:  # a file or pipe has no width to be too wide for
            console = Console(file=console.file, width=_ANY_WIDTH)
        console.print(table)
    if len(rows) > _MAX_TABLE_ROWS:
        note = f"the first {_MAX_TABLE_ROWS} rows; --format csv, json or parquet has all of them"
        Console(stderr=True).print(note)


def _print_blocks(names: list[str], rows: list[list[str]], console: Console) -> None:
    for number, row in enumerate(rows, 1):
        console.rule(f"row {number}", align="left")
        block = Table.grid(padding=(0, 2))
        for name, value in zip(names, row, strict=True):
            block.add_row(Text(name, style="bold"), Text(value))
        console.print(block)


def _cell(value: Any, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
