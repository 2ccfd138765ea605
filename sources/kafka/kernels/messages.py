"""From librdkafka's messages in memory to columns, without a Python object per message.

The kernels read ``rd_kafka_message_t`` (a public, ABI-stable struct) and call the library's own
functions for timestamps and headers. They allocate nothing; whoever calls owns every array.
:func:`bind` must have made the library known to the compiler before a kernel runs.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import llvmlite.binding
import numpy as np
from numba import types
from numpy.typing import NDArray

from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.units import END_OF_TIME_NS, NS_PER_MS

#: ``rd_kafka_message_t`` of librdkafka (rdkafka.h), 64-bit.
MESSAGE: Final = np.dtype(
    [
        ("error", "<i4"),
        ("topic", "<u8"),  # rd_kafka_topic_t *
        ("partition", "<i4"),
        ("payload", "<u8"),
        ("payload_size", "<u8"),
        ("key", "<u8"),
        ("key_size", "<u8"),
        ("offset", "<i8"),
        ("private", "<u8"),
    ],
    align=True,
)
assert MESSAGE.itemsize == 72
_SIZE: Final = MESSAGE.itemsize

#: Header names as C strings.
NAMES: Final = (
    np.frombuffer(b"ts_recv\0", np.uint8),
    np.frombuffer(b"kind\0", np.uint8),
    np.frombuffer(b"note\0", np.uint8),
)

_END_OF_TIME_MS: Final = END_OF_TIME_NS // NS_PER_MS
_P = types.uintp


def _function(name: str, signature: Any) -> Any:
    """A function of a shared library, as kernels call it."""
    return types.ExternalFunction(name, signature)


_timestamp = _function("rd_kafka_message_timestamp", types.int64(_P, _P))
_headers = _function("rd_kafka_message_headers", types.int32(_P, _P))
_header = _function("rd_kafka_header_get_all", types.int32(_P, _P, _P, _P, _P))
_destroy = _function("rd_kafka_message_destroy", types.void(_P))
_memcpy = _function("memcpy", _P(_P, _P, _P))
_strcmp = _function("strcmp", types.int32(_P, _P))


def bind(library: str) -> None:
    """Make the functions of the shared library at this path known to the compiler."""
    llvmlite.binding.load_library_permanently(library)


class Slots(NamedTuple):
    """The partitions that are read: a slot each, in the order in which they were first seen.

    ``rows`` and ``bytes``, ``key_bytes`` are what the batch at hand has of each.
    """

    topics: NDArray[np.uint64]
    partitions: NDArray[np.int32]
    rows: NDArray[np.int64]
    bytes: NDArray[np.int64]
    key_bytes: NDArray[np.int64]


class Columns(NamedTuple):
    """Columns of a batch, sorted by slot, in the partition's order within it.

    ``ts_recv`` is the header's, or the Kafka timestamp (``ts_ms``) in ns, or 0. ``special`` holds
    (row, message) of those whose ``kind`` or ``note`` header is still to be read.
    """

    offsets: NDArray[np.int64]
    ts_recv: NDArray[np.int64]
    ts_ms: NDArray[np.int64]
    payload: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    keys: NDArray[np.uint8]
    key_bounds: NDArray[np.int32]
    special: NDArray[np.int32]


@bare_kernel
def survey(
    pointers: NDArray[np.uint64],
    count: int,
    messages: NDArray[np.void],
    slot_of: NDArray[np.int32],
    slots: Slots,
    known: int,
) -> int:
    """Copy the structs and say which slot each message is of (-1: it tells an error).

    Returns ``count``, or the first message of a partition that has no slot yet.
    """
    slots.rows[:known] = 0
    slots.bytes[:known] = 0
    slots.key_bytes[:known] = 0
    base = messages.ctypes.data
    last = 0
    for i in range(count):
        _memcpy(base + i * _SIZE, pointers[i], _SIZE)
        if messages[i].error != 0:
            slot_of[i] = -1
            continue
        topic, partition = messages[i].topic, messages[i].partition
        if last >= known or slots.topics[last] != topic or slots.partitions[last] != partition:
            last = 0
            while last < known and not (
                slots.topics[last] == topic and slots.partitions[last] == partition
            ):
                last += 1
            if last == known:
                return i
        slot_of[i] = last
        slots.rows[last] += 1
        slots.bytes[last] += messages[i].payload_size
        slots.key_bytes[last] += messages[i].key_size
    return count


@bare_kernel
def unpack(
    pointers: NDArray[np.uint64],
    count: int,
    messages: NDArray[np.void],
    slot_of: NDArray[np.int32],
    slots: Slots,
    known: int,
    out: Columns,
    names: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]],
    scratch: NDArray[np.uint64],
) -> int:
    """Fill the columns and give back the messages; returns how many are special and still held.

    After it ``slots.rows`` holds the end of each slot's rows. ``scratch``: 8 words.
    """
    row, at, key_at = 0, 0, 0
    for slot in range(known):
        rows, size, key_size = slots.rows[slot], slots.bytes[slot], slots.key_bytes[slot]
        slots.rows[slot], slots.bytes[slot], slots.key_bytes[slot] = row, at, key_at
        row += rows
        at += size
        key_at += key_size
    out.bounds[row] = at
    out.key_bounds[row] = key_at
    special = 0
    payload, keys, room = out.payload.ctypes.data, out.keys.ctypes.data, scratch.ctypes.data
    for i in range(count):
        slot = slot_of[i]
        if slot < 0:
            continue
        message = messages[i]
        row = slots.rows[slot]
        slots.rows[slot] += 1
        out.offsets[row] = message.offset
        out.bounds[row] = slots.bytes[slot]
        out.key_bounds[row] = slots.key_bytes[slot]
        _memcpy(payload + slots.bytes[slot], message.payload, message.payload_size)
        _memcpy(keys + slots.key_bytes[slot], message.key, message.key_size)
        slots.bytes[slot] += message.payload_size
        slots.key_bytes[slot] += message.key_size
        # A producer may say anything; what is beyond the end of time stays there.
        ts_ms = min(max(np.int64(0), _timestamp(pointers[i], room)), np.int64(_END_OF_TIME_MS))
        out.ts_ms[row] = ts_ms
        out.ts_recv[row] = ts_ms * 1_000_000
        if _read_headers(pointers[i], row, out, names, scratch):
            out.special[2 * special] = row
            out.special[2 * special + 1] = i
            special += 1
        else:
            _destroy(pointers[i])
    return special


@bare_kernel
def _read_headers(
    pointer: int,
    row: int,
    out: Columns,
    names: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]],
    scratch: NDArray[np.uint64],
) -> bool:
    """Take ``ts_recv``; whether there is a ``kind`` or ``note`` too."""
    room = scratch.ctypes.data
    if _headers(pointer, room) != 0:
        return False
    special = False
    index = 0
    while _header(scratch[0], index, room + 8, room + 16, room + 24) == 0:
        index += 1
        if _strcmp(scratch[1], names[0].ctypes.data) == 0:
            if scratch[3] == 8:
                value = np.int64(0)
                _memcpy(room + 32, scratch[2], 8)
                for byte in range(8):
                    value = value << 8 | np.int64(
                        scratch[4] >> np.uint64(8 * byte) & np.uint64(255)
                    )
                out.ts_recv[row] = value
        elif (
            _strcmp(scratch[1], names[1].ctypes.data) == 0
            or _strcmp(scratch[1], names[2].ctypes.data) == 0
        ):
            special = True
    return special
