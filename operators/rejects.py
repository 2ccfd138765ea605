"""Dead letters of a feed decoder on their way to normalise, which adds the feed's identity."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from schemas import arrow
from schemas.codes import RejectReason
from schemas.tables import DEAD_LETTERS

_ADDED_BY_NORMALISE: Final = frozenset({"shard", "row_sequence", "feed", "partition"})
#: ``dead_letters`` without what normalise adds.
SCHEMA: Final = pa.schema(
    [f for f in arrow.schema(DEAD_LETTERS) if f.name not in _ADDED_BY_NORMALISE]
)


class Rejects:
    """Collects the dead letters of one frames batch."""

    def __init__(self) -> None:
        self._letters: list[tuple[int, int, int, str, bytes]] = []

    def __len__(self) -> int:
        return len(self._letters)

    def add(self, ts_recv: int, offset: int, reason: RejectReason, detail: str, raw: bytes) -> None:
        """``ts_recv``: arrival, or the feed's latest known time; ``offset``: of the frame."""
        self._letters.append((ts_recv, offset, int(reason), detail, raw))

    def cut(self, length: int) -> None:
        """Forget all but the first ``length``."""
        del self._letters[length:]

    def batch(self) -> pa.RecordBatch | None:
        """The letters as a batch of SCHEMA; None if there are none."""
        if not self._letters:
            return None
        times, offsets, reasons, details, raws = zip(*self._letters, strict=True)
        columns = {
            "ts_recv": pa.array(times, arrow.TIME),
            "offset": pa.array(offsets, pa.int64()),
            "reason": pa.DictionaryArray.from_arrays(
                pa.array(np.array(reasons, np.int8)), arrow.dictionary(DEAD_LETTERS.field("reason"))
            ),
            "detail": pa.array(details, pa.string()),
            "raw": pa.array(raws, pa.large_binary()),
        }
        return pa.RecordBatch.from_arrays([columns[f.name] for f in SCHEMA], schema=SCHEMA)
