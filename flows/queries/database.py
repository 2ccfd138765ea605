"""Queries over a database, with the results of the same query over a lake.

The session reads only (flows.queries.readonly, infra.reader). Times are UTC like a lake's, with
their nanoseconds where the tables' times are shown (flows.queries.exact_times), else as the server
calculates them: to the microsecond. Numerics are exact decimals. Columns have the names a lake
gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple, TypeVar

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import pq
from psycopg.types.string import TextLoader

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.queries.answers import Answer
from marketflow.flows.queries.duckdb_lake import open_nowhere
from marketflow.flows.queries.exact_times import with_nanoseconds
from marketflow.flows.queries.readonly import check_database_query, is_cursor_query, lake_statement
from marketflow.infra.reader import ROLE, power
from marketflow.schemas.tables import TABLES
from marketflow.sinks.errors import SinkError
from marketflow.sinks.redaction import redacted
from marketflow.sinks.timescale import dsn as dsn_module

_T = TypeVar("_T")

_BATCH_ROWS: Final = 65_536
_MAX_DIGITS: Final = 38
_NUMERIC: Final = 1700
_TIMESTAMPTZ: Final = 1184
_TIME_AND_NS: Final = (_TIMESTAMPTZ, 20)
_NAIVE_NS: Final = pa.timestamp("ns")
_NAIVE_US: Final = pa.timestamp("us")
_PLAIN: Final[dict[int, pa.DataType]] = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1114: _NAIVE_US,
    _TIMESTAMPTZ: _NAIVE_US,
}
_ARRAYS: Final[dict[int, int]] = {1231: _NUMERIC, 1005: 21, 1007: 23, 1016: 20, 1022: 701, 1009: 25}
#: Parsed by Arrow from the server's text, a column at a time.
_AS_TEXT: Final = (_NUMERIC, _TIMESTAMPTZ, 1114, 1082)


class _Column(NamedTuple):
    name: str
    oid: int
    typmod: int
    #: The table or view it is a column of; 0: calculated.
    table: int

    @property
    def item(self) -> int:
        """Type of the values, or of an array's."""
        return _ARRAYS.get(self.oid, self.oid)

    @property
    def is_open(self) -> bool:
        """A numeric without declared digits: they are known when all rows are."""
        return self.item == _NUMERIC and self.typmod < 0


def query_database(query: str, dsn: str, use: Callable[[Answer], _T]) -> _T:
    """Run a SELECT over the database and hand its answer to ``use``.

    Raises UsageError (the query or the DSN is wrong) or RunFailed, with the fix in the text.
    """
    try:
        dsn_module.check(dsn)
        with closing(dsn_module.connect(dsn, "marketflow sql", autocommit=True)) as connection:
            _check_login(connection, dsn)
            connection.execute("SET timezone = 'UTC'")
            connection.execute("SET datestyle = 'ISO'")
            return use(_answer(connection, query))
    except SinkError as error:
        raise UsageError(str(error)) from None
    except psycopg.Error as error:
        raise _explained(dsn, error) from None


def _check_login(connection: psycopg.Connection[Any], dsn: str) -> None:
    """Raise UsageError unless the login can do nothing but read."""
    found = power(connection)
    if found is not None:
        reader = redacted(dsn_module.with_login(dsn, ROLE, "PASSWORD"))
        raise UsageError(
            f"{dsn_module.shown(dsn)} {found}, and a query only reads: log in as {ROLE}, --dsn "
            f"{reader.replace('***', 'PASSWORD')} or MARKETFLOW_READER_DSN (services env prints it "
            "with its password; on other servers migrate --dsn makes it, --new-reader-password "
            "gives it another)"
        )


def _answer(connection: psycopg.Connection[Any], query: str) -> Answer:
    check_database_query(connection, query)
    is_cursor = is_cursor_query(query)
    exact = with_nanoseconds(query) if is_cursor else None
    text = query
    # Prepared, the server takes exactly one statement.
    try:
        columns = _described(connection, query if exact is None else exact.query)
        text = query if exact is None else exact.query
    except psycopg.Error:
        if exact is None:
            raise
        columns, exact = _described(connection, query), None
    hidden = 0 if exact is None else len(exact.wanted)
    exact_of = _exact_columns(columns, () if exact is None else exact.wanted)
    # Never committed, whatever happens: it ends with the connection.
    connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    cursor: Any
    if is_cursor:
        cursor = connection.cursor("marketflow")
        cursor.itersize = _BATCH_ROWS
    else:
        cursor = connection.cursor()
    for column in columns:
        if column.item in _AS_TEXT or (column.item not in _PLAIN):
            cursor.adapters.register_loader(column.item, TextLoader)
    cursor.execute(text)
    shown = [column.name for column in columns[: len(columns) - hidden]]
    return _columns(cursor, columns, _lake_names(query, shown) if is_cursor else shown, exact_of)


def _described(connection: psycopg.Connection[Any], query: str) -> list[_Column]:
    prepared = connection.pgconn.prepare(b"", query.encode())
    described = connection.pgconn.describe_prepared(b"")
    for result in (prepared, described):
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    return [
        _Column(
            (described.fname(i) or b"?").decode(),
            described.ftype(i),
            described.fmod(i),
            described.ftable(i),
        )
        for i in range(described.nfields)
    ]


def _exact_columns(columns: list[_Column], wanted: Sequence[int]) -> dict[int, int]:
    """By column with a time the one with its nanoseconds: asked for, or its neighbour (``*``)."""
    shown = len(columns) - len(wanted)
    pairs = {
        n: n + 1
        for n in range(shown - 1)
        if columns[n].table
        and columns[n].table == columns[n + 1].table
        and columns[n + 1].name == f"{columns[n].name}_epoch_ns"
    }
    pairs |= {n if n >= 0 else shown + n: shown + i for i, n in enumerate(wanted)}
    return {n: m for n, m in pairs.items() if (columns[n].oid, columns[m].oid) == _TIME_AND_NS}


