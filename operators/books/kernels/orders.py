"""Order store of L3 books: who rests where, found by id, queued by time.

Orders of all books of a shard lie in one pool, one cache line each. A hash table of 64-bit slots
(high half: hash, low half: index + 1, 0: empty) finds them with linear probing; deletion shifts
the run back, so there are no tombstones and nothing degrades with time. The table has twice the
slots of the pool. Eight consecutive ids hash into one cache line of slots, since venues number
orders as they come and most orders die young.

The caller sees to room (free orders): nothing here can fail half-way.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from marketflow.operators.kernels.arrays import (
    Array,
    Pools,
    Word,
    aligned,
    prefetch_of,
    row_of,
    view_of,
)
from marketflow.schemas.kernel import bare_kernel, kernel_part

#: 64 bytes, one cache line. ``size`` at the instrument's exponent; ``level``: index into the level
#: pool; ``prev``/``next``: neighbours in the level's queue, oldest first; -1: none.
ORDER: Final = np.dtype(
    {
        "names": ["hi", "lo", "size", "level", "prev", "next", "book", "hash", "kind"],
        "formats": ["<u8", "<u8", "<i8", "<i4", "<i4", "<i4", "<i4", "<u4", "i1"],
        "offsets": [0, 8, 16, 24, 28, 32, 36, 40, 44],
        "itemsize": 64,
        "aligned": True,
    }
)

# Places in the state (see :mod:`operators.kernels.arrays`): counters, then the pools.
ORDERS_FREE: Final = 16  # head of the free list, -1: empty
ORDERS_USED: Final = 17  # orders ever taken: all beyond are untouched
ORDERS_LIVE: Final = 18
ORDERS: Final = 20
SLOTS: Final = 22
POOLS: Final = {"orders": ORDERS, "slots": SLOTS}

order_row: Any = row_of(ORDERS, ORDER)
all_slots: Any = view_of(SLOTS, np.dtype(np.uint64))
_hint_order: Any = prefetch_of(ORDERS, ORDER)
_hint_slot: Any = prefetch_of(SLOTS, np.dtype(np.uint64))

_C1: Final = np.uint64(0x9E3779B97F4A7C15)
_C2: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_S3: Final = np.uint64(3)
_S7: Final = np.uint64(7)
_S29: Final = np.uint64(29)
_S32: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_ONE: Final = np.uint64(1)
_ZERO: Final = np.uint64(0)


def start(pools: Pools, capacity: Word) -> None:
    """An empty store; ``capacity`` is a power of two."""
    assert capacity & (capacity - 1) == 0, capacity
    pools.put("orders", aligned(capacity, ORDER))
    pools.put("slots", aligned(2 * capacity, np.dtype(np.uint64)))
    pools.state[[ORDERS_USED, ORDERS_LIVE]] = 0
    pools.state[ORDERS_FREE] = -1


def more_orders(pools: Pools, capacity: Word) -> None:
    """Room for that many orders, a power of two; the table is built anew."""
    pools.grow("orders", capacity)
    pools.put("slots", aligned(2 * capacity, np.dtype(np.uint64)))
    rebuild(pools.state)


@kernel_part
def hash_of(hi: Array, lo: Array, kind: Word, book: Word) -> Array:
    """32 bits (in a uint64) of an order's key: id words, IdKind and book."""
    x = (lo >> _S3) ^ (hi * _C2) ^ (np.uint64(book * 128 + kind) << _S32)
    x = (x ^ (x >> _S29)) * _C1
    x = (x ^ (x >> _S32)) * _C2
    return ((x >> _S29) & (_LOW ^ _S7)) | (lo & _S7)


@kernel_part
def find(state: Array, hi: Array, lo: Array, kind: Word, book: Word) -> Word:
    """Index of an order, or -1."""
    slots = all_slots(state)
    mask = np.uint64(len(slots) - 1)
    tag = hash_of(hi, lo, kind, book)
    place = tag & mask
    while True:
        entry = slots[place]
        if entry == _ZERO:
            return -1
        if entry >> _S32 == tag:
            i = np.int64(entry & _LOW) - 1
            order = order_row(state, i)
            if order.lo == lo and order.hi == hi and order.book == book and order.kind == kind:
                return i
        place = (place + _ONE) & mask


