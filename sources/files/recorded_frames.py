"""``parquet:PATH?table=frames&venue=V``: raw frames that a recorder kept (sinks.raw.files).

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

from marketflow.schemas.messages.frames import FRAMES
from marketflow.sources.files.parquet_files import RowFilesReader
from marketflow.sources.reader import DEFAULT_LIMITS, Limits

_COLUMNS: Final = [name for name in FRAMES.names if name != "offset"]


class FramesReader(RowFilesReader):
    """A :class:`sources.reader.Reader` of a recorder's files."""

    def __init__(
        self,
        paths: Sequence[Path],
        position: tuple[int, int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(paths, position, limits)

    def _open(self, path: Path) -> pq.ParquetFile:
        return pq.ParquetFile(path, read_dictionary=["connection"])

    def _rows(self, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
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

    def _frames(self, offset: int, rows: pa.RecordBatch) -> pa.RecordBatch:
        return _frames(offset, rows)


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
