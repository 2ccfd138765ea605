"""Kills and outages: of the writing process, of the database, in the middle of everything."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from marketflow.infra.services.timescale import Timescale
from marketflow.sinks.errors import DatabaseFailed
from marketflow.sinks.timescale.config import TimescaleOptions
from marketflow.sinks.timescale.writer import TimescaleWriter
from tests.support.chance import chance
from tests.support.patience import PATIENCE_S, until
from tests.support.services import database_writing as writing
from tests.support.services.local import back_up
from tests.support.services.small_flow import ITEMS, killed
from tests.support.stored import Expected, stored_rows

pytestmark = pytest.mark.services
_KILLS = 3


def expected(count: int = ITEMS) -> dict:
    model = Expected()
    for item in writing.items(count):
        model.write(item)
    return model.rows


def family(service: Timescale) -> list[psutil.Process]:
    """Every process of the database, the oldest first."""
    postmaster = psutil.Process(service.pid)
    return [postmaster, *postmaster.children(recursive=True)]


def signal_all(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def write_all(dsn: str, count: int, options: TimescaleOptions) -> Callable[[], None]:
    """Write in a thread of its own; call the result to wait for the end and raise what failed."""
    failures: list[BaseException] = []
    luck = chance()

    def work() -> None:
        try:
            writer = TimescaleWriter(dsn, recovery="r", options=options)
            for item in writing.items(count):
                for piece in writing.pieces(item, luck):
                    writer.write(piece)
            writer.snapshot()
            writer.close()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def join() -> None:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        for failure in failures:
            raise failure

    return join


def wait_for_rows(dsn: str) -> None:
    """Until the run is under way."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        until(
            lambda: connection.execute("SELECT FROM store.quotes LIMIT 1").rowcount, "no rows came"
        )


def test_the_writing_process_is_killed_at_random_moments(database: str, tmp_path: Path) -> None:
    landed = killed(
        "tests.support.services.database_writing",
        database,
        str(tmp_path),
        kills=_KILLS,
        longest_s=0.4,
    )
    assert landed
    assert stored_rows(database) == expected()


def test_the_database_is_killed_and_comes_back(timescale: Timescale, database: str) -> None:
    join = write_all(database, 150, writing.OPTIONS)
    wait_for_rows(database)
    dead = family(timescale)
    signal_all(dead, signal.SIGKILL)
    psutil.wait_procs(dead, timeout=PATIENCE_S)
    back_up(timescale)
    join()
    assert stored_rows(database) == expected(150)


def test_the_database_freezes_for_a_while(timescale: Timescale, database: str) -> None:
    """Longer than the writer's patience: it lets the connection go and makes another, and finds
    out what had become of its last flush."""
    options = TimescaleOptions(flush_rows=500, flush_after_s=1e9, stall_s=1.0, outage_s=PATIENCE_S)
    join = write_all(database, 150, options)
    wait_for_rows(database)
    for seconds in (0.3, 2.5):
        frozen = family(timescale)
        signal_all(frozen, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            signal_all(frozen, signal.SIGCONT)
        time.sleep(0.3)
    join()
    assert stored_rows(database) == expected(150)


def test_an_outage_too_long_ends_the_run_and_loses_nothing(
    timescale: Timescale, database: str, caplog
) -> None:
    written = writing.items(20)
    options = TimescaleOptions(flush_rows=500, outage_s=1.0)
    writer = TimescaleWriter(database, recovery="r", options=options)
    for item in written[:10]:
        writer.write(item)
    state = writer.snapshot()
    timescale.down()
    with pytest.raises(DatabaseFailed, match=r"gave up after 1 s.*nothing is lost or doubled"):
        for item in written[10:]:
            writer.write(item)
    with pytest.raises(DatabaseFailed):
        writer.snapshot()
    assert "waiting for marketflow@127.0.0.1" in caplog.text
    timescale.up(print)
    resumed = TimescaleWriter(database, recovery="r", options=options)
    resumed.restore(state)
    for item in written[10:]:
        resumed.write(item)
    resumed.close()
    assert stored_rows(database) == expected(20)


def test_a_stopped_run_does_not_wait_out_an_outage(
    timescale: Timescale, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = TimescaleWriter(database, recovery="r", options=TimescaleOptions(outage_s=300))
    writer.write(writing.items(1)[0])
    writer.snapshot()
    timescale.down()
    writer.write(writing.items(4)[3])
    failures: list[BaseException] = []

    def snapshot() -> None:
        try:
            writer.snapshot()
        except DatabaseFailed as error:
            failures.append(error)

    thread = threading.Thread(target=snapshot)
    thread.start()
    until(lambda: "waiting for marketflow@127.0.0.1" in caplog.text)
    writer.abandon()
    thread.join(100)  # the outage would be waited out for longer
    assert not thread.is_alive()
    assert "stopped waiting" in str(failures[0])
    timescale.up(print)
