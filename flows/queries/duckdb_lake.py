"""A lake as a DuckDB connection: each table a view with the columns and order of its schema.

Prices are DECIMAL(28,12), sums DECIMAL(38,12), times TIMESTAMP_NS in UTC, words VARCHAR. Each time
is followed by ``<time>_epoch_ns``, the same as BIGINT (a database's times end at microseconds:
queries that compare nanoseconds in both use this). ``date`` comes last and prunes whole folders.
Filters on time, symbol and venue reach the row groups (through
``make_timestamp_ns(epoch_ns(...))`` too: checked with EXPLAIN ANALYZE on DuckDB 2).
A view is the lake as it was when it was opened: open again to see what was written since.
Of a query that is not the first, the database is there already (a start takes longer than most
queries do) and knows the footers of files that it has read: names of files never come again with
another content, and DuckDB looks at their times besides.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from marketflow.flows.errors import UsageError
from marketflow.flows.queries.feeds import FEEDS, define_feeds
from marketflow.schemas.codes import words
from marketflow.schemas.fields import Field, Kind, Table
from marketflow.schemas.tables import TABLES
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lake.layout import check_lake, list_files, oldest_version

SQL_TYPES: Final[dict[Kind, str]] = {
    Kind.SHARD: "BIGINT",
    Kind.INT32: "INTEGER",
    Kind.INT64: "BIGINT",
    Kind.UINT8: "UTINYINT",
    Kind.BOOL: "BOOLEAN",
    Kind.DECIMAL: "DECIMAL(28,12)",
    Kind.SUM: "DECIMAL(38,12)",
    Kind.TIME: "TIMESTAMP_NS",
    Kind.CODE: "VARCHAR",
    Kind.NAME: "VARCHAR",
    Kind.ID: "VARCHAR",
    Kind.TEXT: "VARCHAR",
    Kind.BYTES: "BLOB",
    Kind.DECIMALS: "DECIMAL(28,12)[]",
    Kind.COUNTS: "INTEGER[]",
}


#: Databases that wait for the next query, by process (a fork has none of their threads) and lake.
_MOST_DATABASES: Final = 4
_databases: OrderedDict[tuple[int, Path], duckdb.DuckDBPyConnection] = OrderedDict()
_guard: Final = threading.Lock()
#: Words of a query that asks for the tables themselves.
_CATALOG: Final = re.compile(r"show|information_schema|sqlite_master|duckdb_\w+|pg_\w+")


def open_lake(folder: Path | str) -> duckdb.DuckDBPyConnection:
    """A connection of one's own with a view per table of the lake; use ``con.sql(...)``.

    Raises UsageError when the folder is no lake that this release reads.
    """
    root = Path(folder)
    _check(root)
    con = _database(root)
    _define(con, root, TABLES.values())
    define_feeds(con, root)
    return con


@contextmanager
def lake_cursor(root: Path, query: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for one query, with views of the tables that it can name: opening one takes
    as long as a small query. Whatever is done is rolled back.

    Raises UsageError as :func:`open_lake`.
    """
    _check(root)
    with _guard:
        key = (os.getpid(), root.absolute())
        database = _databases.pop(key, None) or _database(root)
        _databases[key] = database
        ours = [known for known in _databases if known[0] == os.getpid()]
        if len(ours) > _MOST_DATABASES:
            del _databases[ours[0]]
        con = database.cursor()
    try:
        con.begin()
        names = _words(query)
        _define(con, root, _named(names))
        if FEEDS in names or _asks_what_there_is(names):
            define_feeds(con, root)
        yield con
    finally:
        con.close()


def _check(root: Path) -> None:
    try:
        check_lake(root)
    except SinkError as error:
        raise UsageError(str(error)) from None


def open_nowhere() -> duckdb.DuckDBPyConnection:
    """The same views without any rows or files: what a lake would say of a query."""
    con = _database(None)
    _define(con, None, TABLES.values())
    define_feeds(con, None)
    return con


