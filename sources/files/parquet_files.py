"""Base of the readers of Parquet files, one after the other as one feed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.errors import SourceError
from marketflow.sources.files.bytes import size_read
from marketflow.sources.reader import Limits


class RowFilesReader:
    """Base of :class:`sources.reader.Reader` s. Position: (path, rows of it given, rows before it).

    A file that cannot be read to its end gives a BROKEN frame that says why, at that place, and the
    next one is read. One that is gone is a SourceError. A subclass opens files, cuts their rows and
    makes them frames.
    """

    def __init__(
        self, paths: Sequence[Path], position: tuple[int, int, int] | None, limits: Limits
    ) -> None:
        self._paths = tuple(paths)
        self._limits = limits
        self._path, self._row, self._before = position or (0, 0, 0)
        self._file: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def _open(self, path: Path) -> pq.ParquetFile | None:
        """The file; None if it holds nothing."""
        raise NotImplementedError

    def _rows(self, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        """The rows of a file behind those that were given."""
        raise NotImplementedError

    def _frames(self, offset: int, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows as frames; KeyError or an Arrow error where that cannot be."""
        raise NotImplementedError

    def read(self) -> pa.RecordBatch | None:
        while self._path < len(self._paths):
            offset = self._before + self._row
            try:
                rows = self._next()
                if rows is not None:
                    self._row += rows.num_rows
                    return self._frames(offset, rows)
            except (FileNotFoundError, PermissionError) as error:
                raise SourceError(f"{self._paths[self._path]} cannot be read: {error}") from error
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
            self._file = self._open(self._paths[self._path])
            if self._file is None:
                return None
            self._batches = self._rows(self._file)
        return next(self._batches, None)

    def _leave(self) -> None:
        self.close()
        self._path, self._row, self._before = self._path + 1, 0, self._before + self._row

    def progress(self) -> tuple[int, int]:
        file = self._file
        share = 0.0 if file is None else self._row / max(1, file.metadata.num_rows)
        return size_read(self._paths, self._path, share)

    def position(self) -> tuple[int, int, int]:
        return (self._path, self._row, self._before)

    def close(self) -> None:
        self._batches = iter(())
        if self._file is not None:
            self._file.close()
            self._file = None
