"""Real services for the tests here: started once per session, in their own folder and ports.

Where they cannot be had (no Java, no apt) the tests skip with the reason; in CI they fail with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from marketflow.infra.migrate import migrate
from marketflow.infra.services.base import Service, ServiceError
from marketflow.infra.services.kafka import Kafka
from marketflow.infra.services.timescale import Timescale
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
    """A running Kafka."""
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
    migrate(bare_database)
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
