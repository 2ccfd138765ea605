"""Real services for the tests here: started once per session, in their own folder and ports.

What was installed for ``marketflow services`` is used again (or installed there now, once); data
and logs are the session's and go with it. Where services cannot be had (no Java, no apt) the tests
skip with the reason; in CI they fail with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from infra.migrate import migrate
from infra.services.base import Service, ServiceError
from infra.services.manager import SERVICES, home
from infra.services.timescale import Timescale


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(text: str) -> None:
    print(text)


def start(name: str, folder: Path) -> Service:
    """A service of this session, up."""
    installed = SERVICES[name](home(), 0)
    service = SERVICES[name](folder, _free_port())
    try:
        installed.folder.mkdir(parents=True, exist_ok=True)
        installed.ensure_installed(_say)
        service.folder.mkdir(parents=True)
        service.files.symlink_to(installed.files)
        service.up(_say)
    except ServiceError as error:
        service.down()
        if os.environ.get("CI"):
            pytest.fail(f"{name}: {error}")
        pytest.skip(f"{name}: {error}")
    return service


@pytest.fixture(scope="session")
def services_home() -> Iterator[Path]:
    """Short (a socket's path has few characters) and open to the services' users."""
    folder = Path(tempfile.mkdtemp(prefix="mf-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def timescale(services_home: Path) -> Iterator[Timescale]:
    """A running TimescaleDB."""
    service = start("timescale", services_home)
    assert isinstance(service, Timescale)
    yield service
    service.down()


@pytest.fixture
def bare_database(timescale: Timescale) -> Iterator[str]:
    """DSN of an empty database of the test's own, gone afterwards."""
    if timescale.state().state != "up":
        timescale.up(_say)
    name = f"t{_free_port()}"
    with _administrator(timescale) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield timescale.url.rpartition("/")[0] + f"/{name}"
    timescale.up(_say)
    with _administrator(timescale) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _administrator(timescale: Timescale) -> psycopg.Connection:
    return psycopg.connect(timescale.url, dbname="postgres", autocommit=True)


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
