"""``timescale:DSN``: a database, and when rows are sent to it.

``timescale:postgresql://user@host/database?sslmode=require&flush_rows=N``: parameters that are not
ours are libpq's. Passwords are better left to the environment (PGPASSWORD, PGPASSFILE);
``timescale:`` alone means the DSN in MARKETFLOW_DSN.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from typing import ClassVar, Final
from urllib.parse import parse_qsl

from pydantic import Field

from marketflow.schemas.derived import sql
from marketflow.sinks.config import (
    Count,
    Opening,
    Options,
    Seconds,
    SinkConfig,
    no_destination,
    options_of,
)
from marketflow.sinks.errors import SinkError, did_you_mean
from marketflow.sinks.lineage import Claim, Lineage
from marketflow.sinks.overlap import Arrived, Interval
from marketflow.sinks.redaction import redacted
from marketflow.sinks.timescale import dsn as dsn_module
from marketflow.sinks.writer import Writer

FORM: Final = f"timescale:{dsn_module.EXAMPLE}"
#: The database of ``timescale:`` without a DSN.
_DSN_VARIABLE: Final = "MARKETFLOW_DSN"
_DSN_SCHEMES: Final = ("postgresql://", "postgres://")


class TimescaleOptions(Options):
    """When rows are sent, and how long an outage may be.

    ``flush_rows``, ``flush_bytes`` (of memory), ``flush_after_s`` after its first row: a flush.
    ``outage_s``: longest wait for a database that is away.
    ``stall_s``: longest silence of one that is not.
    ``direct_compress``: rows go straight into the columnstore, for back-fills (full edition only).
    """

    flush_rows: Count = 100_000
    flush_bytes: Count = 64 << 20
    flush_after_s: Seconds = 1.0
    outage_s: Seconds = 300.0
    stall_s: Seconds = 30.0
    direct_compress: bool = False


class TimescaleConfig(SinkConfig):
    """A database (sinks.timescale.writer)."""

    can_replace: ClassVar[bool] = True
    kernels: ClassVar[tuple[str, ...]] = ("timescale",)
    dsn: str = Field(repr=False)
    options: TimescaleOptions = TimescaleOptions()

    @classmethod
    def parse(cls, text: str) -> TimescaleConfig:
        """The config of a URL. SinkError."""
        dsn, given = _split(text.partition(":")[2])
        dsn = dsn or os.environ.get(_DSN_VARIABLE, "")
        if not dsn:
            raise no_destination(text, FORM, f" or set {_DSN_VARIABLE}")
        options = options_of(TimescaleOptions, text, given)
        try:
            dsn_module.check(dsn)
        except SinkError:
            _check_names(text, dsn)
            raise
        return cls(text=text, dsn=dsn, options=options)

    @property
    def place(self) -> str:
        return f"timescale:{dsn_module.place(self.dsn)}"

    def _writer(self, opening: Opening) -> Writer:
        from marketflow.sinks.timescale import backfill
        from marketflow.sinks.timescale.writer import TimescaleWriter

        writer, recovery, midway, aside = opening
        store = sql.STORE if aside is None else backfill.aside(aside)
        return TimescaleWriter(self.dsn, writer, recovery, self.options, midway, store)

    def lineage(self, stop: threading.Event | None = None) -> Lineage:
        from marketflow.sinks.timescale.feeds import DatabaseLineage

        return DatabaseLineage(self.dsn, self.options.outage_s, self.options.stall_s, stop)

    def replace_feeds(self, key: str, claim: Claim, reached: Mapping[int, int]) -> dict[str, int]:
        from marketflow.sinks.timescale import backfill

        return backfill.replace_feeds(self.dsn, key, claim, reached)

    def holds(self, interval: Interval, written: Collection[str]) -> str | None:
        from marketflow.sinks.timescale.overlap import holds

        return holds(self.dsn, interval, written)

    def prepare_back_fill(self, key: str, numbers: Collection[int]) -> None:
        from marketflow.sinks.timescale import backfill

        backfill.prepare(self.dsn, key)

    def back_fill(self, key: str, arrived: Arrived) -> dict[str, int]:
        from marketflow.sinks.timescale import backfill

        return backfill.replace(self.dsn, key, arrived)


def _split(rest: str) -> tuple[str, dict[str, str]]:
    """The DSN without the parameters that are ours, and those."""
    address, mark, query = rest.partition("?")
    if not mark or not rest.startswith((*_DSN_SCHEMES, "?")):
        return rest, {}
    parts = query.split("&")
    ours = [part for part in parts if part.partition("=")[0] in TimescaleOptions.model_fields]
    theirs = "&".join(part for part in parts if part not in ours)
    return f"{address}?{theirs}" if theirs else address, dict(parse_qsl("&".join(ours)))


def _check_names(text: str, dsn: str) -> None:
    """SinkError where a parameter of a DSN that libpq refuses is nearly one of ours."""
    for part in dsn.partition("?")[2].split("&"):
        name = part.partition("=")[0]
        if hint := did_you_mean(name, TimescaleOptions.model_fields):
            raise SinkError(f"sink {redacted(text)!r}: unknown option {name!r}{hint}")
