"""DBN records of one or more frames as columns, and how long each kind must be."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Bytes of the records that the library reads, by rtype, in every version there is of them.
_SIZES: Final = {18: (40,), 19: (360, 400, 520), 20: (112,), 22: (80, 176), 24: (64, 80)}
#: Definitions of this DBN version are not shorter.
_DEFINITION_BYTES: Final = {2: 400}
_TS_OUT_BYTES: Final = 8
_DEFINITION: Final = 19


def fitting(
    rtypes: NDArray[np.uint8], lengths: NDArray[np.int64], version: int, ts_out: bool
) -> NDArray[np.bool_]:
    """Whether each record is as long as its type: at a shorter one the library panics. It takes a
    record for the largest that its length can be, and then wants ``ts_out`` behind it."""
    extra = _TS_OUT_BYTES if ts_out else 0
    good = np.ones(len(rtypes), np.bool_)
    for rtype, sizes in _SIZES.items():
        mine = rtypes == rtype
        if not mine.any():
            continue
        least = _DEFINITION_BYTES.get(version, sizes[0]) if rtype == _DEFINITION else sizes[0]
        good[mine] = lengths[mine] >= least
        for size in sizes:
            good[mine] &= (lengths[mine] < size) | (lengths[mine] >= size + extra)
    return good


class Records(NamedTuple):
    """Records of one or more frames: ``words`` (see kernels.dbn), and per record its first word,
    rtype, publisher << 32 | instrument id, time for naming it, frame and place in it."""

    words: NDArray[np.int64]
    ats: NDArray[np.int64]
    rtypes: NDArray[np.uint8]
    keys: NDArray[np.int64]
    times: NDArray[np.int64]
    frames: NDArray[np.int32]
    #: Where in its frame a record starts.
    places: NDArray[np.int64]

    def part(self, first: int, last: int) -> Records:
        """Records ``first`` to ``last``."""
        return self.where(slice(first, last))

    def where(self, chosen: slice | NDArray[np.bool_]) -> Records:
        """The records that are chosen."""
        return Records(
            self.words,
            self.ats[chosen],
            self.rtypes[chosen],
            self.keys[chosen],
            self.times[chosen],
            self.frames[chosen],
            self.places[chosen],
        )

    def raw(self, index: int) -> bytes:
        """The bytes of a record."""
        at = int(self.ats[index])
        return self.words[at : at + (int(self.words[at]) & 255) // 2].tobytes()


def late_definitions(records: Records) -> list[int]:
    """Indices of definitions that follow another record of their instrument; of each instrument
    only its first definition."""
    definitions = np.flatnonzero(records.rtypes == _DEFINITION)
    if not len(definitions):
        return []
    numbers = records.keys & 0xFFFFFFFF
    _, own = np.unique(numbers[definitions], return_index=True)
    _, firsts, group = np.unique(numbers, return_index=True, return_inverse=True)
    early = definitions[np.sort(own)]
    late: list[int] = early[firsts[group[early]] < early].tolist()
    return late
