"""Whether a lake or a database holds rows of an interval already: asked before they are written
once more.

By arrival (``ts_recv``), for what is in an interval is decided by it, however long after its events
it arrived: so every file and chunk is asked, by the file's statistics where those tell. Rows of
``depth`` and ``bars`` have no arrival: the tables that are made of the same messages speak for
them, and where the store has none of these, any row of theirs counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from marketflow.schemas.derived import sql
from marketflow.schemas.moments import datetime_at_ms
from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import NS_PER_MS
from marketflow.sinks.lake.layout import list_files, list_partitions, own_folder
from marketflow.sinks.registry import parse_sink

#: Their arrival is that of the frame they were made from. (That of a quality event may be the
#: feed's latest, which is another's.)
_ARRIVED: Final = tuple(
    name
    for name, table in TABLES.items()
    if table.has_venue and "ts_recv" in table.names and name != "quality_events"
)
#: Tables without arrival, and those of which one has a row wherever they have.
_SPEAK_FOR: Final = {"depth": ("book_events", "quotes"), "bars": ("trades",)}
#: A database without an index by arrival reads whole tables.
_STALL_S: Final = 4 * 3600.0
_MIN_NS, _MAX_NS = -(2**63), 2**63 - 1


class Interval(NamedTuple):
    """Arrivals from ``first_ms`` on and before ``end_ms``; None: open. Of a venue (None: any), with
    the markets of it that have names of their own (``BYBIT_LINEAR`` of ``BYBIT``), unless they are
    among ``others``, which other feeds bring."""

    venue: str | None
    first_ms: int | None
    end_ms: int | None
    others: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        return self.first_ms is None and self.end_ms is None

    @property
    def everything(self) -> Interval:
        """All that ever arrived from there."""
        return self._replace(first_ms=None, end_ms=None)

    def is_of(self, venue: str | None) -> bool:
        """Whether rows of ``venue`` may be the interval's."""
        if self.venue is None or venue is None or venue == self.venue:
            return True
        return venue.startswith(f"{self.venue}_") and venue not in self.others


_Ask = Callable[[str, Interval], bool]


def holds(text: str, interval: Interval, written: Collection[str]) -> str | None:
    """The first table of a sink that has rows of the interval, or may have, where ``written`` are
    to be written; None: there is none, or the sink cannot tell (only ``parquet:`` and
    ``timescale:`` can). Raises as the sink's writer."""
    spec = parse_sink(text)
    if spec.scheme == "parquet":
        root = Path(spec.path)
        if own_folder(root).is_dir():
            return _first(partial(_lake_holds, root), interval, written)
    if spec.scheme == "timescale":
        from marketflow.sinks.timescale.connection import Link

        link = Link(spec.path, "marketflow replay", outage_s=60.0, stall_s=_STALL_S)
        try:
            return _first(
                lambda name, asked: link.run(lambda c: _base_holds(c, name, asked)),
                interval,
                written,
            )
        finally:
            link.drop()
    return None


def _first(ask: _Ask, interval: Interval, written: Collection[str]) -> str | None:
    for name in _ARRIVED:
        if ask(name, interval):
            return name
    everything = interval.everything
    for name, others in _SPEAK_FOR.items():
        told = not interval.is_open and any(ask(other, everything) for other in others)
        if name in written and not told and ask(name, everything):
            return name
    return None


def _lake_holds(root: Path, name: str, interval: Interval) -> bool:
    venues = {p.venue for p in list_partitions(root, name) if interval.is_of(p.venue)}
    files = list_files(root, name, venues=[venue for venue in venues if venue is not None])
    return bool(files) if interval.is_open else any(_file_holds(f, interval) for f in files)


def _file_holds(path: Path, interval: Interval) -> bool:
    """Whether rows of a file arrived within."""
    first = _MIN_NS if interval.first_ms is None else interval.first_ms * NS_PER_MS
    end = _MAX_NS if interval.end_ms is None else interval.end_ms * NS_PER_MS
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            if not _may_hold(file.metadata.row_group(group), first, end):
                continue
            arrived = file.read_row_group(group, columns=["ts_recv"])["ts_recv"].cast(pa.int64())
            inside = pc.and_(pc.greater_equal(arrived, first), pc.less(arrived, end))
            if pc.any(inside).as_py():
                return True
    return False


def _may_hold(group: Any, first: int, end: int) -> bool:
    """By the statistics of a row group; True where it has none."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "ts_recv" and column.statistics is not None:
            known = column.statistics
            return not known.has_min_max or (known.max_raw >= first and known.min_raw < end)
    return True


def _base_holds(connection: Any, name: str, interval: Interval) -> bool:
    terms = ["true"]
    values: list[object] = []
    for operator, ms in ((">=", interval.first_ms), ("<", interval.end_ms)):
        if ms is not None:
            terms.append(f"ts_recv {operator} %s")
            values.append(datetime_at_ms(ms))
    if interval.venue is not None:
        terms.append("(venue = %s OR starts_with(venue, %s) AND NOT venue = ANY(%s))")
        values += [interval.venue, f"{interval.venue}_", sorted(interval.others)]
    text = f"SELECT 1 FROM {sql.STORE}.{sql.quoted(name)} WHERE {' AND '.join(terms)} LIMIT 1"
    return connection.execute(text, values).fetchone() is not None