def _lake_names(query: str, names: list[str]) -> list[str]:
    """What a lake calls these columns, where it would answer the query."""
    con = open_nowhere()
    try:
        found = con.sql(lake_statement(con, query)).columns
    except (duckdb.Error, UsageError):
        return names
    finally:
        con.close()
    return found if len(found) == len(names) else names


def _columns(
    cursor: Any, columns: list[_Column], names: list[str], exact_of: dict[int, int]
) -> Answer:
    """Rows as they come; all at once where the digits of a numeric must be known first."""

    def arrays(rows: list[Any], kinds: Sequence[pa.DataType | None]) -> list[pa.Array]:
        made: list[pa.Array] = []
        for i, kind in enumerate(kinds):
            exact = exact_of.get(i)
            if exact is None:
                made.append(_array(columns[i], [row[i] for row in rows], kind))
            else:
                made.append(pa.array([row[exact] for row in rows], pa.int64()).cast(_NAIVE_NS))
        return made

    rows = cursor.fetchall() if any(c.is_open for c in columns) else cursor.fetchmany(_BATCH_ROWS)
    first = arrays(rows, [None] * len(names))
    kinds = [array.type for array in first]
    schema = pa.schema([pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)])

    def batches() -> Iterator[pa.RecordBatch]:
        found = rows
        yield pa.RecordBatch.from_arrays(first, schema=schema)
        while len(found) == _BATCH_ROWS:
            found = cursor.fetchmany(_BATCH_ROWS)
            yield pa.RecordBatch.from_arrays(arrays(found, kinds), schema=schema)

    return Answer.of(schema, batches())


def _array(column: _Column, values: list[Any], kind: pa.DataType | None) -> pa.Array:
    if column.oid not in _ARRAYS:
        return _flat(column, values, kind)
    items = [item for value in values if value is not None for item in value]
    if any(isinstance(item, list) for item in items):
        raise UsageError(f"column {column.name} is an array of arrays: unnest it")
    inner = _flat(column, items, None if kind is None else kind.value_type)
    offsets, end = [], 0
    for value in values:
        offsets.append(None if value is None else end)
        end += len(value or ())
    return pa.ListArray.from_arrays(pa.array([*offsets, end], pa.int32()), inner)


def _flat(column: _Column, values: list[Any], kind: pa.DataType | None) -> pa.Array:
    if column.item == _NUMERIC:
        return _decimals(column, values, kind)
    plain = _PLAIN.get(column.item, pa.string())
    if column.item not in _AS_TEXT:
        return pa.array(values, plain)
    texts = pa.array(values, pa.string())
    if column.item == _TIMESTAMPTZ:
        texts = pc.replace_substring_regex(texts, r"\+00$", "")
    try:
        return texts.cast(plain)
    except pa.ArrowInvalid:
        raise UsageError(
            f"column {column.name} holds a time that no TIMESTAMP can (infinity, or far from "
            "today): write it as text, such as to_char(…)"
        ) from None


def _decimals(column: _Column, texts: list[str | None], kind: pa.DataType | None) -> pa.Array:
    if kind is None and column.typmod >= 0:
        # numeric(precision, scale) as PostgreSQL notes it, see numeric_typmod_scale.
        precision, scale = ((column.typmod - 4) >> 16) & 0xFFFF, (column.typmod - 4) & 0x7FF
        if scale <= precision <= _MAX_DIGITS:
            kind = pa.decimal128(precision, scale)
    known = [text for text in texts if text is not None]
    if any(text.lstrip("-")[:1] in "NI" for text in known):
        raise UsageError(f"column {column.name} holds NaN or Infinity: cast it to float8")
    values = pa.array(texts, pa.string())
    if kind is None:
        kind = pa.decimal128(_MAX_DIGITS, _common_scale(column, known))
        # Zeros may be left out, nothing else is.
        values = pc.replace_substring_regex(values, rf"(\.\d{{{kind.scale}}})0+$", r"\1")
    return values.cast(kind)


def _common_scale(column: _Column, texts: list[str]) -> int:
    """The decimals that show every value as the server does, or at least exactly."""
    parts = [text.lstrip("-").partition(".") for text in texts]
    whole = max((len(w) for w, _, _ in parts), default=0)
    for scale in (
        max((len(f) for _, _, f in parts), default=0),
        max((len(f.rstrip("0")) for _, _, f in parts), default=0),
    ):
        if whole + scale <= _MAX_DIGITS:
            return scale
    raise UsageError(
        f"column {column.name} needs more than {_MAX_DIGITS} digits: round it, such as "
        "round(…, 12), or cast it to text"
    )


def _explained(dsn: str, error: psycopg.Error) -> UsageError | RunFailed:
    refused = dsn_module.refusal(dsn, error)
    if refused is not None:
        return UsageError(refused)
    text = dsn_module.one_line(error)
    code = error.sqlstate or ""
    if code == "42P01":
        return UsageError(
            f"{text}; tables of a migrated database: {', '.join(TABLES)} (marketflow migrate "
            "--dsn DSN makes them)"
        )
    if code == "42601":
        return UsageError(f'{text}; write one SELECT, such as "SELECT count(*) FROM trades"')
    if code == "25006":
        return UsageError(f"{text}: write a SELECT")
    if code == "42501" and text.startswith("permission denied for view"):
        return UsageError(f"{text}: marketflow migrate, as the owner, lets {ROLE} read it")
    if code.startswith(("42", "22", "0A")):
        return UsageError(text)
    return RunFailed(f"{dsn_module.shown(dsn)}: {text}")
