"""``parquet:PATH?table=frames&venue=V``: raw frames that a recorder kept (sinks.raw_files).

PATH is the recorder's folder (the files of the venue, in order of their names, which is order of
arrival) or its files. ``offset`` counts the frames of the feed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.frames import FRAMES, FrameKind
from sources import framing
from sources.errors import SourceError
from sources.reader import DEFAULT_LIMITS, Limits

TABLE: Final = "frames"
_COLUMNS: Final = [name for name in FRAMES.names if name != "offset"]


def files_of(folder: Path, venue: str) -> tuple[Path, ...]:
    """The sealed files of a venue in a recorder's folder; SourceError says which venues it has."""
    below = folder / TABLE
    found = sorted((below / f"venue={venue}").glob("*.parquet"))
    if not found:
        known = sorted(p.name.partition("=")[2].lower() for p in below.glob("venue=*"))
        has = f"it has venue={', venue='.join(known)}" if known else "nothing was recorded there"
        raise SourceError(f"{folder} has no frames of venue={venue.lower()}: {has}")
    return tuple(found)


class FramesReader:
    """A :class:`sources.reader.Reader`. Position: (path, row in it, frames before it).

    A damaged file is a BROKEN frame that says why, and the next file is read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        position: tuple[int, int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._paths = tuple(paths)
        self._limits = limits
        self._path, self._row, self._before = position or (0, 0, 0)
        self._file: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def read(self) -> pa.RecordBatch | None:
        while self._path < len(self._paths):
            offset = self._before + self._row
            try:
                batch = self._next()
                if batch is not None:
                    self._row += batch.num_rows
                    return _frames(offset, batch)
            except (OSError, KeyError, pa.ArrowException) as error:
                broken = f"{self._paths[self._path].name}: {error}"
                self._leave()
                return framing.single(FrameKind.BROKEN, offset, b"", broken)
            self._leave()
        if self._path > len(self._paths):
            return None
        self._path += 1
        return framing.single(FrameKind.END, self._before)

    def _next(self) -> pa.RecordBatch | None:
        """The next rows of the current file."""
        if self._file is None:
            self._file = pq.ParquetFile(self._paths[self._path], read_dictionary=["connection"])
            self._batches = self._rest(self._file)
        return next(self._batches, None)

    def _rest(self, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        skip = self._row
        for rows in file.iter_batches(self._limits.max_rows, columns=_COLUMNS):
            if skip >= rows.num_rows:
                skip -= rows.num_rows
                continue
            left, skip = rows.slice(skip), 0
            while left.num_rows:
                fit = _fitting(left, self._limits.max_bytes)
                yield left.slice(0, fit)
                left = left.slice(fit)

    def _leave(self) -> None:
        self.close()
        self._path, self._row, self._before = self._path + 1, 0, self._before + self._row

    def position(self) -> tuple[int, int, int]:
        return (self._path, self._row, self._before)

    def close(self) -> None:
        self._batches = iter(())
        if self._file is not None:
            self._file.close()
            self._file = None


def _fitting(rows: pa.RecordBatch, max_bytes: int) -> int:
    """How many of the first rows have at most so many bytes of payload; one at least."""
    payload = rows.column("payload")
    bounds = np.frombuffer(payload.buffers()[1], np.int64)
    bounds = bounds[payload.offset : payload.offset + len(payload) + 1]
    return max(1, int(np.searchsorted(bounds, bounds[0] + max_bytes, "right")) - 1)


def _frames(offset: int, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of a file as frames; KeyError or an Arrow error where they are none."""
    offsets = pa.array(np.arange(offset, offset + rows.num_rows, dtype=np.int64))
    columns = {"offset": offsets, **{name: rows.column(name) for name in _COLUMNS}}
    return pa.RecordBatch.from_arrays(
        [columns[field.name].cast(field.type) for field in FRAMES], schema=FRAMES
    )
