"""Queries over a lake (or a database): read-only, errors in one clear line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import duckdb
import pyarrow as pa
from rich.console import Console

from flows.answers import Answer, print_answer
from flows.errors import RunFailed, UsageError
from flows.lake import lake_cursor
from flows.readonly import lake_statement
from schemas.tables import TABLES

if TYPE_CHECKING:
    import polars as pl

_T = TypeVar("_T")

_BATCH_ROWS: Final = 65_536
_ANY_WIDTH: Final = 100_000


def query_lake(query: str, lake: Path, use: Callable[[duckdb.DuckDBPyRelation], _T]) -> _T:
    """Run a SELECT over the lake and hand its relation to ``use``.

    Raises UsageError (the query or the lake is wrong) or RunFailed, with the fix in the text.
    A compaction may remove a file between the opening and the reading: then once more.
    """
    for attempt in (1, 2):
        try:
            with lake_cursor(lake, query) as con:
                return use(_relation(con, query))
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


def print_query(
    query: str, lake: Path, dsn: str | None, form: str, out: Path | None, console: Console
) -> None:
    """Run the query over the database of ``dsn``, or over the lake where that is None, and write
    its result (see flows.answers.print_answer)."""
    if dsn is not None:
        from flows.database import query_database

        print_answer(lambda use: query_database(query, dsn, use), form, out, console)
        return
    print_answer(
        lambda use: query_lake(query, lake, lambda relation: use(_answer(relation))),
        form,
        out,
        console,
    )


def query_frame(query: str, lake: Path | None, dsn: str | None, floats: bool) -> pl.DataFrame:
    """The result as a polars frame, from the lake or else from the database."""
    import polars as pl

    from flows.frames import told

    if lake is not None:
        return told(query_lake(query, lake, lambda relation: relation.pl()), floats)
    from flows.database import query_database

    assert dsn is not None

    def frame(answer: Answer) -> pl.DataFrame:
        made = pl.from_arrow(pa.Table.from_batches(answer.batches, answer.schema))
        assert isinstance(made, pl.DataFrame)
        return made

    return told(query_database(query, dsn, frame), floats)


def _answer(relation: duckdb.DuckDBPyRelation) -> Answer:
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    return Answer.of(reader.schema, iter(reader))
