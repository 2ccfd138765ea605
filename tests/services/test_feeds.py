"""The feeds contract for a database; and what only a server can show."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from marketflow.flows.commands.feeds import known_feeds
from marketflow.infra.migrate import migrate
from marketflow.infra.services.timescale import Timescale
from marketflow.schemas.tables import TABLES
from tests.services.conftest import new_database
from tests.support.feeds_contract import FeedsContract, Store, ended, load, started
from tests.support.lake_model import LakeRows
from tests.support.patience import PATIENCE_S, until
from tests.support.services.local import reader_of
from tests.support.stored import stored_rows

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]


class DatabaseStore(Store):
    """A database."""

    def __init__(self, server: Timescale, stack: ExitStack) -> None:
        self._server, self._stack = server, stack
        self.dsn = stack.enter_context(new_database(server))
        migrate(self.dsn, TABLES)
        self.url = f"timescale:{self.dsn}?flush_rows=2000"

    def rows(self) -> LakeRows:
        return stored_rows(self.dsn)

    def feeds(self) -> list[dict[str, Any]]:
        return known_feeds(None, reader_of(self._server, self.dsn))

    def fresh(self) -> Store:
        return DatabaseStore(self._server, self._stack)


@pytest.fixture
def store(timescale: Timescale) -> Iterator[Store]:
    """An empty database."""
    timescale.up(print)
    with ExitStack() as stack:
        yield DatabaseStore(timescale, stack)


class TestFeedsOfADatabase(FeedsContract):
    """Every test of the contract."""


def test_a_process_that_wakes_up_after_its_feed_was_replaced(store: Store, tmp_path: Path) -> None:
    """Frozen, its connections lost: for the database it is gone. It writes no row any more."""
    assert isinstance(store, DatabaseStore)
    source = "sim:?events=30000&symbols=12&seed=5"
    recovery = ["--recovery", str(tmp_path / "old")]
    child = started(store, source, *recovery)
    until(lambda: child.poll() is not None or store.counts(), "rows")
    child.send_signal(signal.SIGSTOP)
    try:
        with psycopg.connect(store.dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'marketflow%' AND datname = current_database()"
            )
        load(store, source, recovery=tmp_path / "new", replace=True)
        replaced = store.rows()
    finally:
        child.send_signal(signal.SIGCONT)
    _, said = child.communicate(timeout=PATIENCE_S)
    assert child.returncode in (1, 2), said
    assert "another process writes" in said or "was replaced by another run" in said, said
    assert store.rows() == replaced
    assert store.counts() == store.counted()
    assert "was replaced by another run, it cannot go on" in ended(
        started(store, source, *recovery), 2
    )
