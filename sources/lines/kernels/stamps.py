"""Compiled reading of arrival times in the control messages of datagrams."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.kernel import kernel

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]


@kernel
def _little(data: Bytes, at: int, size: int) -> int:
    """A little-endian integer."""
    value = 0
    for k in range(size):
        value |= int(np.int64(data[at + k])) << (8 * k)
    return value


@kernel
def read_stamps(
    control: Bytes, width: int, sizes: Indices, now_ns: int, stamps: Indices
) -> tuple[int, int, int]:
    """Arrival times out of the control messages of datagrams, ``width`` bytes for each.

    A hardware stamp counts if it is within a second of the kernel's. Returns how many had none and
    got ``now_ns``, how many a hardware one, and the last count of drops (-1: none told).
    """
    own = hardware = 0
    drops = -1
    for i in range(len(sizes)):
        base, end = i * width, i * width + sizes[i]
        soft = hard = 0
        at = base
        while at + 16 <= end:
            size = _little(control, at, 8)
            level, kind = _little(control, at + 8, 4), _little(control, at + 12, 4)
            if size < 16 or at + size > end:
                break
            if level == 1 and kind == 35 and size >= 32:
                soft = _little(control, at + 16, 8) * 10**9 + _little(control, at + 24, 8)
            elif level == 1 and kind == 37 and size >= 64:
                hard = _little(control, at + 48, 8) * 10**9 + _little(control, at + 56, 8)
            elif level == 1 and kind == 40 and size >= 20:
                drops = _little(control, at + 16, 4)
            at += (size + 7) & ~7
        stamps[i] = soft
        if hard != 0 and soft != 0 and abs(hard - soft) < 10**9:
            stamps[i] = hard
            hardware += 1
        elif soft == 0:
            stamps[i] = now_ns
            own += 1
    return own, hardware, drops
