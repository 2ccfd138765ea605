"""PostgreSQL connection strings: checked, shown without their secrets, opened with our habits.

A DSN is what libpq takes: ``postgresql://user@host:port/database?sslmode=verify-full`` or
``host=... dbname=...``. What it leaves out comes from libpq's environment (PGHOST, PGPASSWORD,
PGPASSFILE, PGSSLMODE ...), so no password needs to be written down; TLS is libpq's ``ssl*``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from marketflow.sinks.errors import SinkError
from marketflow.sinks.redaction import redacted

if TYPE_CHECKING:  # a run without a database does not load the driver
    import psycopg

EXAMPLE: Final = "postgresql://user@host:5432/database"

#: Noticed by both ends: a peer that is gone (not merely slow) within half a minute.
_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "client_encoding": "UTF8",
}

#: What a server says to those it will never let in, with the fix. (libpq gives no SQLSTATE for a
#: refused connection, only the text.)
_REFUSALS: Final = (
    (
        "password authentication failed",
        "the password is wrong: give the right one in PGPASSWORD, a PGPASSFILE or the DSN",
    ),
    ("no password supplied", "it wants a password: PGPASSWORD, a PGPASSFILE or the DSN gives one"),
    ("no pg_hba.conf entry", "its pg_hba.conf does not let this user in from here: add a line"),
    ("does not exist", "create it, or correct the DSN"),
    ("permission denied for database", "GRANT CONNECT on it to this user"),
    ("is not permitted to log in", "ALTER ROLE … LOGIN, or connect as another user"),
    ("certificate verify failed", "sslrootcert= names the authority that signed its certificate"),
    ("does not support SSL", "switch TLS on there, or use another sslmode"),
)


def check(dsn: str) -> None:
    """SinkError when libpq cannot read the DSN; nothing of it is repeated, it may hold secrets."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise SinkError(
            f"the DSN is no PostgreSQL connection string such as {EXAMPLE} "
            "(special characters of a password are written as %40 for @, %2F for / ...)"
        ) from None


def shown(dsn: str) -> str:
    """``user@host:port/database``: where a DSN leads, for people."""
    return "@".join(_leads_to(dsn))


def place(dsn: str) -> str:
    """``host:port/database``: the same for every user of it."""
    return _leads_to(dsn)[1]


def _leads_to(dsn: str) -> tuple[str, str]:
    """User, and host:port/database."""
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict

    given = {k: v for k, v in conninfo_to_dict(dsn).items() if v is not None}
    known = {o.keyword.decode(): o.val.decode() for o in pq.Conninfo.get_defaults() if o.val}
    known.update({k: str(v) for k, v in given.items()})
    user, host = known.get("user", ""), known.get("host", known.get("hostaddr", "localhost"))
    return user, f"{host}:{known.get('port', '5432')}/{known.get('dbname', user)}"


def with_login(dsn: str, user: str, password: str | None) -> str:
    """The same place as a URL with another login; without a password libpq looks for one."""
    from urllib.parse import quote, urlencode

    from psycopg.conninfo import conninfo_to_dict

    given = {k: str(v) for k, v in conninfo_to_dict(dsn).items() if v is not None}
    secret = "" if password is None else f":{quote(password, safe='')}"
    host = quote(given.pop("host", ""), safe=",:[]")
    port = f":{given.pop('port')}" if "port" in given else ""
    database = quote(given.pop("dbname", ""), safe="")
    rest = {k: v for k, v in given.items() if k not in ("user", "password", "passfile")}
    query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    return f"postgresql://{quote(user, safe='')}{secret}@{host}{port}/{database}{query}"


def connect(dsn: str, name: str, **options: Any) -> psycopg.Connection[Any]:
    """Open a connection; ``name`` is what the server lists it as. Raises psycopg.Error."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(dsn)
    settings = {k: v for k, v in _DEFAULTS.items() if given.get(k) is None}
    return psycopg.connect(dsn, application_name=name, **settings, **options)


def refusal(dsn: str, error: psycopg.Error) -> str | None:
    """Why this server will never let us in as we are, with the fix; None: it may yet."""
    text = one_line(error)
    if error.sqlstate is None or error.sqlstate.startswith(("28", "3D")):
        for phrase, fix in _REFUSALS:
            if phrase in text:
                return f"{shown(dsn)} refuses: {text}; {fix}"
    return None


def one_line(error: BaseException) -> str:
    """The first line of a message, without libpq's preamble."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = text.removeprefix("connection failed: ")
    return redacted(re.sub(r"^connection to server .*? failed: (FATAL: +)?", "", text))
