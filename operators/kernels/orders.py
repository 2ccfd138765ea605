"""Order store of L3 books: who rests where, found by id, queued by time.

Orders of all books of a shard lie in one pool, one cache line each. A hash table of 64-bit slots
(high half: hash, low half: index + 1, 0: empty) finds them with linear probing; deletion shifts
the run back, so there are no tombstones and nothing degrades with time. The table has twice the
slots of the pool. Eight consecutive ids hash into one cache line of slots, since venues number
orders as they come and most orders die young.

The caller sees to room (free orders): nothing here can fail half-way.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from operators.kernels.jit import bare_kernel

Array: TypeAlias = Any

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

# Counters of the pool (indices into Orders.pool).
ORDERS_FREE: Final = 0  # head of the free list, -1: empty
ORDERS_USED: Final = 1  # orders ever taken: all beyond are untouched
ORDERS_LIVE: Final = 2
POOL_COUNTERS: Final = 3

_C1: Final = np.uint64(0x9E3779B97F4A7C15)
_C2: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_S3: Final = np.uint64(3)
_S7: Final = np.uint64(7)
_S29: Final = np.uint64(29)
_S32: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_ONE: Final = np.uint64(1)
_ZERO: Final = np.uint64(0)


class Orders(NamedTuple):
    """The resting orders of a shard. ``len(slots)`` is a power of two."""

    rows: Array
    slots: Array
    pool: Array


def new_orders(capacity: int) -> Orders:
    """An empty store; ``capacity`` is a power of two."""
    assert capacity & (capacity - 1) == 0, capacity
    pool = np.zeros(POOL_COUNTERS, np.int64)
    pool[ORDERS_FREE] = -1
    return Orders(np.zeros(capacity, ORDER), np.zeros(2 * capacity, np.uint64), pool)


@bare_kernel
def hash_of(hi: Array, lo: Array, kind: int, book: int) -> Array:
    """32 bits (in a uint64) of an order's key: id words, IdKind and book."""
    x = (lo >> _S3) ^ (hi * _C2) ^ (np.uint64(book * 128 + kind) << _S32)
    x = (x ^ (x >> _S29)) * _C1
    x = (x ^ (x >> _S32)) * _C2
    return ((x >> _S29) & (_LOW ^ _S7)) | (lo & _S7)


@bare_kernel
def find(orders: Orders, hi: Array, lo: Array, kind: int, book: int) -> int:
    """Index of an order, or -1."""
    slots = orders.slots
    mask = np.uint64(len(slots) - 1)
    tag = hash_of(hi, lo, kind, book)
    place = tag & mask
    while True:
        entry = slots[place]
        if entry == _ZERO:
            return -1
        if entry >> _S32 == tag:
            i = np.int64(entry & _LOW) - 1
            order = orders.rows[i]
            if order.lo == lo and order.hi == hi and order.book == book and order.kind == kind:
                return i  # type: ignore
        place = (place + _ONE) & mask


@bare_kernel
def enter(slots: Array, tag: Array, i: int) -> None:
    """Put order i with hash ``tag`` into the first free slot of its run."""
    mask = np.uint64(len(slots) - 1)
    place = tag & mask
    while slots[place] != _ZERO:
        place = (place + _ONE) & mask
    slots[place] = (tag << _S32) | np.uint64(i + 1)


@bare_kernel
def _leave(slots: Array, tag: Array, i: int) -> None:
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
def rebuild(orders: Orders) -> None:
    """Enter every order of the pool into an empty table (after it has grown)."""
    for i in range(orders.pool[ORDERS_USED]):
        order = orders.rows[i]
        if order.book >= 0:
            enter(orders.slots, np.uint64(order.hash), i)


@bare_kernel
def add(orders: Orders, hi: Array, lo: Array, kind: int, book: int, size: int) -> int:
    """A new order that is in no queue yet; its index. The id must not be there already."""
    pool = orders.pool
    i = pool[ORDERS_FREE]
    if i >= 0:
        pool[ORDERS_FREE] = orders.rows[i].next
    else:
        i = pool[ORDERS_USED]
        pool[ORDERS_USED] += 1
    pool[ORDERS_LIVE] += 1
    tag = hash_of(hi, lo, kind, book)
    order = orders.rows[i]
    order.hi = hi
    order.lo = lo
    order.kind = kind
    order.book = book
    order.size = size
    order.hash = tag
    enter(orders.slots, tag, i)
    return i  # type: ignore


@bare_kernel
def forget(orders: Orders, i: int) -> None:
    """Order i, in no queue any more, goes."""
    order = orders.rows[i]
    _leave(orders.slots, np.uint64(order.hash), i)
    order.book = -1
    order.next = orders.pool[ORDERS_FREE]
    orders.pool[ORDERS_FREE] = i
    orders.pool[ORDERS_LIVE] -= 1


@bare_kernel
def enqueue(orders: Orders, level: Array, ref: int, i: int) -> None:
    """Order i joins the tail of a level (row ``level`` at index ``ref``)."""
    order = orders.rows[i]
    order.level = ref
    order.prev = level.tail
    order.next = -1
    if level.tail >= 0:
        orders.rows[level.tail].next = i
    else:
        level.head = i
    level.tail = i
    level.count += 1
    level.size += order.size


@bare_kernel
def dequeue(orders: Orders, level: Array, i: int) -> None:
    """Order i leaves the queue of its level, and its size with it."""
    order = orders.rows[i]
    if order.prev >= 0:
        orders.rows[order.prev].next = order.next
    else:
        level.head = order.next
    if order.next >= 0:
        orders.rows[order.next].prev = order.prev
    else:
        level.tail = order.prev
    level.count -= 1
    level.size -= order.size


@bare_kernel
def forget_queue(orders: Orders, level: Array) -> None:
    """All orders of a level go."""
    i = level.head
    while i >= 0:
        after = orders.rows[i].next
        forget(orders, i)
        i = after
    level.head = -1
    level.tail = -1


@bare_kernel
def rescale_queue(orders: Orders, level: Array, factor: int) -> None:
    """Multiply the size of every order of a level."""
    i = level.head
    while i >= 0:
        orders.rows[i].size *= factor
        i = orders.rows[i].next
