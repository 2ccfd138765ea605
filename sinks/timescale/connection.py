"""The connection of one writer: opened when it is needed, watched, and retried through outages.

Work on it is a function that is run again from its start after an outage, so it must be one
transaction that finds out by itself whether its last try was committed after all. A server that is
frozen, or a network that swallows, is noticed by a watchdog: no step of the work takes longer than
``stall_s``. Nothing is retried that waiting cannot mend (a wrong password, a missing table).
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg

from marketflow.schemas.backoff import Backoff, Outage
from marketflow.schemas.recovery import START_AGAIN
from marketflow.sinks.errors import DatabaseFailed, SinkError
from marketflow.sinks.timescale import dsn as dsn_module

_T = TypeVar("_T")

log = logging.getLogger("marketflow.timescale")

_BACKOFF: Final = Backoff(first_s=0.1, longest_s=5.0)
_TELL_EVERY_S: Final = 10.0
#: SQLSTATE classes and codes of what passes: connection, resources, operator, system; a replica
#: that is not primary yet; locks.
_PASSING: Final = ("08", "53", "57", "58", "25006", "55P03", "40001", "40P01")
_UNMIGRATED: Final = ("42P01", "42703", "3F000")
_FORBIDDEN: Final = "42501"
#: Of every session: a dead client's locks go soon, and commits are durable whatever the default.
_SETTINGS: Final = """
SELECT set_config('statement_timeout', '300s', false), set_config('lock_timeout', '10s', false),
    set_config('idle_in_transaction_session_timeout', '60s', false),
    set_config('tcp_keepalives_idle', '10', false),
    set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)
"""


class Link:
    """``name`` is shown by the server (pg_stat_activity). An outage may last ``outage_s``, and no
    longer than until ``let_go`` is set."""

    def __init__(
        self,
        dsn: str,
        name: str,
        outage_s: float,
        stall_s: float,
        let_go: threading.Event | None = None,
    ) -> None:
        self.shown = dsn_module.shown(dsn)
        self._dsn = dsn
        self._name = name
        self._outage_s = outage_s
        self._stall_s = stall_s
        self._connection: psycopg.Connection[Any] | None = None
        self._let_go = let_go or threading.Event()
        self._watchdog = Watchdog(stall_s)

    def run(self, work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        """The result of ``work``; it calls :meth:`alive` whenever it has come further.

        Raises SinkError (waiting does not help; the text names the fix) and DatabaseFailed (the
        outage lasted too long, or :meth:`let_go` was called meanwhile).
        """
        outage = Outage(_BACKOFF, self._outage_s, tell_every_s=_TELL_EVERY_S)
        while True:
            try:
                connection = self._opened()
                with self._watchdog.over(connection):
                    result = work(connection)
                if lasted_s := outage.ended(time.monotonic()):
                    log.warning("%s is back after %.1f s", self.shown, lasted_s)
                return result
            except psycopg.Error as error:
                stalled = self._watchdog.fired
                self.drop()
                self._refuse_what_lasts(error)
                text = f"no answer for {self._stall_s:g} s" if stalled else _text(error)
                self._wait(outage, text, error)

    def _wait(self, outage: Outage, why: str, error: psycopg.Error) -> None:
        """Pause before the next try. Raises DatabaseFailed where the patience is over."""
        retry = outage.failed(time.monotonic(), why, random.random())
        if retry.left_s <= 0:
            raise DatabaseFailed(
                f"{self.shown}: {why}; gave up after {self._outage_s:g} s of trying: mend that "
                f"and {START_AGAIN}"
            ) from error
        if retry.tell:
            log.warning("waiting for %s: %s; gives up in %.0f s", self.shown, why, retry.left_s)
        if self._let_go.wait(retry.pause_s):
            raise DatabaseFailed(f"{self.shown}: stopped waiting: {why}") from error

    def alive(self) -> None:
        """The work goes on: the watchdog waits anew."""
        self._watchdog.feed()

    def drop(self) -> None:
        """Close the connection at once; whatever was not committed is undone."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def let_go(self) -> None:
        """End any work and waiting at once, from any thread."""
        self._let_go.set()
        if self._connection is not None:
            _cut(self._connection)

    def _opened(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.broken:
            self._watchdog.fired = False
            connection = dsn_module.connect(self._dsn, self._name, autocommit=True)
            self._connection = connection
            with self._watchdog.over(connection):
                connection.execute(_SETTINGS)
        return self._connection

    def _refuse_what_lasts(self, error: psycopg.Error) -> None:
        refused = dsn_module.refusal(self._dsn, error)
        if refused is not None:
            raise SinkError(refused) from error
        code = error.sqlstate
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        if (code is None and lost) or (code is not None and code.startswith(_PASSING)):
            return
        if code in _UNMIGRATED:
            raise unmigrated(self.shown, dsn_module.one_line(error)) from error
        if code == _FORBIDDEN:
            raise SinkError(
                f"{self.shown}: {dsn_module.one_line(error)}: GRANT USAGE ON SCHEMA store and "
                "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA store to this user"
            ) from error
        raise error


class Flight:
    """Work that is under way in a thread of its own, until it is done or has failed."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._job = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="flush", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._job()
        except BaseException as error:  # it is raised again in the thread that waits for it
            self._error = error

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def land(self) -> None:
        """Wait for the end; raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def unmigrated(shown: str, what: str) -> SinkError:
    """The database is not of this release."""
    return SinkError(
        f"{shown}: {what}: the database lacks what this release writes; run: "
        "marketflow migrate --dsn DSN"
    )


def _text(error: psycopg.Error) -> str:
    if error.sqlstate == "25006":
        return "the database is read-only"
    return dsn_module.one_line(error)


class Watchdog:
    """Cuts a connection that makes no progress: whoever waits on it gets an error then."""

    def __init__(self, limit_s: float) -> None:
        self.fired = False
        self._limit_s = limit_s
        self._change = threading.Condition()
        self._deadline = 0.0
        self._guarded: psycopg.Connection[Any] | None = None

    @contextmanager
    def over(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Guard the connection meanwhile."""
        with self._change:
            self._guarded = connection
            self._deadline = time.monotonic() + self._limit_s
        thread = threading.Thread(target=self._watch, args=(connection,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._change:
                self._guarded = None
                self._change.notify_all()
            thread.join()

    def feed(self) -> None:
        """There was progress."""
        self._deadline = time.monotonic() + self._limit_s

    def _watch(self, connection: psycopg.Connection[Any]) -> None:
        with self._change:
            while self._guarded is connection:
                left_s = self._deadline - time.monotonic()
                if left_s <= 0:
                    self.fired = True
                    _cut(connection)
                    return
                self._change.wait(left_s)


def _cut(connection: psycopg.Connection[Any]) -> None:
    """Shut the socket down below libpq, which notices it as a lost connection."""
    with (
        suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as link,
    ):
        link.shutdown(socket.SHUT_RDWR)
