"""Local services for tests and benchmarks: data of their own, on free ports, quickly there.

What was installed for ``marketflow services`` is used again, or installed there now, once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import psycopg

from marketflow.infra.services.base import Service, ServiceError
from marketflow.infra.services.manager import SERVICES, home
from tests.support.logs import keep_log
from tests.support.once import lock
from tests.support.patience import PATIENCE_S
from tests.support.ports import free_port

_NUMBERS: Final = count(1)


def new_name() -> str:
    """A database's name that no other test has."""
    return f"t{os.getpid()}_{next(_NUMBERS)}"


@contextmanager
def services_folder() -> Iterator[Path]:
    """Short (a socket's path has few characters) and open to the services' users."""
    folder = Path(tempfile.mkdtemp(prefix="mf-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(name: str, folder: Path) -> Service:
    """A service with its data below ``folder``, up. Raises ServiceError saying what is missing."""
    files = _installed(name)
    service = SERVICES[name](folder, free_port())
    service.folder.mkdir(parents=True)
    service.files.symlink_to(files)
    keep_log(service.log)
    try:
        service.up(print)
    except ServiceError:
        service.down()
        raise
    return service


def back_up(service: Service) -> None:
    """Start a service that was killed: a database's memory can be held for a moment."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            service.up(lambda _: None)
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def _installed(name: str) -> Path:
    """Where the service's programs are. PostgreSQL will not run as root, and whom it runs as may
    not see into the folder of this checkout: then a common one serves."""
    common = Path(f"/var/tmp/marketflow-services-{os.getuid()}")
    for place in (home(), common):
        service = SERVICES[name](place, 0)
        try:
            service.folder.mkdir(parents=True, exist_ok=True)
            with lock("install", service.folder):
                service.ensure_installed(print)
        except ServiceError:
            if place == common:
                raise
        else:
            return service.files
    raise AssertionError


def administrator(service: Service) -> psycopg.Connection:
    """A connection that may make and drop databases."""
    return psycopg.connect(service.url, dbname="postgres", autocommit=True)


@contextmanager
def new_database(service: Service) -> Iterator[str]:
    """DSN of an empty database, gone afterwards."""
    name = new_name()
    with administrator(service) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield service.url.rpartition("/")[0] + f"/{name}"
    service.up(print)
    with administrator(service) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def reader_of(service: Service, dsn: str) -> str:
    """The same database for the login that only reads."""
    return f"{service.reader_url.rpartition('/')[0]}/{dsn.rpartition('/')[2]}"
