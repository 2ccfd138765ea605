"""A growing array of EVENT rows, written row by row from Python or in bulk by kernels."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import EVENT, NO_SEQUENCE, EventKind
from marketflow.schemas.codes import RowFlag
from marketflow.schemas.units import NO_PRICE

#: EVENT as struct knows it: packing a row at once is several times faster than numpy's fields.
#: The id words of BEGIN hold sequences and are signed.
_ROW: Final = struct.Struct("<qqqQQQQqqiiibbBbbbbbi")
_GROUP: Final = struct.Struct("<qqqqqQQqqiiibbBbbbbbi")
assert _ROW.size == _GROUP.size == EVENT.itemsize
_BEGIN: Final = int(EventKind.BEGIN)
_SNAPSHOT: Final = int(RowFlag.SNAPSHOT)

Words = tuple[int, int, int]
Value = tuple[int, int, int, int]
#: (hi, lo, IdKind) of no id.
NO_ID: Final[Words] = (0, 0, 0)
#: (price, its scale, size, its scale) of a row that has none.
NO_VALUE: Final[Value] = (NO_PRICE, 0, 0, 0)


class EventRows:
    """``rows[:count]`` are written. Integers that do not fit their field raise struct.error."""

    def __init__(self, room: int) -> None:
        self.rows: NDArray[Any] = np.empty(room, EVENT)
        self.count = 0
        self._room = room
        self._view = self.rows.view(np.uint8).data

    def reserve(self, more: int) -> None:
        """Make room for that many rows after ``count``."""
        if self.count + more > self._room:
            self._grow(max(2 * self._room, self.count + more))

    def _grow(self, room: int) -> None:
        rows = np.empty(room, EVENT)
        rows[: self.count] = self.rows[: self.count]
        self.rows = rows
        self._room = room
        self._view = rows.view(np.uint8).data

    def begin(
        self,
        frame: int,
        ts_recv: int,
        instrument: int,
        ts_event: int,
        sequences: tuple[int | None, int | None, int | None],
        snapshot: bool,
    ) -> None:
        """A BEGIN row; ``sequences`` are its first, last and previous id."""
        self.reserve(1)
        first, last, previous = [NO_SEQUENCE if s is None else s for s in sequences]
        flags = _SNAPSHOT if snapshot else 0
        _GROUP.pack_into(
            self._view, self.count * _GROUP.size,
            ts_event, ts_recv, last, previous, first, 0, 0, NO_PRICE, 0,
            instrument, 0, frame, _BEGIN, 0, flags, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip
        self.count += 1

    def member(
        self, begin: int, kind: int, side: int, value: Value, order: Words, trade: Words, count: int
    ) -> None:
        """A row of the group that ``rows[begin]`` opened, sharing its times, sequence,
        instrument, frame and flags."""
        head = _ROW.unpack_from(self._view, begin * _ROW.size)
        self.reserve(1)
        _ROW.pack_into(
            self._view, self.count * _ROW.size,
            head[0], head[1], head[2], *order[:2], *trade[:2], value[0], value[2],
            head[9], count, head[11], kind, side, head[14], value[1], value[3],
            order[2], trade[2], 0, 0,
        )  # fmt: skip
        self.count += 1

    def single(
        self,
        frame: int,
        ts_recv: int,
        kind: int,
        instrument: int,
        ts_event: int,
        sequence: int | None,
        *,
        side: int = 0,
        value: Value = NO_VALUE,
        trade: Words = NO_ID,
        flags: int = 0,
    ) -> None:
        """A row that belongs to no bracketed group."""
        self.reserve(1)
        _ROW.pack_into(
            self._view, self.count * _ROW.size,
            ts_event, ts_recv, NO_SEQUENCE if sequence is None else sequence,
            0, 0, trade[0], trade[1], value[0], value[2],
            instrument, 0, frame, kind, side, flags, value[1], value[3],
            0, trade[2], 0, 0,
        )  # fmt: skip
        self.count += 1