@kernel_part
def expect(state: Array, hi: Array, lo: Array, kind: Word, book: Word) -> None:
    """An order with this key will be looked up or added soon."""
    mask = np.uint64(len(all_slots(state)) - 1)
    _hint_slot(state, np.int64(hash_of(hi, lo, kind, book) & mask))


@kernel_part
def expect_order(state: Array, hi: Array, lo: Array, kind: Word, book: Word) -> None:
    """As :func:`expect`, a little later: most orders are in the first slot of their run."""
    slots = all_slots(state)
    entry = slots[hash_of(hi, lo, kind, book) & np.uint64(len(slots) - 1)]
    if entry != _ZERO:
        _hint_order(state, np.int64(entry & _LOW) - 1)


@kernel_part
def enter(slots: Array, tag: Array, i: Word) -> None:
    """Put order i with hash ``tag`` into the first free slot of its run."""
    mask = np.uint64(len(slots) - 1)
    place = tag & mask
    while slots[place] != _ZERO:
        place = (place + _ONE) & mask
    slots[place] = (tag << _S32) | np.uint64(i + 1)


@kernel_part
def _leave(slots: Array, tag: Array, i: Word) -> None:
    mask = np.uint64(len(slots) - 1)
    mine = (tag << _S32) | np.uint64(i + 1)
    hole = tag & mask
    while slots[hole] != mine:
        hole = (hole + _ONE) & mask
    place = hole
    while True:
        place = (place + _ONE) & mask
        entry = slots[place]
        if entry == _ZERO:
            break
        home = (entry >> _S32) & mask
        if ((place - home) & mask) >= ((place - hole) & mask):
            slots[hole] = entry
            hole = place
    slots[hole] = _ZERO


@bare_kernel
def rebuild(state: Array) -> None:
    """Enter every order of the pool into an empty table (after it has grown)."""
    for i in range(state[ORDERS_USED]):
        order = order_row(state, i)
        if order.book >= 0:
            enter(all_slots(state), np.uint64(order.hash), i)


@kernel_part
def add(state: Array, hi: Array, lo: Array, kind: Word, book: Word, size: Word) -> Word:
    """A new order that is in no queue yet; its index. The id must not be there already."""
    i = state[ORDERS_FREE]
    if i >= 0:
        state[ORDERS_FREE] = order_row(state, i).next
    else:
        i = state[ORDERS_USED]
        state[ORDERS_USED] += 1
    state[ORDERS_LIVE] += 1
    tag = hash_of(hi, lo, kind, book)
    order = order_row(state, i)
    order.hi = hi
    order.lo = lo
    order.kind = kind
    order.book = book
    order.size = size
    order.hash = tag
    enter(all_slots(state), tag, i)
    return i


@kernel_part
def forget(state: Array, i: Word) -> None:
    """Order i, in no queue any more, goes."""
    order = order_row(state, i)
    _leave(all_slots(state), np.uint64(order.hash), i)
    order.book = -1
    order.next = state[ORDERS_FREE]
    state[ORDERS_FREE] = i
    state[ORDERS_LIVE] -= 1


@kernel_part
def enqueue(state: Array, level: Array, ref: Word, i: Word) -> None:
    """Order i joins the tail of a level (row ``level`` at index ``ref``)."""
    order = order_row(state, i)
    order.level = ref
    order.prev = level.tail
    order.next = -1
    if level.tail >= 0:
        order_row(state, level.tail).next = i
    else:
        level.head = i
    level.tail = i
    level.count += 1
    level.size += order.size


@kernel_part
def dequeue(state: Array, level: Array, i: Word) -> None:
    """Order i leaves the queue of its level, and its size with it."""
    order = order_row(state, i)
    if order.prev >= 0:
        order_row(state, order.prev).next = order.next
    else:
        level.head = order.next
    if order.next >= 0:
        order_row(state, order.next).prev = order.prev
    else:
        level.tail = order.prev
    level.count -= 1
    level.size -= order.size


@kernel_part
def forget_queue(state: Array, level: Array) -> None:
    """All orders of a level go."""
    i = level.head
    while i >= 0:
        after = order_row(state, i).next
        forget(state, i)
        i = after
    level.head = -1
    level.tail = -1


@kernel_part
def rescale_queue(state: Array, level: Array, factor: Word) -> None:
    """Multiply the size of every order of a level."""
    i = level.head
    while i >= 0:
        order_row(state, i).size *= factor
        i = order_row(state, i).next
