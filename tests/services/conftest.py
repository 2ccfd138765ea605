"""Real services for the tests here: started once per session, in their own folder and ports.

Where they cannot be had (no Java, no apt) the tests skip with the reason; in CI they fail with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from marketflow.infra.migrate import migrate
from marketflow.infra.services.base import Service, ServiceError
from marketflow.infra.services.kafka import Kafka
from marketflow.infra.services.timescale import Timescale
from marketflow.schemas.tables import TABLES
from tests.support.services.history import (
    STOPPED_AT,
    History,
    follow,
    parted,
    recorded_frames,
)
from tests.support.services.local import new_database, services_folder, start
from tests.support.services.topics import Cluster


def started(name: str, folder: Path) -> Service:
    """A service of this session, up."""
    try:
        return start(name, folder)
    except ServiceError as error:
        if os.environ.get("CI"):
            pytest.fail(f"{name}: {error}")
        pytest.skip(f"{name}: {error}")


@pytest.fixture(scope="session")
def services_home() -> Iterator[Path]:
    """Where the data of all services of the session is."""
    with services_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def timescale(services_home: Path) -> Iterator[Timescale]:
    """A running TimescaleDB."""
    service = started("timescale", services_home)
    assert isinstance(service, Timescale)
    yield service
    service.down()


@pytest.fixture(scope="session")
def kafka(services_home: Path) -> Iterator[Cluster]:
    """A running Kafka. It lives for minutes: a second compiler that makes its code better would
    take more of the machine than the better code gives back."""
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
    service = started("kafka", services_home)
    assert isinstance(service, Kafka)
    yield Cluster(service)
    service.down()


@pytest.fixture
def bare_database(timescale: Timescale) -> Iterator[str]:
    """DSN of an empty database of the test's own."""
    timescale.up(print)
    with new_database(timescale) as dsn:
        yield dsn


@pytest.fixture
def database(bare_database: str) -> str:
    """DSN of a migrated database of the test's own."""
    migrate(bare_database, TABLES)
    return bare_database


@pytest.fixture
def ask(database: str) -> Callable[[str], list[tuple]]:
    """Runs a query in the test's database."""

    def run(query: str) -> list[tuple]:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("SET timezone = 'UTC'")
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture(scope="module")
def history(kafka: Cluster, tmp_path_factory: pytest.TempPathFactory) -> History:
    """The run followed the topics, two processes, stopped (a checkpoint is there), then one."""
    frames = recorded_frames()
    topics = (kafka.topic(2), kafka.topic(2))
    folder = tmp_path_factory.mktemp("history")
    line = [
        sys.executable, "-m", "marketflow", "run", "market_data", "--checkpoint-every", "1d",
        "--sink", f"parquet:{folder / 'lake'}", "--recovery", str(folder / "recovery"),
    ]  # fmt: skip
    for topic in topics:
        line += ["--source", f"kafka://{kafka.brokers}/{topic}?venue=binance&group=history"]
    for first, rows, processes in ((0, STOPPED_AT, 2), (STOPPED_AT, 4000 - STOPPED_AT, 1)):
        for topic, half in zip(topics, parted(frames.slice(first, rows)), strict=True):
            kafka.record(topic, half)
        started = [*line, "--processes", str(processes)]
        follow(kafka, started, topics, "history", first + rows)
    times = np.sort(frames.column("ts_recv").to_numpy())
    return History(kafka.brokers, topics, folder / "lake", folder / "recovery", times)
