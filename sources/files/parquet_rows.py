"""``parquet:LAKE?table=T``: a table of a lake of ours as a feed, in the order of its events.

A lake's files are sorted by instrument. Read back, rows come by event time, those of an instrument
as they were written: a late row keeps its place behind the ones that were there before it. Day by
day; each is sorted by DuckDB in bounded memory and, beyond that, in a temporary folder. ``venue``
and ``symbol`` choose rows. Only files that are committed are read; whoever lists them tells.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import msgspec
import pyarrow as pa

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.recovery import START_ANEW
from marketflow.schemas.tables import table as table_of
from marketflow.sources.errors import SourceError
from marketflow.sources.reader import DEFAULT_LIMITS, Limits

_MEMORY: Final = "1GB"
Position = tuple[str, str, int, int]


class Day(NamedTuple):
    """The committed files of a day."""

    date: str
    paths: tuple[Path, ...]

    def check(self) -> None:
        """SourceError if a file is gone."""
        for path in self.paths:
            if not path.is_file():
                raise SourceError(
                    f"{path} of the lake is gone: it was compacted or removed since the run began; "
                    f"{START_ANEW}"
                )

    @property
    def digest(self) -> str:
        """Changes with the files: another listing is other rows."""
        self.check()
        told = [f"{path.name} {path.stat().st_size}" for path in self.paths]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def days_of(paths: Sequence[Path]) -> tuple[Day, ...]:
    """The files by the day in their folder's name."""

    def date(path: Path) -> str:
        return next(p[5:] for p in reversed(path.parts) if p.startswith("date="))

    ordered = sorted(paths, key=lambda path: (date(path), str(path)))
    return tuple(Day(day, tuple(found)) for day, found in groupby(ordered, date))


class LakeReader:
    """A :class:`sources.reader.Reader`: a frame per run of rows, as those of ParquetReader.

    Position: (day, digest of its files, rows of it given, rows before it). Going on sorts that day
    anew; SourceError if its files are others now.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        table: str,
        position: Position | None = None,
        limits: Limits = DEFAULT_LIMITS,
        chosen: Mapping[str, str] | None = None,
    ) -> None:
        self._days = days_of(paths)
        self._table = table_of(table)
        self._limits = limits
        self._chosen = dict(chosen or {})
        self._at = 0
        self._row = self._before = 0
        self._ended = False
        self._note = msgspec.json.encode({}).decode()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._con: duckdb.DuckDBPyConnection | None = None
        self._batches: Iterator[pa.RecordBatch] | None = None
        if position is not None:
            self._go_to(position)

    def _go_to(self, position: Position) -> None:
        date, digest, self._row, self._before = position
        self._ended = date == "end"
        if date in ("end", ""):
            self._at = len(self._days)
            return
        dates = [day.date for day in self._days]
        self._at = dates.index(date) if date in dates else len(dates)
        if date not in dates or self._days[self._at].digest != digest:
            raise SourceError(
                f"the lake's files of {date} are others than when the run was interrupted: put "
                f"them back, or {START_ANEW}"
            )

    def read(self) -> pa.RecordBatch | None:
        while self._at < len(self._days):
            offset = self._before + self._row
            try:
                if self._batches is None:
                    self._batches = self._sorted(self._days[self._at])
                rows = next(self._batches, None)
            except duckdb.Error as error:
                broken = f"{self._days[self._at].date}: {error}"
                self._leave()
                return framing.single(FrameKind.BROKEN, offset, b"", broken)
            if rows is not None:
                self._row += rows.num_rows
                return framing.stream(offset, rows, self._note)
            self._leave()
        if self._ended:
            return None
        self._ended = True
        return framing.single(FrameKind.END, self._before)

    def _leave(self) -> None:
        self.close()
        self._at, self._row, self._before = self._at + 1, 0, self._before + self._row

    def _sorted(self, day: Day) -> Iterator[pa.RecordBatch]:
        """The rows of a day behind those that were given."""
        day.check()
        self._folder = tempfile.TemporaryDirectory(prefix="marketflow-")
        self._con = duckdb.connect(
            config={
                "memory_limit": _MEMORY,
                "temp_directory": self._folder.name,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        self._con.execute("SET TimeZone = 'UTC'")
        paths = ", ".join(f"'{str(path).replace(chr(39), chr(39) * 2)}'" for path in day.paths)
        kept = " AND ".join(f'"{name}" = ?' for name in self._chosen) or "true"
        names = [n for n in self._table.names if n not in ("shard", "row_sequence")]
        columns = ", ".join(f'"{name}"' for name in names)
        time = f'"{self._table.time_field}"'
        # The order within an instrument is its rows' own: time never goes back in it.
        reached = (
            f"max({time}) OVER (PARTITION BY venue, symbol, shard ORDER BY row_sequence, {time} "
            "ROWS UNBOUNDED PRECEDING)"
        )
        query = (
            f"SELECT {columns} FROM (SELECT *, {reached} AS reached FROM read_parquet([{paths}], "
            "hive_partitioning = true, hive_types = {'date': DATE, 'venue': VARCHAR}, "
            f"union_by_name = true) WHERE {kept}) "
            "ORDER BY reached, shard, row_sequence, venue, symbol"
        )
        found = self._con.sql(query, params=list(self._chosen.values()))
        reader = found.to_arrow_reader(self._limits.max_rows)
        skip = self._row
        for batch in reader:
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield batch.slice(skip)
            skip = 0

    def position(self) -> Position:
        if self._at >= len(self._days):
            return ("end" if self._ended else "", "", 0, self._before)
        day = self._days[self._at]
        return (day.date, day.digest, self._row, self._before)

    def close(self) -> None:
        self._batches = None
        if self._con is not None:
            self._con.close()
            self._con = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
