"""How a process that runs flows takes memory from the system.

A flow allocates and frees the same megabytes with every batch. Left to themselves, allocators
give them back and fetch them anew, page by page: with the settings here the first run of 3 M ITCH
messages into a lake takes a fifth less CPU time. Only processes of our own do this, never a
notebook that imports us.
"""

from __future__ import annotations

import ctypes
from typing import Final

import pyarrow as pa

# Parameters of mallopt(3); the largest threshold that glibc takes is 32 MiB.
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_MIB: Final = 1 << 20


def keep_memory() -> None:
    """Let Arrow use malloc, and malloc keep up to 512 MiB that is free for the next batch."""
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc: its defaults have to do
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_M_TRIM_THRESHOLD, 512 * _MIB)
    mallopt(_M_TOP_PAD, 16 * _MIB)