def _database(root: Path | None) -> duckdb.DuckDBPyConnection:
    """A database in memory that opens only files below the lake (and its own spill), loads
    nothing, sees no variable of the program, and keeps it so."""
    con = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
    )
    spill = Path(tempfile.gettempdir(), f"marketflow-{os.getpid()}-{os.urandom(4).hex()}")
    for setting, value in (
        ("TimeZone", "'UTC'"),
        ("parquet_metadata_cache", "true"),
        ("temp_directory", _text(str(spill))),  # made when needed, gone with the connection
        ("allow_persistent_secrets", "false"),
        ("allowed_directories", "[]" if root is None else f"[{_text(str(root.absolute()))}]"),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        con.execute(f"SET GLOBAL {setting} = {value}")
    return con


def _define(con: duckdb.DuckDBPyConnection, root: Path | None, tables: Iterable[Table]) -> None:
    """Make the views, of the files as they are now."""
    for table in tables:
        files = [] if root is None else [str(path) for path in list_files(root, table.name)]
        con.execute(f"SET VARIABLE {_files_of(table)} = ?", [files])
        if root is None or not files:
            select = _select_none(table)
        else:
            select = _select(con, table, oldest_version(root, table.name) < table.version)
        con.execute(f"CREATE TEMP VIEW {table.name} AS {select}")


def _words(query: str) -> set[str]:
    return set(re.findall(r"\w+", query.lower()))


def _asks_what_there_is(names: set[str]) -> bool:
    return any(_CATALOG.fullmatch(name) for name in names)


def _named(names: set[str]) -> list[Table]:
    """Tables that the query can name, or all where it asks what there is."""
    every = _asks_what_there_is(names)
    return [table for table in TABLES.values() if every or table.name in names]


def _files_of(table: Table) -> str:
    """The variable with its files: a list of hundreds in the text of a view would be parsed again
    with every query."""
    return f"files_of_{table.name}"


def _select(con: duckdb.DuckDBPyConnection, table: Table, may_be_old: bool) -> str:
    """``may_be_old``: there may be files of versions that lack columns. Only then the footers of
    all files are read before a query, whatever it asks for."""
    types = "{'date': DATE, 'venue': VARCHAR}" if table.has_venue else "{'date': DATE}"
    source = (
        f"read_parquet(getvariable('{_files_of(table)}'), hive_partitioning = true, "
        f"hive_types = {types}{', union_by_name = true' if may_be_old else ''})"
    )
    found = set(con.sql(f"FROM {source}").columns) if may_be_old else set(table.names)
    columns = [
        part
        for field in table.fields
        for part in (_present(field) if field.name in found else _lacking(field))
    ]
    return f"SELECT {', '.join(columns)}, date FROM {source}"


def _select_none(table: Table) -> str:
    columns = [part for field in table.fields for part in _absent(field)]
    return f"SELECT {', '.join(columns)}, NULL::DATE AS date WHERE false"


def _present(field: Field) -> list[str]:
    name = _quoted(field.name)
    if field.kind is Kind.TIME:
        # TIMESTAMPTZ_NS, as the files have it, lacks date functions.
        ns = f"epoch_ns({name})"
        return [f"make_timestamp_ns({ns}) AS {name}", f"{ns} AS {_epoch_ns(field)}"]
    if field.codes is not None and field.nullable:
        return [f"coalesce({name}, {_text(words(field.codes)[0])}) AS {name}"]
    return [name]


def _lacking(field: Field) -> list[str]:
    """The column of a table whose files are all older than it."""
    if field.codes is not None and field.nullable:
        return [f"{_text(words(field.codes)[0])} AS {_quoted(field.name)}"]
    return _absent(field)


def _absent(field: Field) -> list[str]:
    parts = [f"NULL::{SQL_TYPES[field.kind]} AS {_quoted(field.name)}"]
    if field.kind is Kind.TIME:
        parts.append(f"NULL::BIGINT AS {_epoch_ns(field)}")
    return parts


def _epoch_ns(field: Field) -> str:
    return _quoted(f"{field.name}_epoch_ns")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
