"""Queries over a lake (or a database): read-only, errors in one clear line."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import duckdb
import pyarrow as pa
from rich.console import Console

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.queries.answers import Answer, print_answer
from marketflow.flows.queries.duckdb_lake import lake_cursor
from marketflow.flows.queries.readonly import lake_statement
from marketflow.schemas.tables import TABLES

if TYPE_CHECKING:
    import polars as pl

_T = TypeVar("_T")

_BATCH_ROWS: Final = 65_536


def query_lake(query: str, lake: Path, use: Callable[[duckdb.DuckDBPyRelation], _T]) -> _T:
    """Run a SELECT over the lake and hand its relation to ``use``.

    Raises UsageError (the query or the lake is wrong) or RunFailed, with the fix in the text.
    A compaction may remove a file between the opening and the reading: then once more.
    """
    return _ask(query, lake, lambda _, relation: use(relation))


def _ask(
    query: str,
    lake: Path,
    use: Callable[[duckdb.DuckDBPyConnection, duckdb.DuckDBPyRelation], _T],
) -> _T:
    for attempt in (1, 2):
        try:
            with lake_cursor(lake, query) as con:
                return use(con, _relation(con, query))
        except duckdb.IOException as error:
            if attempt == 2:
                raise RunFailed(f"cannot read the lake {lake}: {_one_line(error)}") from None
        except duckdb.Error as error:
            raise _explained(error) from None
    raise AssertionError


def _relation(con: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyRelation:
    relation = con.sql(lake_statement(con, query))
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


def given_query(query: str | None, file: Path | None) -> str | None:
    """The query that was given, None for a prompt. Raises UsageError with the fix."""
    if query is not None and file is not None:
        raise UsageError("a query or --file FILE, not both")
    if query == "-" or (file is not None and str(file) == "-"):
        return _not_empty(sys.stdin.read(), "stdin")
    if file is not None:
        try:
            return _not_empty(file.read_text(), str(file))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise UsageError(f"cannot read the query in {file}: {reason}") from None
    if query is not None:
        return query
    if sys.stdin.isatty():
        return None
    return _not_empty(sys.stdin.read(), "stdin")


def _not_empty(text: str, where: str) -> str:
    if not text.strip():
        raise UsageError(
            f'no query in {where}: write one, such as "SELECT count(*) FROM trades" (on a terminal '
            "marketflow sql alone is a prompt)"
        )
    return text


def print_query(
    query: str,
    lake: Path,
    dsn: str | None,
    form: str,
    out: Path | None,
    console: Console,
    rows: int | None = None,
) -> None:
    """Run the query over the database of ``dsn``, or over the lake where that is None, and write
    its result (see flows.queries.answers.print_answer). Ctrl-C is a KeyboardInterrupt at once."""

    def ask(use: Callable[[Answer], None]) -> None:
        if dsn is None:
            _ask(query, lake, lambda con, relation: use(_answer(con, relation)))
        else:
            from marketflow.flows.queries.database import query_database

            query_database(query, dsn, use)

    print_answer(ask, form, out, console, rows)


def query_rows(query: str, lake: Path | None, dsn: str | None) -> list[dict[str, Any]]:
    """The result as exact JSON values, from the database of ``dsn`` or else from the lake."""
    if lake is not None and dsn is None:
        return _ask(query, lake, lambda con, relation: list(_answer(con, relation).rows()))
    assert dsn is not None
    from marketflow.flows.queries.database import query_database

    return query_database(query, dsn, lambda answer: list(answer.rows()))


def query_frame(query: str, lake: Path | None, dsn: str | None, floats: bool) -> pl.DataFrame:
    """The result as a polars frame, from the lake or else from the database."""
    import polars as pl

    from marketflow.flows.queries.polars_lake import told

    if lake is not None:
        frame_of = _ask(query, lake, lambda con, relation: _interruptible(con, relation.pl))
        return told(frame_of, floats)
    from marketflow.flows.queries.database import query_database

    assert dsn is not None

    def frame(answer: Answer) -> pl.DataFrame:
        made = pl.from_arrow(pa.Table.from_batches(answer.batches, answer.schema))
        assert isinstance(made, pl.DataFrame)
        return made

    return told(query_database(query, dsn, frame), floats)


def _answer(con: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation) -> Answer:
    reader = _interruptible(con, lambda: relation.to_arrow_reader(_BATCH_ROWS))

    def batches() -> Iterator[pa.RecordBatch]:
        while (batch := _interruptible(con, lambda: next(reader, None))) is not None:
            yield batch

    return Answer.of(reader.schema, batches())


def _interruptible(con: duckdb.DuckDBPyConnection, call: Callable[[], _T]) -> _T:
    """What ``call`` returns. DuckDB does not look for signals while it makes Arrow, so it is called
    beside the main thread, which is free to be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    with ThreadPoolExecutor(1) as pool:
        called = pool.submit(call)
        try:
            return called.result()
        except KeyboardInterrupt:
            while not called.done():  # the query may not have begun yet
                con.interrupt()
                time.sleep(0.01)
            raise
