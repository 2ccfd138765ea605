"""Files of lines: one frame per line, without its line end. Empty lines are left out.

Lines end with LF or CR LF; the last one of a whole file needs no end. Of a damaged file the last,
unfinished line goes into the frame that tells of the damage.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.frames import FrameKind
from sources import framing
from sources.blocks import BlockReader, Blocks
from sources.kernels import pack, split_lines


class Spans(NamedTuple):
    """Lines in ``data``: where each starts and ends, and the feed offset of each start."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


def take_lines(blocks: Blocks, most: int) -> Spans | None:
    """The next ``most`` lines of the window or fewer, moving its start; None: no whole line."""
    starts, ends = np.empty((2, most), np.int64)
    ended = blocks.whole and blocks.damage is None
    count, after = split_lines(blocks.data, blocks.start, blocks.stop, ended, starts, ends)
    blocks.start = after
    if not count:
        return None
    return Spans(blocks.data, starts[:count], ends[:count], blocks.base + starts[:count])


def packed(spans: Spans) -> pa.LargeBinaryArray:
    """The lines as a payload column: one copy, no Python object per line."""
    out = np.empty(int((spans.ends - spans.starts).sum()), np.uint8)
    bounds = np.empty(len(spans) + 1, np.int64)
    pack(spans.data, spans.starts, spans.ends, out, bounds)
    return framing.payloads(pa.py_buffer(out), bounds)


class LineReader(BlockReader):
    """A frame per line; subclasses change what becomes of the lines in :meth:`_frames`."""

    def _take(self, blocks: Blocks) -> pa.RecordBatch | None:
        spans = take_lines(blocks, self._limits.max_rows)
        return None if spans is None else self._frames(spans)

    def _frames(self, spans: Spans) -> pa.RecordBatch:
        return framing.batch(spans.offsets, packed(spans))


class HeadedLineReader(LineReader):
    """Files whose first line names the columns: it becomes a HEADER frame, one per file."""

    def _take(self, blocks: Blocks) -> pa.RecordBatch | None:
        if blocks.place.offset > 0:
            return super()._take(blocks)
        spans = take_lines(blocks, 1)
        if spans is None:
            return None
        line = spans.data[spans.starts[0] : spans.ends[0]].tobytes()
        return framing.single(FrameKind.HEADER, int(spans.offsets[0]), line)
