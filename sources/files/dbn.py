"""``dbn:`` Databento files: DBN of any version, or Databento's CSV.

DBN: one HEADER frame with the file's metadata bytes, then blocks of whole records (a batch has one
row). CSV: one HEADER frame with the line of column names, then a frame per line. The decoder tells
them apart by the first bytes of the HEADER.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.files import bytes as files
from marketflow.sources.files.blocks import BlockReader, Blocks
from marketflow.sources.files.kernels.scans import cut_records
from marketflow.sources.files.text_lines import HeadedLineReader

_MAGIC = b"DBN"
#: Magic, version, length of what follows (4 bytes, little endian).
_PREFIX_BYTES = 8
_RECORD_HEADER_BYTES = 16


class DbnReader(HeadedLineReader):
    """Blocks of at most ``max_rows`` records, or lines."""

    _path = -1
    _is_csv = False

    def _take(self, blocks: Blocks) -> pa.RecordBatch | None:
        if self._path != blocks.place.path:
            self._path = blocks.place.path
            self._is_csv = files.head(blocks.path, len(_MAGIC)) != _MAGIC
        if self._is_csv:
            return super()._take(blocks)
        return self._records(blocks) if blocks.place.offset > 0 else self._metadata(blocks)

    def _too_long(self, blocks: Blocks) -> pa.RecordBatch:
        if self._is_csv:
            return super()._too_long(blocks)
        return BlockReader._too_long(self, blocks)  # metadata: it is no line

    def _metadata(self, blocks: Blocks) -> pa.RecordBatch | None:
        size, offset = blocks.stop - blocks.start, blocks.place.in_feed
        prefix = blocks.data[blocks.start : blocks.stop][:_PREFIX_BYTES].tobytes()
        length = _PREFIX_BYTES + int.from_bytes(prefix[4:], "little")
        if size < length:
            return None
        return framing.single(FrameKind.HEADER, offset, blocks.rest(length))

    def _records(self, blocks: Blocks) -> pa.RecordBatch | None:
        start, offset = blocks.start, blocks.place.in_feed
        end, impossible = cut_records(blocks.data, start, blocks.stop, self._limits.max_rows)
        if end == start and impossible:
            # Nothing says where the next record would start.
            return self._give_up(blocks, _RECORD_HEADER_BYTES, "a record shorter than its header")
        if end == start:
            return None
        blocks.start = end
        payload = framing.payloads(
            blocks.buffer.slice(start, end - start), np.array([0, end - start], np.int64)
        )
        return framing.batch(np.array([offset], np.int64), payload)
