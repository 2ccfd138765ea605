"""Back-fill of a database: the rows of an interval in place of those that are there, all at once.

A replay writes its rows aside, into a schema of its own (:func:`aside`). When it is complete,
:func:`replace` puts them in, in one transaction: a row that has the identity of a new one (table,
venue or feed, shard, row_sequence), at most a day away from the new ones, goes. The schema goes
with it, so that whether it was done can be told. Runs that write may go on meanwhile, as long as
they are past the interval. :func:`replace_feeds` puts a whole feed in place of what other runs had
loaded: these are superseded, runs of other feeds go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg

from marketflow.schemas.derived import sql
from marketflow.schemas.fields import Table
from marketflow.schemas.moments import datetime_at
from marketflow.schemas.tables import TABLES
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lineage import RUNNING, Claim, in_the_way, refused
from marketflow.sinks.overlap import Arrived, other_rows
from marketflow.sinks.timescale import feeds
from marketflow.sinks.timescale.connection import Link

_OUTAGE_S: Final = 300.0
#: One statement replaces all rows of a table: it may take long.
_STALL_S: Final = 4 * 3600.0
_RANGES: Final = (
    'SELECT shard, min(row_sequence), max(row_sequence) FROM {new}."{table}" GROUP BY shard'
)
_SPAN: Final = (
    "SELECT min({time}) - INTERVAL '1 day', max({time}) + INTERVAL '1 day', "
    'array_agg(DISTINCT {group}) FROM {new}."{table}"'
)
_DELETE: Final = (
    'DELETE FROM {store}."{table}" AS old USING (' + _RANGES + ") AS r (shard, first, last) "
    "WHERE old.shard = r.shard AND old.row_sequence BETWEEN r.first AND r.last "
    "AND old.{time} BETWEEN %s AND %s AND old.{group} = ANY(%s)"
)
_INSERT: Final = (
    'INSERT INTO {store}."{table}" ({columns}) '
    'SELECT {columns} FROM {new}."{table}" ORDER BY {group}, {time}, row_sequence'
)
#: Rows that would go and arrived outside of the interval, or would stay and arrived inside.
_OTHER: Final = (
    'SELECT 1 FROM {store}."{table}" AS old JOIN (' + _RANGES + ") AS r (shard, first, last) "
    "USING (shard) WHERE old.{time} BETWEEN %s AND %s AND old.{group} = ANY(%s) AND CASE "
    "WHEN old.row_sequence BETWEEN r.first AND r.last "
    "THEN old.ts_recv < %s::timestamptz OR old.ts_recv >= %s::timestamptz "
    "ELSE old.ts_recv >= %s::timestamptz AND old.ts_recv < %s::timestamptz END LIMIT 1"
)
#: Claims of other runs go with their feeds, and so does what their writers had counted.
_DISOWN: Final = "DELETE FROM {store}.claims WHERE number = ANY(%s) AND run <> %s"
_UNCOUNT: Final = "UPDATE {store}.progress SET feeds = feeds - %s::text[]"
#: What the new rows were counted as.
_COUNT: Final = (
    "INSERT INTO {store}.progress (run, writer, next, rows, feeds) "
    "SELECT run, writer, next, rows, feeds FROM {new}.progress"
)
#: Compressed chunks let a statement delete no more than some rows, where there are such chunks.
_NO_CAP: Final = (
    "SELECT set_config(name, '0', true) FROM pg_settings "
    "WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'"
)
#: A run that stands inside the interval would write the rest of it once more.
_INSIDE: Final = (
    "SELECT run, (rows -> %s ->> %s)::bigint FROM {store}.progress "
    "WHERE (rows -> %s ->> %s)::bigint > %s AND (rows -> %s ->> %s)::bigint <= %s"
)


def aside(key: str) -> str:
    """The schema of a back-fill."""
    assert key.isalnum(), key
    return f"backfill_{key}"


def prepare(dsn: str, key: str) -> None:
    """Make the schema and its tables; again: no change. Raises as the writer."""

    def make(connection: psycopg.Connection[Any]) -> None:
        with connection.transaction():
            connection.execute(_said("CREATE SCHEMA IF NOT EXISTS {new}", key))
            for name in (*TABLES, "progress"):
                text = (
                    'CREATE TABLE IF NOT EXISTS {new}."{table}" '
                    '(LIKE {store}."{table}" INCLUDING DEFAULTS INCLUDING INDEXES)'
                )
                connection.execute(_said(text, key, table=name))

    _link(dsn).run(make)


def replace(dsn: str, key: str, arrived: Arrived) -> dict[str, int]:
    """Put the rows of the schema in place of the old ones; ``rows_replaced``, ``rows_written``.
    Without the schema it was done before. Raises SinkError (the store holds several runs of the
    feed, a run stands inside the interval, or other rows than these are between those before and
    behind it, by arrival), DatabaseFailed."""

    def put_in(connection: psycopg.Connection[Any], report: dict[str, int]) -> None:
        for table in TABLES.values():
            replaced, written = _replace_table(connection, table, key, arrived)
            report["rows_replaced"] += replaced
            report["rows_written"] += written

    return _at_once(dsn, key, put_in)


def replace_feeds(dsn: str, key: str, claim: Claim, reached: Mapping[int, int]) -> dict[str, int]:
    """Put the feeds of a complete run, whose rows are in the schema, in place of all that other
    runs had loaded of them, and make them the run's. Reports and fails as :func:`replace`, and
    SinkError where one of the other runs is alive. ``reached``: by feed, where it ended."""

    def put_in(connection: psycopg.Connection[Any], report: dict[str, int]) -> None:
        feeds.claims_alone(connection)
        claimed = feeds.entries(connection)
        there = in_the_way(claimed, claim, replaces=True)
        numbers = claim.numbers | {entry.number for entry in there}
        others = [e for e in claimed if e.number in numbers and e.run != claim.run]
        for entry in others:
            if (state := feeds.state_of(connection, entry.run)) == RUNNING:
                raise refused("the database", entry, state)
        feeds.end_runs(connection, [entry.run for entry in others])
        connection.execute(_said(_DISOWN, key), (list(numbers), claim.run))
        connection.execute(_said(_UNCOUNT, key), ([str(number) for number in numbers],))
        connection.execute(_NO_CAP)
        for table in TABLES.values():
            for number in numbers:
                where, values = feeds.rows_of_feed(number)
                text = _said(f'DELETE FROM {{store}}."{table.name}" WHERE {where}', key)
                report["rows_replaced"] += connection.execute(text, values).rowcount
            inserted = connection.execute(_said(_INSERT, key, **_words(table)))
            report["rows_written"] += inserted.rowcount
        connection.execute(_said(_COUNT, key))
        feeds.add(connection, claim, reached)

    return _at_once(dsn, key, put_in)


def _at_once(
    dsn: str, key: str, put_in: Callable[[psycopg.Connection[Any], dict[str, int]], None]
) -> dict[str, int]:
    """The report that ``put_in`` has filled, in one transaction with the end of the schema."""

    def work(connection: psycopg.Connection[Any]) -> dict[str, int]:
        report = {"rows_replaced": 0, "rows_written": 0}
        with connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 0")
            known = connection.execute("SELECT to_regnamespace(%s)", (aside(key),)).fetchone()
            if known != (None,):
                put_in(connection, report)
                connection.execute(_said("DROP SCHEMA {new} CASCADE", key))
        return report

    return _link(dsn).run(work)


def _link(dsn: str) -> Link:
    return Link(dsn, "marketflow back-fill", _OUTAGE_S, _STALL_S)


def _said(text: str, key: str, **more: str) -> str:
    return text.format(new=aside(key), store=sql.STORE, **more)


def _moment(ns: int) -> str:
    """A time as the server reads it; the open ends are its infinities."""
    if ns == 0:
        return "-infinity"
    if ns == Arrived().bounds_ns()[1]:
        return "infinity"
    return datetime_at(ns).isoformat()


def _replace_table(
    connection: psycopg.Connection[Any], table: Table, key: str, arrived: Arrived
) -> tuple[int, int]:
    words = _words(table)
    ranges = connection.execute(_said(_RANGES, key, **words)).fetchall()
    if not ranges:
        return 0, 0
    _check_runs(connection, table.name, ranges)
    span = connection.execute(_said(_SPAN, key, **words)).fetchone()
    assert span is not None
    if table.has_venue and "ts_recv" in table.names:
        # The widest first: for what goes.
        moments = [_moment(ns) for wide in (True, False) for ns in arrived.bounds_ns(wide)]
        if connection.execute(_said(_OTHER, key, **words), [*span, *moments]).fetchone():
            raise other_rows("the database", table.name)
    gone = connection.execute(_said(_DELETE, key, **words), span).rowcount
    known = sum(last - first + 1 for _, first, last in ranges)
    if gone > known:
        raise SinkError(
            f"the database holds {gone} rows of {table.name} for {known} identities: several runs "
            "over the same feed wrote into it, and whose rows are to go cannot be told; replay "
            "into another database"
        )
    return gone, connection.execute(_said(_INSERT, key, **words)).rowcount


def _words(table: Table) -> dict[str, str]:
    """What the statements say of a table."""
    return {
        "table": table.name,
        "time": sql.quoted(table.time_field),
        "group": "venue" if table.has_venue else "feed",
        "columns": ", ".join(sql.quoted(column.name) for column in sql.columns(table)),
    }


def _check_runs(
    connection: psycopg.Connection[Any], table: str, ranges: list[tuple[int, int, int]]
) -> None:
    for shard, first, last in ranges:
        place = (table, str(shard))
        values = (*place, *place, first, *place, last)
        found = connection.execute(_INSIDE.format(store=sql.STORE), values).fetchone()
        if found is not None:
            raise SinkError(
                f"run {found[0]} has stored rows of {table}, shard {shard}, up to {found[1]} only, "
                f"inside the interval ({first} to {last}): start it again and let it get past, or "
                "replay to where it is"
            )
