"""The database sink: rows in, exactly-once TimescaleDB tables out.

Rows collect in memory and go out in *flushes*: one transaction holds the COPY of every table and
the writer's row in ``store.progress``, so the database is at every moment the whole outcome of a
number of flushes, and says of which.

Why that is exact. Per table and shard rows are numbered without gap and always the same, however
often and however cut they are computed. A flush adds the next ones and moves the numbers in
``progress`` with them, so what a run has stored is, per table and shard, all rows below the number
noted there. After a crash the flow repeats from its snapshot, at which everything had been flushed
(a barrier), so the first row that comes is at or below that number: rows below it are skipped, the
others follow without gap or overlap. A commit whose answer was lost is found in the same way: the
flush counts ``next`` up from the number it expects, first of all, which locks the row until the
fate of an older session's flush is certain; if it finds its own outcome there, it was committed.
If it finds another, somebody else writes as this run, and the writer ends without a row written:
opening the run counts ``next`` up too, so that a process that was replaced is shut out.

- Unit of parallelism: a process of a run (sinks.lineage.writer_of); writers share nothing.
- The snapshot holds: run and next row_sequence per table and shard.
- A *run* is a fresh start with all its resumptions: the identity of its recovery folder, or a
  number of its own without one. Feeds are claimed before (sinks.timescale.feeds).
- A fresh start of a recovery folder that the database knows already (killed before the first
  snapshot) skips what is there, for the same rows come again.
- One flush is under way, in a thread of its own, while rows of the next collect. A slow database
  blocks ``write``: memory stays below about three times ``flush_bytes`` and one batch.
  An outage is waited for, ``outage_s`` at most; then the run ends, to be resumed later.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import psycopg
import pyarrow as pa
from psycopg.types.json import Jsonb

from marketflow.schemas.derived import sql
from marketflow.schemas.fields import Table
from marketflow.schemas.recovery import OTHER_RELEASE, START_AGAIN, START_ANEW
from marketflow.schemas.tables import TABLES
from marketflow.sinks import tally
from marketflow.sinks.columns import Bare, concat, size, take
from marketflow.sinks.errors import DatabaseFailed, SinkError
from marketflow.sinks.lineage import superseded
from marketflow.sinks.marks import (
    Gapless,
    Marks,
    copied,
    from_json,
    highest,
    mark,
    of_shards,
    to_json,
)
from marketflow.sinks.tally import Tally
from marketflow.sinks.timescale.config import TimescaleOptions
from marketflow.sinks.timescale.connection import Flight, Link, unmigrated
from marketflow.sinks.timescale.encode import HEADER, TRAILER, Words, encode, to_columns
from marketflow.sinks.writer import RowsLike

SNAPSHOT_VERSION: Final = 1

_CLAIM: Final = (
    "INSERT INTO {store}.progress (run, writer) VALUES (%s, %s) "
    "ON CONFLICT (run, writer) DO NOTHING"
)
#: An earlier process of this writer, should it live, finds another number than it expects.
_FENCE: Final = (
    "UPDATE {store}.progress SET next = next + 1 "
    "WHERE run = %s AND writer = %s RETURNING next, rows, feeds"
)
_READ: Final = "SELECT next, rows FROM {store}.progress WHERE run = %s AND writer = %s"
#: Writers of the run's earlier layouts (their ids begin otherwise) are shut out, and left their
#: rows to this one.
_OTHERS: Final = (
    "UPDATE {store}.progress SET next = next + 1 "
    "WHERE run = %s AND writer NOT LIKE %s RETURNING rows"
)
_ADVANCE: Final = (
    "UPDATE {store}.progress SET next = next + 1, rows = %s, feeds = %s, updated_at = now() "
    "WHERE run = %s AND writer = %s AND next = %s"
)
#: In a schema of its own a back-fill asks the store that it is for.
_SUPERSEDED: Final = f"SELECT FROM {sql.STORE}.runs WHERE run = %s AND superseded"
_STORED_COLUMNS: Final = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) "
    "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = %s AND a.attnum > 0 AND NOT a.attisdropped"
)
_NO_CODES: Final = np.zeros(0, np.int32)
_PART_ROWS: Final = 1 << 15
_DIRECT_COMPRESS: Final = "SET LOCAL timescaledb.enable_direct_compress_copy=on"


class _Superseded(Exception):  # noqa: N818 - not an error yet
    """The progress row is not where the flush expected it."""


class TimescaleWriter:
    """Writer of one database. ``recovery`` identifies the recovery folder that snapshots go to;
    ``midway``: see sinks.config.Opening. ``store``: the schema that holds the tables.

    Raises SinkError (what was asked cannot be done; the text says what can) and DatabaseFailed
    (the database was away for too long; every later call raises it again).
    """

    def __init__(
        self,
        dsn: str,
        writer: str = "w0",
        recovery: str | None = None,
        options: TimescaleOptions | None = None,
        midway: bool = False,
        store: str = sql.STORE,
    ) -> None:
        assert writer.isalnum(), writer
        self.writer = writer
        self._store = store
        self._options = options or TimescaleOptions()
        self._recovery = recovery
        self._link = Link(
            dsn, f"marketflow {writer}", self._options.outage_s, self._options.stall_s
        )
        self._words = Words()
        self._run: str | None = None
        self._next = 0
        self._taken = Gapless(midway)
        self._stored: Marks = {}
        self._pending: dict[str, list[Bare]] = {}
        self._rows = 0
        self._bytes = 0
        self._since = 0.0
        self._flight: Flight | None = None
        self._target: Marks = {}
        #: What is stored of each feed, with the flush that is under way, and with what waits.
        self._held: Tally = {}
        self._failure: BaseException | None = None

    # -- life ---------------------------------------------------------------------------------

    def fence(self) -> None:
        """Nothing to do yet: opening the run moves its number, which shuts earlier writers out."""

    def restore(self, state: Any) -> None:
        """Go on after a snapshot: rows that the database has already will be skipped."""
        if not isinstance(state, tuple) or state[0] != SNAPSHOT_VERSION:
            raise SinkError(
                f"recovery state of the database sink is not of format {SNAPSHOT_VERSION}: "
                f"{OTHER_RELEASE}"
            )
        _, run, marks = state
        self._open(run, known=True)
        for table, shards in marks.items():
            for shard, wanted in shards.items():
                if mark(self._stored, table, shard) < wanted:
                    raise SinkError(
                        f"{self._link.shown} holds fewer rows of {table} than the recovery folder "
                        "counts on: it was put back to an older state; use the recovery folder of "
                        f"that state, or {START_ANEW}"
                    )
        self._taken.restore(marks)

    def _open(self, run: str, known: bool) -> None:
        layout = self.writer.rstrip("0123456789") + "%"

        def claim(connection: psycopg.Connection[Any]) -> tuple[int, Any, list[Any]] | None:
            self._check_tables(connection)
            with connection.transaction():
                if connection.execute(_SUPERSEDED, (run,)).fetchone() is not None:
                    raise superseded(self._link.shown)
                others = connection.execute(self._said(_OTHERS), (run, layout)).fetchall()
                if others or not known:
                    connection.execute(self._said(_CLAIM), (run, self.writer))
                own = connection.execute(self._said(_FENCE), (run, self.writer)).fetchone()
                return own and (own[0], own[2], [own[1], *(rows for (rows,) in others)])

        found = self._link.run(claim)
        if found is None:
            raise SinkError(
                f"{self._link.shown} knows nothing of the run that the recovery folder goes on "
                "from: it is another database, or was emptied; name the right one, or "
                f"{START_ANEW}"
            )
        self._run = run
        self._next, self._stored = found[0], highest(map(from_json, found[2]))
        self._held = tally.from_json(found[1])

    def reassign(self, states: Sequence[Any], keeps: Callable[[int], bool]) -> Any:
        """The same run; what is stored of its shards is found in the database."""
        return (
            SNAPSHOT_VERSION,
            states[0][1],
            of_shards(highest(marks for _, _, marks in states), keeps),
        )

    def _said(self, statement: str) -> str:
        """The statement about our store."""
        return statement.format(store=self._store)

    def _check_tables(self, connection: psycopg.Connection[Any]) -> None:
        found = set(connection.execute(_STORED_COLUMNS, (self._store,)).fetchall())
        catalog = {"timestamptz": "timestamp with time zone"}
        for table in TABLES.values():
            for column in sql.columns(table):
                if (table.name, column.name, catalog.get(column.type, column.type)) not in found:
                    missing = f"{self._store}.{table.name}.{column.name} ({column.type})"
                    raise unmigrated(self._link.shown, f"no {missing}")

    def _begin_call(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._run is None:
            self._open(self._recovery or uuid.uuid4().hex, known=False)

    def close(self) -> None:
        """Flush, and let go."""
        self._begin_call()
        self._flush()
        self._land()
        self._link.drop()

    def finish(self) -> None:
        """Nothing to do: a flush is never undone."""

    def abandon(self) -> None:
        """Let go at once; what was not flushed comes again."""
        self._link.let_go()
        if self._flight is not None and self._failure is None:
            with suppress(Exception):
                self._flight.land()

    # -- rows ---------------------------------------------------------------------------------

    def write(self, rows: RowsLike) -> None:
        """Take the rows of one shard; may flush."""
        self._begin_call()
        for table, batch in rows.tables.items():
            if batch.num_rows:
                self._take(table, rows.shard, batch)
        if self._due() and (self._full() or not self._flying()):
            self._flush()

    def _take(self, table: str, shard: int, batch: pa.RecordBatch) -> None:
        """Add what is not stored yet to the next flush."""
        first, following = self._taken.advance(table, shard, batch)
        stored = mark(self._stored, table, shard)
        if following <= stored:
            return
        rows = batch.slice(max(0, stored - first))
        tally.add_rows(self._held, TABLES[table], shard, rows)
        columns = to_columns(TABLES[table], rows, self._words)
        if not self._rows:
            self._since = time.monotonic()
        self._pending.setdefault(table, []).append(columns)
        self._rows += len(columns[0])
        self._bytes += size(columns)

    def _full(self) -> bool:
        options = self._options
        return self._rows >= options.flush_rows or self._bytes >= options.flush_bytes

    def _due(self) -> bool:
        waits_s = time.monotonic() - self._since
        return self._full() or (self._rows > 0 and waits_s >= self._options.flush_after_s)

    def idle(self) -> None:
        """Called now and then while nothing arrives: rows do not stay invisible for long."""
        if self._run is None or self._failure is not None or self._flying():
            return
        self._land()
        if self._due():
            self._flush()

    def snapshot(self) -> Any:
        """(version, run, marks), with everything stored. None without a recovery identity."""
        self._begin_call()
        self._flush()
        self._land()
        if self._recovery is None:
            return None
        return (SNAPSHOT_VERSION, self._run, copied(self._taken.marks))

    # -- flushes ------------------------------------------------------------------------------

    @property
    def _identity(self) -> tuple[str | None, str]:
        return (self._run, self.writer)

    def _flying(self) -> bool:
        return self._flight is not None and not self._flight.over

    def _flush(self) -> None:
        """Send off what is there, once what was sent off before has arrived."""
        self._land()
        if not self._rows:
            return
        pending, self._pending = self._pending, {}
        target = highest([self._stored, {table: self._taken.marks[table] for table in pending}])
        self._rows = self._bytes = 0
        noted = (Jsonb(to_json(target)), Jsonb(tally.to_json(self._held)))
        self._flight = Flight(
            lambda: self._link.run(
                lambda connection: self._send(connection, pending, target, noted)
            )
        )
        self._target = target

    def _land(self) -> None:
        """Wait until nothing is under way."""
        if self._flight is None:
            return
        try:
            self._flight.land()
        except BaseException as error:
            self._failure = error
            raise
        self._next += 1
        self._stored = self._target
        self._flight = None

    def _send(
        self,
        connection: psycopg.Connection[Any],
        pending: dict[str, list[Bare]],
        target: Marks,
        noted: tuple[Jsonb, Jsonb],
    ) -> None:
        """One flush as one transaction; returns when it is committed, now or by an earlier try."""
        try:
            with connection.transaction():
                self._advance(connection, noted)
                if self._options.direct_compress:
                    connection.execute(_DIRECT_COMPRESS)
                for table, parts in pending.items():
                    self._copy(connection, table, parts)
        except _Superseded:
            found = connection.execute(self._said(_READ), self._identity).fetchone()
            if found is None or found[0] != self._next + 1 or from_json(found[1]) != target:
                raise self._not_alone(found) from None

    def _advance(self, connection: psycopg.Connection[Any], noted: tuple[Jsonb, Jsonb]) -> None:
        # First of all: it waits for the end of any other session that flushes as this run.
        done = connection.execute(self._said(_ADVANCE), (*noted, *self._identity, self._next))
        if done.rowcount != 1:
            raise _Superseded

    def _not_alone(self, found: tuple[int, Any] | None) -> DatabaseFailed:
        if found is not None and found[0] > self._next:
            return DatabaseFailed(
                f"{self._link.shown}: another process writes as {self.writer} of this run: stop "
                f"it, then {START_AGAIN}"
            )
        return DatabaseFailed(
            f"{self._link.shown} has lost rows that it had confirmed (put back to an older state, "
            f"or a standby that was behind took over): {START_ANEW}"
        )

    def _copy(self, connection: psycopg.Connection[Any], table: str, parts: list[Bare]) -> None:
        described = TABLES[table]
        with connection.cursor() as cursor, cursor.copy(copy_statement(table, self._store)) as copy:
            copy.write(HEADER)
            for columns in _by_symbol(described, concat(parts)):
                for piece in encode(described, columns, self._words):
                    copy.write(piece)
                    self._link.alive()
            copy.write(TRAILER)
        self._link.alive()


def _by_symbol(table: Table, columns: Bare) -> Iterator[Bare]:
    """The rows of a flush by symbol, in order within each, so that a question about one symbol
    reads few pages; in parts, so that the server is at work while the next one is made."""
    codes = columns[table.names.index("symbol")].to_numpy() if table.has_venue else _NO_CODES
    if (codes[:-1] <= codes[1:]).all():
        yield columns
        return
    # Short integers are sorted by radix.
    order = np.argsort(codes.astype(np.uint16) if codes.max() < 1 << 16 else codes, kind="stable")
    for first in range(0, len(order), _PART_ROWS):
        yield take(columns, order[first : first + _PART_ROWS])


def copy_statement(table: str, store: str = sql.STORE) -> str:
    """COPY into a stored table, by column names: columns of a newer release stay null."""
    names = ", ".join(sql.quoted(c.name) for c in sql.columns(TABLES[table]))
    return f"COPY {store}.{sql.quoted(table)} ({names}) FROM STDIN (FORMAT binary)"
