"""The feeds of a database: claims in ``store.claims`` and ``store.runs`` (sinks.lineage).

Claims are made one after the other, under an advisory lock. A run lives while a session of its
parent process holds the run's own lock; a connection that was lost is a run that is gone, and
whoever takes its claims over shuts its writers out, alive or not (``store.progress.next``).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from marketflow.schemas.derived import sql
from marketflow.schemas.shards import bounds_of_feed
from marketflow.sinks.lineage import (
    COMPLETE,
    CUT_OFF,
    RUNNING,
    Claim,
    Entry,
    in_the_way,
    refused,
    superseded,
)
from marketflow.sinks.timescale.connection import Link

#: Of the lock under which claims are made: "mktfeeds" as a number.
_CLAIMS: Final = 0x6D6B746665656473
_RUN: Final = "SELECT superseded, complete FROM {store}.runs WHERE run = %s"
_ENTRIES: Final = (
    "SELECT number, run, digest, source, parts, settings FROM {store}.claims "
    "JOIN {store}.runs USING (run) ORDER BY 1, 2"
)
_LIVES: Final = (
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted "
    "AND objsubid = 1 AND ((classid::bigint << 32) | objid::bigint) = %s AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()))"
)
_HAS_ROWS: Final = (
    "SELECT EXISTS (SELECT FROM {store}.progress WHERE run = %s AND (feeds <> '{{}}' OR "
    "rows <> '{{}}'))"
)
_ADD_RUN: Final = (
    "INSERT INTO {store}.runs (run, lock_key, flow, release, settings, complete, ended) "
    "VALUES (%s, %s, %s, %s, %s, %s, CASE WHEN %s THEN now() END) ON CONFLICT (run) "
    "DO UPDATE SET complete = excluded.complete, ended = excluded.ended"
)
_ADD_CLAIM: Final = (
    "INSERT INTO {store}.claims "
    "(number, run, digest, identity, source, venue, parts, position, reached) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) "
    "ON CONFLICT (number, run) DO UPDATE SET parts = excluded.parts"
)
#: Whoever still writes as the run finds another number than it expects.
_SHUT_OUT: Final = "UPDATE {store}.progress SET next = next + 1 WHERE run = ANY(%s)"
_END_RUNS: Final = "UPDATE {store}.runs SET superseded = true WHERE run = ANY(%s)"
_DROP_CLAIMS: Final = "DELETE FROM {store}.claims WHERE run = ANY(%s)"
_COMPLETE: Final = "UPDATE {store}.runs SET complete = true, ended = now() WHERE run = %s"
_REACHED: Final = (
    "UPDATE {store}.claims SET reached = %s, parts = (SELECT jsonb_agg(CASE WHEN part ? 'topic' "
    "THEN part || jsonb_build_object('end', %s::bigint) ELSE part END) "
    "FROM jsonb_array_elements(parts) AS part) WHERE run = %s AND number = %s"
)


def lock_key(run: str) -> int:
    """Of the advisory lock that a run which lives holds."""
    return int(run[:15], 16)


class DatabaseLineage:
    """Feeds of one database, for one run."""

    def __init__(
        self, dsn: str, outage_s: float, stall_s: float, stop: threading.Event | None = None
    ) -> None:
        # Its connection is kept: the run's lock goes with it.
        self._link = Link(dsn, "marketflow feeds", outage_s, stall_s, stop)

    def entries(self) -> list[Entry]:
        """See :class:`sinks.lineage.Lineage`."""
        return self._link.run(entries)

    def claim(self, claim: Claim, *, replaces: bool = False) -> None:
        """See :class:`sinks.lineage.Lineage`."""

        def work(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                claims_alone(connection)
                self._check(connection, claim.run)
                void = self._void(connection, claim, replaces=replaces)
                if replaces:
                    return
                end_runs(connection, void)
                connection.execute(_said(_DROP_CLAIMS), (void,))
                add(connection, claim)
                connection.execute("SELECT pg_advisory_lock_shared(%s)", (lock_key(claim.run),))

        self._link.run(work)

    def _check(self, connection: psycopg.Connection[Any], run: str) -> None:
        known = connection.execute(_said(_RUN), (run,)).fetchone()
        if known is not None and known[0]:
            raise superseded(self._link.shown)

    def _void(
        self, connection: psycopg.Connection[Any], claim: Claim, *, replaces: bool
    ) -> list[str]:
        """Runs whose void claims are taken over."""
        void = set()
        for entry in in_the_way(entries(connection), claim, replaces=replaces):
            state = state_of(connection, entry.run)
            if state == RUNNING:
                raise refused(self._link.shown, entry, state)
            if replaces:
                continue
            has_rows = connection.execute(_said(_HAS_ROWS), (entry.run,)).fetchone()
            if state == COMPLETE or has_rows == (True,):
                raise refused(self._link.shown, entry, state)
            void.add(entry.run)
        return sorted(void)

    def complete(self, run: str, reached: Mapping[int, int]) -> None:
        """See :class:`sinks.lineage.Lineage`."""

        def work(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                connection.execute(_said(_COMPLETE), (run,))
                for number, position in reached.items():
                    values = (position, position, run, number)
                    connection.execute(_said(_REACHED), values)

        self._link.run(work)

    def release(self) -> None:
        """See :class:`sinks.lineage.Lineage`."""
        self._link.drop()


def _said(statement: str) -> str:
    return statement.format(store=sql.STORE)


def claims_alone(connection: psycopg.Connection[Any]) -> None:
    """Nobody else claims or replaces until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_CLAIMS,))


def entries(connection: psycopg.Connection[Any]) -> list[Entry]:
    """The claims."""
    found = connection.execute(_said(_ENTRIES)).fetchall()
    return [
        Entry(number, run, digest, source, tuple(parts), settings)
        for number, run, digest, source, parts, settings in found
    ]


def state_of(connection: psycopg.Connection[Any], run: str) -> str:
    """Running, complete or cut off."""
    known = connection.execute(_said(_RUN), (run,)).fetchone()
    if known is not None and known[1]:
        return COMPLETE
    lives = connection.execute(_LIVES, (lock_key(run),)).fetchone()
    return RUNNING if lives == (True,) else CUT_OFF


def end_runs(connection: psycopg.Connection[Any], runs: Sequence[str]) -> None:
    """These runs write no more: they are superseded."""
    connection.execute(_said(_SHUT_OUT), (list(runs),))
    connection.execute(_said(_END_RUNS), (list(runs),))


def add(
    connection: psycopg.Connection[Any], claim: Claim, reached: Mapping[int, int] | None = None
) -> None:
    """Note the run and its claims; ``reached``: of one that is complete."""
    over = reached is not None
    about = (claim.flow, claim.release, Jsonb(dict(claim.settings)))
    connection.execute(_said(_ADD_RUN), (claim.run, lock_key(claim.run), *about, over, over))
    for feed in claim.feeds:
        parts = Jsonb([dict(part) for part in feed.parts])
        names = (feed.digest, feed.identity, feed.source, feed.venue)
        values = (feed.number, claim.run, *names, parts, feed.position, None)
        connection.execute(_said(_ADD_CLAIM), values)
    for number, position in (reached or {}).items():
        connection.execute(_said(_REACHED), (position, position, claim.run, number))


def rows_of_feed(number: int) -> tuple[str, tuple[int, int, int]]:
    """A condition for the rows of a feed, and its values."""
    return "(shard BETWEEN %s AND %s OR shard = %s)", bounds_of_feed(number)
