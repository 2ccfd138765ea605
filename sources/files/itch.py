"""``itch:`` Nasdaq TotalView-ITCH 5.0 files: a 2-byte big-endian length before every message.

A frame is one block of whole messages with their lengths, so a batch has one row.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from marketflow.schemas.messages import frame_batches as framing
from marketflow.sources.files.blocks import BlockReader, Blocks
from marketflow.sources.files.kernels.scans import cut_prefixed


class ItchReader(BlockReader):
    """Blocks of at most ``max_rows`` messages and ``max_bytes`` bytes."""

    def _take(self, blocks: Blocks) -> pa.RecordBatch | None:
        start = blocks.start
        end = cut_prefixed(blocks.data, start, blocks.stop, self._limits.max_rows)
        if end == start:
            return None
        offset = blocks.place.in_feed
        blocks.start = end
        payload = framing.payloads(
            blocks.buffer.slice(start, end - start), np.array([0, end - start], np.int64)
        )
        return framing.batch(np.array([offset], np.int64), payload)

    def _describe(self, rest: bytes) -> str:
        return f"the file ends inside a message: {len(rest)} bytes are left of it"
