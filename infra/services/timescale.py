"""PostgreSQL 17 with TimescaleDB (Apache edition) from Debian packages, unpacked, unprivileged."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar, Final

from marketflow.infra.services.base import Service, ServiceError, port_open
from marketflow.infra.services.debian import unpack, wrapper

_PACKAGE: Final = "postgresql-17-timescaledb"
_SUITE: Final = "trixie"
_NEEDED: Final = re.compile(r"^(lib|postgresql-17|zlib1g|openssl|tzdata)")
_NOT_NEEDED: Final = re.compile(
    r"perl|llvm|z3|pam-modules|semanage|audit-common|libc-bin|libc-l10n|proc2"
)
_MAX_SOCKET_PATH: Final = 100

_CONF: Final = """listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{socket}'
shared_preload_libraries = 'timescaledb'
timescaledb.telemetry_level = off
jit = off
shared_buffers = 512MB
max_wal_size = 4GB
checkpoint_timeout = 15min
wal_compression = zstd
max_connections = 60
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
"""


class Timescale(Service):
    """``url`` is a DSN on loopback; its password is made once and kept in the folder."""

    name: ClassVar[str] = "timescale"
    default_port: ClassVar[int] = 15432
    database: ClassVar[str] = "marketflow"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # fast shutdown: open sessions end

    @property
    def version(self) -> str:
        return f"{_SUITE} {_PACKAGE} 1"

    @property
    def url(self) -> str:
        secret = self.folder / "password"
        password = secret.read_text() if secret.is_file() else ""
        credentials = f"marketflow:{password}" if password else "marketflow"
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{self.database}"

    @property
    def reader_url(self) -> str:
        """DSN of the login that only reads (infra.reader); its password is kept in the folder."""
        from marketflow.infra.reader import ROLE
        from marketflow.sinks.timescale.dsn import with_login

        secret = self.folder / "reader_password"
        return with_login(self.url, ROLE, secret.read_text() if secret.is_file() else None)

    def make_reader(self, dsn: str) -> None:
        """Make that login on the server of ``dsn``, or give it the password that is kept."""
        import psycopg

        from marketflow.infra.reader import make_reader

        with psycopg.connect(dsn, autocommit=True) as connection:
            make_reader(connection, self._secret("reader_password"))

    def _secret(self, name: str) -> str:
        """The password in that file of the folder, made once."""
        path = self.folder / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)
            path.write_text(secrets.token_urlsafe(16))
        return path.read_text()

    @property
    def _bin(self) -> Path:
        return self.files / "root/usr/lib/postgresql/17/bin"

    @property
    def _socket(self) -> Path:
        return self.folder / "run"

    def user(self) -> int | None:
        # postgres refuses uid 0; nobody owns the data then.
        return pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None

    def environment(self) -> dict[str, str]:
        return {"LC_ALL": "C", "TZDIR": str(self.files / "root/usr/share/zoneinfo")}

    def install(self) -> None:
        if len(str(self._socket)) > _MAX_SOCKET_PATH:
            raise ServiceError(
                f"the path {self.folder} is too long for a socket: set MARKETFLOW_SERVICES to a "
                "shorter folder"
            )
        self._check_reachable()
        unpack(
            self.files, _SUITE, _PACKAGE,
            lambda name: bool(_NEEDED.match(name)) and not _NOT_NEEDED.search(name),
        )  # fmt: skip
        for binary in ("postgres", "initdb"):
            wrapper(self.files / "root", self._bin / binary)

    def _check_reachable(self) -> None:
        if os.getuid() != 0:
            return
        for parent in (self.folder, *self.folder.parents):
            if parent.exists() and not parent.stat().st_mode & 0o001:
                raise ServiceError(
                    f"{parent} is closed to others, and PostgreSQL will not run as root: set "
                    "MARKETFLOW_SERVICES to a folder such as /var/tmp/marketflow"
                )

    def _run_as(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, **self.environment()},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            user=self.user(), extra_groups=[] if self.user() is not None else None,
        )  # fmt: skip
        if done.returncode:
            raise ServiceError(
                f"{Path(command[0]).name} failed: {(done.stdout + done.stderr)[-600:]}"
            )

    def command(self) -> list[str]:
        self._socket.mkdir(parents=True, exist_ok=True)
        self._own(self._socket)
        if not (self.data / "PG_VERSION").is_file():
            self._initialise()
        conf = self.data / "marketflow.conf"
        conf.write_text(_CONF.format(port=self.port, socket=self._socket))
        self._own(conf)
        # Left behind by a kill: the lock names a process that is no more.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        return [str(self._bin / "postgres"), "-D", str(self.data)]

    def _initialise(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        self.data.chmod(0o700)
        self._own(self.data)
        handed = self._socket / "password"
        handed.write_text(self._secret("password"))
        self._own(handed)
        share = self.files / "root/usr/share/postgresql/17"
        self._run_as([
            str(self._bin / "initdb"), "-D", str(self.data), "-L", str(share), "-U", "marketflow",
            "--pwfile", str(handed), "--auth-host=scram-sha-256", "--auth-local=trust",
            "--locale-provider=builtin", "--locale=C", "--builtin-locale=C.UTF-8",
            "--encoding=UTF8", "--no-instructions",
        ])  # fmt: skip
        handed.unlink()
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("include 'marketflow.conf'\n")

    def _own(self, path: Path) -> None:
        user = self.user()
        if user is not None:
            os.chown(path, user, -1)

    def answers(self) -> bool:
        if not port_open(self.port):
            return False
        import psycopg

        try:
            with psycopg.connect(self.url, dbname="postgres", connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def after_start(self) -> None:
        """Create the database, the extension and the login that only reads, once."""
        import psycopg

        with psycopg.connect(self.url, dbname="postgres", autocommit=True) as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (self.database,)
            ).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {self.database}")  # type: ignore[arg-type]
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        self.make_reader(self.url)
