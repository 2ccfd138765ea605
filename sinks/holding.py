"""Whether a lake or a database holds rows of an interval already: asked before they are written
once more.

By arrival (``ts_recv``), for what is in an interval is decided by it; so the tables that have it
are asked.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, LiteralString, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas import sql
from schemas.tables import TABLES
from schemas.units import NS_PER_DAY, NS_PER_MS
from sinks.lake import list_files, own_folder
from sinks.url import parse_sink

_TABLES: Final = ("trades", "quotes", "book_events")
_EPOCH: Final = date(1970, 1, 1)
#: An event is not filed further from its arrival.
_MARGIN: Final = timedelta(days=1)


class Interval(NamedTuple):
    """Arrivals from ``first_ms`` on and before ``end_ms``, of a venue (None: any); None: open."""

    venue: str | None
    first_ms: int | None
    end_ms: int | None


def holds(text: str, interval: Interval) -> str | None:
    """The first table of a sink that has rows of the interval; None: it has none, or cannot tell
    (only ``parquet:`` and ``timescale:`` can). Raises as the sink's writer."""
    spec = parse_sink(text)
    if spec.scheme == "parquet":
        root = Path(spec.path)
        if own_folder(root).is_dir():
            return next((name for name in _TABLES if _lake_holds(root, name, interval)), None)
    if spec.scheme == "timescale":
        from sinks.timescale_link import Link

        link = Link(spec.path, "marketflow replay", outage_s=60.0, stall_s=600.0)
        try:
            found = [n for n in _TABLES if link.run(lambda c, n=n: _base_holds(c, n, interval))]
        finally:
            link.drop()
        return found[0] if found else None
    return None


def _lake_holds(root: Path, name: str, interval: Interval) -> bool:
    first, end = interval.first_ms, interval.end_ms
    files = list_files(
        root,
        name,
        first=None if first is None else _date(first) - _MARGIN,
        last=None if end is None else _date(end) + _MARGIN,
        venues=None if interval.venue is None else [interval.venue],
    )
    if first is None and end is None:
        return bool(files)
    for path in files:
        arrived = pq.ParquetFile(path).read(columns=["ts_recv"])["ts_recv"].cast(pa.int64())
        inside = pc.is_valid(arrived)
        if first is not None:
            inside = pc.and_kleene(inside, pc.greater_equal(arrived, first * NS_PER_MS))
        if end is not None:
            inside = pc.and_kleene(inside, pc.less(arrived, end * NS_PER_MS))
        if pc.any(inside).as_py():
            return True
    return False


def _date(ms: int) -> date:
    return _EPOCH + timedelta(ms * NS_PER_MS // NS_PER_DAY)


def _base_holds(connection: Any, name: str, interval: Interval) -> bool:
    time = sql.quoted(TABLES[name].time_field)
    terms, values = ["true"], []
    for operator, ms, sign in ((">=", interval.first_ms, -1), ("<", interval.end_ms, 1)):
        if ms is not None:
            moment = datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)
            terms += [f"ts_recv {operator} %s", f"{time} {operator} %s"]
            values += [moment, moment + sign * _MARGIN]
    if interval.venue is not None:
        terms.append("venue = %s")
        values.append(interval.venue)
    text = f"SELECT 1 FROM {sql.STORE}.{sql.quoted(name)} WHERE {' AND '.join(terms)} LIMIT 1"
    return connection.execute(cast(LiteralString, text), values).fetchone() is not None
