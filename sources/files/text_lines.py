"""Files of lines: one frame per line, without its line end. Empty lines are left out.

Lines end with LF or CR LF; the last one of a whole file needs no end. Of a damaged file the last,
unfinished line goes into the frame that tells of the damage. A line of more than
``Limits.max_message_bytes`` (64 MiB) is one BROKEN frame with its first bytes, length and SHA-256:
it is read in pieces and never held.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.schemas.dead_letters import RAW_BYTES, cut_note
from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.files.blocks import BlockReader, Blocks
from marketflow.sources.files.kernels.scans import pack, split_lines

_PIECE_BYTES: Final = 1 << 20


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


def pass_line(blocks: Blocks) -> tuple[bytes, str]:
    """Pass the line at hand without holding it: its first bytes, and its length and SHA-256 in
    words. Memory is that of one buffer, however long the line is."""
    digest, size, head = sha256(), 0, b""
    while True:
        piece = blocks.peek(_PIECE_BYTES)
        end = piece.find(b"\n")
        line = piece if end < 0 else piece[:end]
        digest.update(line)
        size += len(line)
        head += line[: RAW_BYTES - len(head)]
        blocks.start += len(line) + (end >= 0)
        if end >= 0 or (not piece and blocks.whole):
            return head, cut_note(size, digest.hexdigest())
        if not piece:
            blocks.refill()


class LineReader(BlockReader):
    """A frame per line; subclasses change what becomes of the lines in :meth:`_frames`."""

    def _take(self, blocks: Blocks) -> pa.RecordBatch | None:
        spans = take_lines(blocks, self._limits.max_rows)
        return None if spans is None else self._frames(spans)

    def _frames(self, spans: Spans) -> pa.RecordBatch:
        return framing.batch(spans.offsets, packed(spans))

    def _too_long(self, blocks: Blocks) -> pa.RecordBatch:
        offset = blocks.place.in_feed
        head, about = pass_line(blocks)
        note = f"a line of more than {self._limits.max_message_bytes} bytes {about}"
        return framing.single(FrameKind.BROKEN, offset, head, note)


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
