"""A lake as a DuckDB connection: each table a view with the columns and order of its schema.

Prices are DECIMAL(28,12), sums DECIMAL(38,12), times TIMESTAMP_NS in UTC, words VARCHAR. Each time
is followed by ``<time>_epoch_ns``, the same as BIGINT (a database's times end at microseconds:
queries that compare nanoseconds in both use this). ``date`` comes last and prunes whole folders.
Filters on time, symbol and venue reach the row groups (through
``make_timestamp_ns(epoch_ns(...))`` too: checked with EXPLAIN ANALYZE on DuckDB 2).
A view is the lake as it was when it was opened: open again to see what was written since.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

import duckdb

from flows.errors import UsageError
from schemas.fields import Field, Kind, Table
from schemas.tables import TABLES
from sinks.errors import SinkError
from sinks.lake import check_lake, list_files

_SQL_TYPES: Final[dict[Kind, str]] = {
    Kind.INT16: "SMALLINT",
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


def open_lake(folder: Path | str) -> duckdb.DuckDBPyConnection:
    """A connection with a view per table of the lake; use ``con.sql(...)``.

    Raises UsageError when the folder is no lake that this release reads.
    """
    root = Path(folder)
    try:
        check_lake(root)
    except SinkError as error:
        raise UsageError(str(error)) from None
    con = _connect()
    for table in TABLES.values():
        con.execute(f"CREATE VIEW {table.name} AS {_select(root, table)}")
    _lock(con, root)
    return con


def open_nowhere() -> duckdb.DuckDBPyConnection:
    """The same views without any rows or files: what a lake would say of a query."""
    con = _connect()
    for table in TABLES.values():
        con.execute(f"CREATE VIEW {table.name} AS {_select_none(table)}")
    _lock(con, None)
    return con


def _connect() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    con.execute("SET TimeZone = 'UTC'")
    return con


def _lock(con: duckdb.DuckDBPyConnection, root: Path | None) -> None:
    """From here on the connection opens only files below the lake (and its own spill), loads
    nothing, sees no variable of the program, and keeps it so."""
    spill = Path(tempfile.gettempdir(), f"marketflow-{os.getpid()}-{secrets.token_hex(4)}")
    for setting, value in (
        ("temp_directory", _text(str(spill))),  # made when needed, gone with the connection
        ("allow_persistent_secrets", "false"),
        ("python_enable_replacements", "false"),
        ("allowed_directories", "[]" if root is None else f"[{_text(str(root.absolute()))}]"),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        con.execute(f"SET {setting} = {value}")


def _select(root: Path, table: Table) -> str:
    files = list_files(root, table.name)
    if not files:
        return _select_none(table)
    paths = ", ".join(_text(str(path)) for path in files)
    types = "{'date': DATE, 'venue': VARCHAR}" if table.has_venue else "{'date': DATE}"
    # Files of older versions lack columns; while there is one version, the footers of all files
    # need not be read before every query.
    union = ", union_by_name = true" if table.version > 1 else ""
    columns = [part for field in table.fields for part in _present(field)]
    return (
        f"SELECT {', '.join(columns)}, date FROM read_parquet([{paths}], "
        f"hive_partitioning = true, hive_types = {types}{union})"
    )


def _select_none(table: Table) -> str:
    columns = [part for field in table.fields for part in _absent(field)]
    return f"SELECT {', '.join(columns)}, NULL::DATE AS date WHERE false"


def _present(field: Field) -> list[str]:
    name = _quoted(field.name)
    if field.kind is Kind.TIME:
        # TIMESTAMPTZ_NS, as the files have it, lacks date functions.
        ns = f"epoch_ns({name})"
        return [f"make_timestamp_ns({ns}) AS {name}", f"{ns} AS {_epoch_ns(field)}"]
    return [name]


def _absent(field: Field) -> list[str]:
    parts = [f"NULL::{_SQL_TYPES[field.kind]} AS {_quoted(field.name)}"]
    if field.kind is Kind.TIME:
        parts.append(f"NULL::BIGINT AS {_epoch_ns(field)}")
    return parts


def _epoch_ns(field: Field) -> str:
    return _quoted(f"{field.name}_epoch_ns")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
