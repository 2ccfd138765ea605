"""``binance:`` recorded WebSocket lines ``<local ns> <json>``.

The number becomes ``ts_recv``, the rest the payload. A line without it is a BROKEN frame.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.files.kernels.scans import take_stamps
from marketflow.sources.files.text_lines import LineReader, Spans, packed

_NO_STAMP = "the line does not start with a time in ns and a blank"


class BinanceReader(LineReader):
    """A frame per line."""

    def _frames(self, spans: Spans) -> pa.RecordBatch:
        stamps = np.empty(len(spans), np.int64)
        bad = take_stamps(spans.data, spans.starts, spans.ends, stamps)
        if not bad:
            return framing.batch(spans.offsets, packed(spans), ts_recv=stamps)
        broken = stamps < 0
        kinds = np.where(broken, FrameKind.BROKEN, FrameKind.DATA).astype(np.int8)
        notes = framing.noted(
            len(spans), [(row, _NO_STAMP) for row in np.flatnonzero(broken).tolist()]
        )
        stamps[broken] = 0
        return framing.batch(spans.offsets, packed(spans), ts_recv=stamps, kinds=kinds, notes=notes)
