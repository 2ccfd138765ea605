"""Sinks by URL: ``parquet:DIR``, ``timescale:DSN``, ``kafka://HOST:PORT/PREFIX`` (see
sinks.kafka.config), ``jsonl:PATH`` or ``jsonl:-``, ``null:``.

``parquet:DIR?seal_rows=N&seal_after_s=S`` sets when rows become a file (ParquetOptions);
``timescale:postgresql://user@host/database?sslmode=require&flush_rows=N`` when they are sent
(TimescaleOptions; all other parameters are libpq's). Passwords are better left to the environment
(PGPASSWORD, PGPASSFILE); ``timescale:`` alone means the DSN in MARKETFLOW_DSN. None is
ever printed or written to a recovery folder.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from marketflow.schemas.derived import sql
from marketflow.sinks.errors import SinkError
from marketflow.sinks.jsonl import JsonlWriter
from marketflow.sinks.kafka.config import EXAMPLE as KAFKA_EXAMPLE
from marketflow.sinks.kafka.config import parse_kafka_sink
from marketflow.sinks.lake import backfill
from marketflow.sinks.lake.layout import check_writable
from marketflow.sinks.lake.writer import ParquetOptions, ParquetWriter
from marketflow.sinks.null import NullWriter
from marketflow.sinks.timescale.dsn import EXAMPLE as DSN_EXAMPLE
from marketflow.sinks.timescale.dsn import check as check_dsn
from marketflow.sinks.timescale.dsn import place as dsn_place
from marketflow.sinks.timescale.dsn import redacted
from marketflow.sinks.writer import Writer


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """A checked sink URL. ``path`` is empty for ``null:``, ``-`` for standard output, the DSN for
    ``timescale:``, the prefix of topics for ``kafka:``. ``text`` may hold a password: show
    ``redacted(text)``."""

    text: str
    scheme: str
    path: str
    options: dict[str, str]


_Number = Callable[[str], int | float]
_OPTIONS: Final[dict[str, dict[str, _Number]]] = {
    "parquet": {
        "seal_rows": int,
        "seal_bytes": int,
        "seal_after_s": float,
        "max_pending_bytes": int,
    },
    "timescale": {
        "flush_rows": int,
        "flush_bytes": int,
        "flush_after_s": float,
        "outage_s": float,
        "stall_s": float,
        "direct_compress": int,
    },
    "jsonl": {},
    "null": {},
}
_EXAMPLES: Final = (
    f"parquet:DIR, timescale:{DSN_EXAMPLE}, kafka:{KAFKA_EXAMPLE}, jsonl:PATH, jsonl:-, null:"
)
#: The database of ``timescale:`` without a DSN.
_DSN_VARIABLE: Final = "MARKETFLOW_DSN"
_DSN_SCHEMES: Final = ("postgresql://", "postgres://")


def parse_sink(text: str) -> SinkSpec:
    """Check a sink URL without touching anything. Raises SinkError naming what is known."""
    scheme, colon, rest = text.partition(":")
    if scheme == "kafka" and colon:
        return SinkSpec(text, scheme, parse_kafka_sink(text).prefix, {})
    if not colon or scheme not in _OPTIONS:
        raise SinkError(f"sink {redacted(text)!r}: unknown kind; known sinks: {_EXAMPLES}")
    path, options = _dsn(rest) if scheme == "timescale" else _path(rest)
    if scheme == "timescale" and not path:
        path = os.environ.get(_DSN_VARIABLE, "")
    if scheme == "null":
        if path:
            raise SinkError(f"sink {text!r}: null: takes no path")
    elif not path:
        what = DSN_EXAMPLE if scheme == "timescale" else "PATH"
        or_set = f" or set {_DSN_VARIABLE}" if scheme == "timescale" else ""
        raise SinkError(f"sink {text!r} names no destination; write {scheme}:{what}{or_set}")
    for name, value in options.items():
        if name not in _OPTIONS[scheme]:
            known = ", ".join(sorted(_OPTIONS[scheme])) or "none"
            raise SinkError(f"sink {text!r}: unknown option {name!r}; {scheme}: takes {known}")
        _number(scheme, text, name, value)
    if scheme == "timescale":
        check_dsn(path)
    return SinkSpec(text, scheme, path, options)


def place(text: str) -> str:
    """Where a sink leads and in what form: the same text for the same store, however its path is
    written, whoever writes there and whatever options say how often. Holds no secret."""
    spec = parse_sink(text)
    match spec.scheme:
        case "kafka":
            topics = parse_kafka_sink(text)
            brokers = ",".join(sorted(topics.address.brokers.split(",")))
            return f"kafka://{brokers}/{topics.prefix}?format={topics.format}"
        case "timescale":
            return f"timescale:{dsn_place(spec.path)}"
        case "parquet" | "jsonl" if spec.path != "-":
            return f"{spec.scheme}:{Path(spec.path).resolve()}"
    return f"{spec.scheme}:{spec.path}"


def check_place(text: str) -> None:
    """SinkError with the remedy where a run may not write to the folder or file, without touching
    it; of servers nothing is asked."""
    spec = parse_sink(text)
    if spec.scheme == "parquet":
        check_writable(Path(spec.path))
    elif spec.scheme == "jsonl" and Path(spec.path).is_dir():
        raise SinkError(f"sink {text!r}: {spec.path} is a folder: name a file for the lines")


def _path(rest: str) -> tuple[str, dict[str, str]]:
    path, _, query = rest.partition("?")
    return path, dict(parse_qsl(query, keep_blank_values=True))


def _dsn(rest: str) -> tuple[str, dict[str, str]]:
    """The DSN without the parameters that are ours, and those."""
    address, mark, query = rest.partition("?")
    if not mark or not rest.startswith((*_DSN_SCHEMES, "?")):
        return rest, {}
    names = _OPTIONS["timescale"]
    parts = query.split("&")
    ours = [part for part in parts if part.partition("=")[0] in names]
    theirs = "&".join(part for part in parts if part not in ours)
    return f"{address}?{theirs}" if theirs else address, dict(parse_qsl("&".join(ours)))


def _number(scheme: str, text: str, name: str, value: str) -> int | float:
    try:
        number = _OPTIONS[scheme][name](value)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise SinkError(f"sink {redacted(text)!r}: {name}={value!r} is no number above 0")
    return number


def open_writer(
    text: str,
    writer: str = "w0",
    recovery: str | None = None,
    midway: bool = False,
    aside: str | None = None,
) -> Writer:
    """The writer of a sink URL. ``writer`` tells processes apart ("w0", "w1" ...); ``recovery``
    is the identity of the recovery folder that the snapshots go to, None without one; ``midway``:
    the rows begin in mid-history, so that the first of a shard may have any number; ``aside``: they
    are for the back-fill of this key (sinks.lake.backfill), and are not put in yet."""
    spec = parse_sink(text)
    if spec.scheme == "null":
        return NullWriter()
    if spec.scheme == "kafka":
        from marketflow.sinks.kafka.writer import KafkaWriter

        return KafkaWriter(parse_kafka_sink(text), writer, recovery, midway)
    if spec.scheme == "jsonl":
        return JsonlWriter(_jsonl_path(spec.path, writer))
    numbers = {name: _number(spec.scheme, text, name, v) for name, v in spec.options.items()}
    if spec.scheme == "timescale":
        from marketflow.sinks.timescale import backfill as timescale_backfill
        from marketflow.sinks.timescale.writer import TimescaleOptions, TimescaleWriter

        chosen = dataclasses.replace(TimescaleOptions(), **numbers)  # type: ignore[arg-type]
        store = sql.STORE if aside is None else timescale_backfill.aside(aside)
        return TimescaleWriter(spec.path, writer, recovery, chosen, midway, store)
    options = dataclasses.replace(ParquetOptions(), **numbers)  # type: ignore[arg-type]
    root = Path(spec.path) if aside is None else backfill.aside(Path(spec.path), aside)
    return ParquetWriter(root, writer, recovery, options, midway)


def _jsonl_path(path: str, writer: str) -> Path | None:
    """Each process has its own file: the first the one that was named, others with their id."""
    if path == "-":
        return None
    file = Path(path)
    return file if writer == "w0" else file.with_name(f"{file.stem}.{writer}{file.suffix}")


def prepare_back_fill(text: str, key: str) -> None:
    """Make room for the rows of a back-fill beside the store. Raises as its writer."""
    spec = parse_sink(text)
    if spec.scheme == "parquet":
        with backfill.quiet(Path(spec.path)):
            backfill.aside(Path(spec.path), key).mkdir(exist_ok=True)
    elif spec.scheme == "timescale":
        from marketflow.sinks.timescale import backfill as timescale_backfill

        timescale_backfill.prepare(spec.path, key)


def back_fill(text: str, key: str, arrived: backfill.Arrived) -> dict[str, int]:
    """Put the rows in, when they are complete: ``rows_replaced`` and ``rows_written``; again: no
    change. ``arrived``: when the interval's frames did. Raises as the sink's writer."""
    spec = parse_sink(text)
    if spec.scheme == "parquet":
        return backfill.replace(Path(spec.path), key, arrived)
    if spec.scheme == "timescale":
        from marketflow.sinks.timescale import backfill as timescale_backfill

        return timescale_backfill.replace(spec.path, key, arrived)
    return {"rows_replaced": 0, "rows_written": 0}
