"""``lobster:`` message and orderbook files, row by row: row i of one belongs to row i of the other.

A frame is one message row, a newline, and its book row. ``offset`` counts the message files.
Every message file needs its book file; where one of a pair ends before the other, or is damaged,
one TRUNCATED or BROKEN frame says so and reading goes on with the next pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from marketflow.schemas.dead_letters import RAW_BYTES
from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.files.blocks import Blocks
from marketflow.sources.files.bytes import Place, size_read
from marketflow.sources.files.kernels.scans import pack_pairs
from marketflow.sources.files.text_lines import Spans, take_lines
from marketflow.sources.reader import DEFAULT_LIMITS, Limits


class _Rows:
    """Rows of one file that were split and not yet paired."""

    def __init__(self, path: Path, offset: int, limits: Limits) -> None:
        self._blocks = Blocks([path], Place(0, offset, 0), limits)
        self._limits = limits
        self._spans: Spans | None = None
        self.overlong = False

    def available(self) -> int:
        """Rows at hand, reading on if there are none; 0: the file is over."""
        blocks = self._blocks
        while self._spans is None or not len(self._spans):
            self._spans = take_lines(blocks, self._limits.max_rows)
            if self._spans is None and (blocks.whole or not self._refill()):
                return 0
        return len(self._spans)

    def _refill(self) -> bool:
        self.overlong = self.overlong or not self._blocks.refill()
        return not self.overlong

    def take(self, count: int) -> Spans:
        assert self._spans is not None
        taken = Spans(self._spans.data, *(column[:count] for column in self._spans[1:]))
        self._spans = Spans(self._spans.data, *(column[count:] for column in self._spans[1:]))
        return taken

    @property
    def read_bytes(self) -> int:
        """Bytes of the file on disk that have been read."""
        return self._blocks.progress()[0]

    @property
    def offset(self) -> int:
        """Bytes into the file of the next row."""
        if self._spans is not None and len(self._spans):
            return int(self._spans.offsets[0])
        return self._blocks.place.offset

    def end(self) -> tuple[FrameKind, str, bytes] | None:
        """Why the file ended before its time, with the bytes of the unfinished row."""
        if self.overlong:
            limit = self._limits.max_message_bytes
            reason = f"a row of more than {limit} bytes; the rest is not read"
            return FrameKind.BROKEN, reason, self._blocks.rest(RAW_BYTES)
        damage = self._blocks.damage
        return None if damage is None else (*damage, self._blocks.rest())

    def close(self) -> None:
        self._blocks.close()


class LobsterReader:
    """A frame per pair of rows.

    Position: (path index, bytes into the message file, bytes into the book file, bytes of the
    message files before it); a path index beyond the last says that END was given.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        book_paths: Sequence[Path],
        position: tuple[int, int, int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._pairs = tuple(zip(paths, book_paths, strict=True))
        self._limits = limits
        self._path, message, book, self._before = position or (0, 0, 0, 0)
        self._open(message, book)

    def _open(self, message: int, book: int) -> None:
        self._files: tuple[_Rows, _Rows] | None = None
        if self._path < len(self._pairs):
            paths = self._pairs[self._path]
            self._files = (
                _Rows(paths[0], message, self._limits),
                _Rows(paths[1], book, self._limits),
            )

    def read(self) -> pa.RecordBatch | None:
        while self._files is not None:
            messages, books = self._files
            count = min(messages.available(), books.available())
            if count:
                return self._pair(messages.take(count), books.take(count))
            odd = self._odd_end(messages, books)
            self._before += messages.offset
            self.close()
            self._path += 1
            self._open(0, 0)
            if odd is not None:
                return odd
        if self._path > len(self._pairs):
            return None
        self._path += 1
        return framing.single(FrameKind.END, self._before)

    def _pair(self, messages: Spans, books: Spans) -> pa.RecordBatch:
        sizes = (messages.ends - messages.starts) + (books.ends - books.starts) + 1
        out = np.empty(int(sizes.sum()), np.uint8)
        bounds = np.empty(len(messages) + 1, np.int64)
        pack_pairs(*messages[:3], *books[:3], out, bounds)
        return framing.batch(
            self._before + messages.offsets, framing.payloads(pa.py_buffer(out), bounds)
        )

    def _odd_end(self, messages: _Rows, books: _Rows) -> pa.RecordBatch | None:
        """The frame about a pair that did not end together, or not well."""
        offset = self._before + messages.offset
        ended = messages.end() or books.end()
        if ended is not None:
            kind, reason, rest = ended
            return framing.single(kind, offset, rest, reason)
        message_path, book_path = (path.name for path in self._pairs[self._path])
        for rows, name, other in (
            (messages, message_path, book_path),
            (books, book_path, message_path),
        ):
            if rows.available():
                row = rows.take(1)
                raw = row.data[row.starts[0] : row.ends[0]].tobytes()
                reason = f"{other} ended: rows of {name} from this one on have no partner"
                return framing.single(FrameKind.TRUNCATED, offset, raw, reason)
        return None

    def progress(self) -> tuple[int, int]:
        files = self._files
        done, whole = size_read([path for path, _ in self._pairs], self._path, 0.0)
        return done + (files[0].read_bytes if files is not None else 0), whole

    def position(self) -> tuple[int, int, int, int]:
        if self._files is None:
            return (self._path, 0, 0, self._before)
        return (self._path, self._files[0].offset, self._files[1].offset, self._before)

    def close(self) -> None:
        for rows in self._files or ():
            rows.close()
