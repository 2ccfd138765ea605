"""Dead letters of a feed decoder on their way to normalise, which adds the feed's identity.

However large the input, a letter is small: ``raw`` keeps its first :data:`RAW_BYTES`, and
``detail`` then says how long the whole is and its SHA-256. All letters of one offset (a message
with a million bad trades makes as many) keep :data:`OFFSET_BYTES` of it together; those beyond
have a reason and a detail, and no bytes.
"""

from __future__ import annotations

from hashlib import sha256
from operator import itemgetter
from typing import Final

import numpy as np
import pyarrow as pa

from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.dead_letters import RAW_BYTES, cut_note
from marketflow.schemas.derived import arrow
from marketflow.schemas.tables.market_data import DEAD_LETTERS

__all__ = ["OFFSET_BYTES", "RAW_BYTES", "SCHEMA", "DeadLetters"]

OFFSET_BYTES: Final = 4 << 20
_OFFSET: Final = itemgetter(1)
DETAIL_CHARACTERS: Final = 1000
_ADDED_BY_NORMALISE: Final = frozenset({"shard", "row_sequence", "feed", "partition"})
#: ``dead_letters`` without what normalise adds.
SCHEMA: Final = pa.schema(
    [f for f in arrow.schema(DEAD_LETTERS) if f.name not in _ADDED_BY_NORMALISE]
)


class DeadLetters:
    """Collects the dead letters of one frames batch."""

    def __init__(self) -> None:
        self._letters: list[tuple[int, int, int, str, bytes]] = []
        # The last input that was cut, with what remains of it: a message may have many letters.
        self._cut: tuple[bytes, bytes, str] = (b"", b"", "")
        self._offset = -1
        self._kept = 0  # bytes of the letters of _offset

    def __len__(self) -> int:
        return len(self._letters)

    def add(
        self, ts_recv: int, offset: int, reason: DeadLetterReason, detail: str, raw: bytes
    ) -> None:
        """``ts_recv``: arrival, or the feed's latest known time; ``offset``: of the frame."""
        detail = _plain(detail)
        if len(raw) > RAW_BYTES:
            if raw is not self._cut[0]:
                note = cut_note(len(raw), sha256(raw).hexdigest())
                self._cut = (raw, raw[:RAW_BYTES], note)
            _, raw, note = self._cut
            detail = f"{detail} {note}"
        if offset != self._offset:
            self._offset, self._kept = offset, 0
        if self._kept + len(raw) > OFFSET_BYTES:
            raw = b""
            detail = f"{detail} [bytes: see the letters before it at this offset]"
        self._kept += len(raw)
        self._letters.append((ts_recv, offset, int(reason), detail, raw))

    def cut(self, length: int) -> None:
        """Forget all but the first ``length``."""
        del self._letters[length:]
        self._offset = -1

    def order(self, first: int) -> None:
        """Put those from ``first`` on into the order of their offsets."""
        self._letters[first:] = sorted(self._letters[first:], key=_OFFSET)

    def batch(self) -> pa.RecordBatch | None:
        """The letters as a batch of SCHEMA; None if there are none."""
        if not self._letters:
            return None
        # In the order of the feed, whatever was looked at first.
        letters = sorted(self._letters, key=_OFFSET)
        times, offsets, reasons, details, raws = zip(*letters, strict=True)
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


def _plain(detail: str) -> str:
    """The detail as text that every store holds, and not longer than people read."""
    if len(detail) > DETAIL_CHARACTERS:
        detail = f"{detail[:DETAIL_CHARACTERS]}… ({len(detail)} characters)"
    return detail.encode("utf-8", "backslashreplace").decode()
