"""Price levels of many book sides: one B+ tree per side, all in two pooled arrays.

A key is the price on the bid side and minus the price on the ask side, so the best level of either
side is the greatest key: the last slot of the rightmost leaf (``SIDE.top``). Nearly all activity is
there, so a search first looks into that leaf, from its end; anything deeper costs one descent of
O(log n) nodes. Levels themselves never move: a leaf's ``refs`` are indices into the level pool.

Inner nodes: ``keys[j]`` is an upper bound of all keys below child j and less than all keys below
child j + 1; that of the last child is never read. A bound may outlive the key it came from.
A node that falls under a quarter is merged with a sibling if both fit into three quarters of a
node, an empty one goes at once, so n levels take O(n) memory and O(log n) height after any history.

The caller sees to room: nothing here can fail half-way.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from marketflow.operators.kernels.arrays import Array, Pools, Word, aligned, row_of
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import INT64_MAX

FANOUT: Final = 19
_HALF: Final = FANOUT // 2
_FEW: Final = FANOUT // 4
_MOST: Final = FANOUT - _FEW

#: 256 bytes: four cache lines. ``prev`` is the next worse node of the same height.
NODE: Final = np.dtype(
    [
        ("keys", "<i8", (FANOUT,)),
        ("refs", "<i4", (FANOUT,)),
        ("count", "<i4"),
        ("parent", "<i4"),
        ("prev", "<i4"),
        ("next", "<i4"),
        ("height", "<i4"),
        ("spare", "<i4", (2,)),
    ],
    align=True,
)
assert NODE.itemsize == 256

#: A level, 40 bytes. ``size`` at the instrument's exponent; ``head``/``tail``: its order queue,
#: -1 without orders; ``side``: index of its SIDE row; scales: of price and size as sent.
LEVEL: Final = np.dtype("<i8, <i8, <i4, <i4, <i4, <i4, i1, i1", align=True)
LEVEL.names = ("price", "size", "head", "tail", "count", "side", "price_scale", "size_scale")

#: One side of one book; side = 2 * book + (0 bid, 1 ask). -1: none.
SIDE: Final = np.dtype([("root", "<i4"), ("top", "<i4"), ("best", "<i4"), ("levels", "<i4")])

# Places in the state (see :mod:`operators.kernels.arrays`): counters, then the pools.
NODES_FREE: Final = 0  # head of the free list, -1: empty
NODES_USED: Final = 1  # nodes ever taken: all beyond are untouched
NODES_LIVE: Final = 2
LEVELS_FREE: Final = 3
LEVELS_USED: Final = 4
LEVELS_LIVE: Final = 5
NODES: Final = 6
LEVELS: Final = 8
SIDES: Final = 10
POOLS: Final = {"nodes": NODES, "levels": LEVELS, "sides": SIDES}
#: Nodes that one insertion can take at most (a split on every height, and a new root).
NODES_PER_INSERT: Final = 12
#: Levels per node that the worst history leaves on average: where one of two neighbours has but
#: one, the other has _FEW. Insertions alone leave _HALF at least.
LEAST_FILL: Final = 2
GROWN_FILL: Final = _HALF - 1  # with the inner nodes

node_row: Any = row_of(NODES, NODE)
level_row: Any = row_of(LEVELS, LEVEL)
side_row: Any = row_of(SIDES, SIDE)


def start(pools: Pools, sides: Word, levels: Word, nodes: Word) -> None:
    """Empty sides, with room for that many levels and nodes."""
    pools.put("nodes", aligned(nodes, NODE))
    pools.put("levels", aligned(levels, LEVEL))
    pools.put("sides", aligned(0, SIDE))
    more_sides(pools, sides)
    pools.state[[NODES_USED, NODES_LIVE, LEVELS_USED, LEVELS_LIVE]] = 0
    pools.state[[NODES_FREE, LEVELS_FREE]] = -1


def more_sides(pools: Pools, sides: Word) -> None:
    """Room for that many sides; the new ones are empty."""
    known = len(pools["sides"])
    pools.grow("sides", sides)
    for name in ("root", "top", "best"):
        pools["sides"][name][known:] = -1


@kernel_part
def _take_node(state: Array, height: Word) -> Word:
    n = state[NODES_FREE]
    if n >= 0:
        state[NODES_FREE] = node_row(state, n).next
    else:
        n = state[NODES_USED]
        state[NODES_USED] += 1
    state[NODES_LIVE] += 1
    node = node_row(state, n)
    node.count = 0
    node.parent = -1
    node.prev = -1
    node.next = -1
    node.height = height
    return n


@kernel_part
def _free_node(state: Array, n: Word) -> None:
    node_row(state, n).next = state[NODES_FREE]
    state[NODES_FREE] = n
    state[NODES_LIVE] -= 1


@kernel_part
def _slot_of(state: Array, parent: Word, child: Word) -> Word:
    slot = 0
    while node_row(state, parent).refs[slot] != child:
        slot += 1
    return slot


@kernel_part
def _unlink(state: Array, side: Word, n: Word) -> None:
    """Take node n out of the chain of its height."""
    node = node_row(state, n)
    if node.prev >= 0:
        node_row(state, node.prev).next = node.next
    if node.next >= 0:
        node_row(state, node.next).prev = node.prev
    elif node.height == 0:
        side_row(state, side).top = node.prev


@kernel_part
def _drop_slot(state: Array, n: Word, slot: Word) -> None:
    node = node_row(state, n)
    for j in range(slot, node.count - 1):
        node.keys[j] = node.keys[j + 1]
        node.refs[j] = node.refs[j + 1]
    node.count -= 1


@kernel_part
def _put_slot(state: Array, n: Word, slot: Word, key: Word, ref: Word) -> None:
    node = node_row(state, n)
    for j in range(node.count, slot, -1):
        node.keys[j] = node.keys[j - 1]
        node.refs[j] = node.refs[j - 1]
    node.keys[slot] = key
    node.refs[slot] = ref
    node.count += 1


@kernel_part
def _split_one(state: Array, side: Word, n: Word) -> None:
    """Move the lower half of node n into a new left sibling; the parent has room."""
    node = node_row(state, n)
    left = _take_node(state, node.height)
    lower = node_row(state, left)
    for j in range(_HALF):
        lower.keys[j] = node.keys[j]
        lower.refs[j] = node.refs[j]
        if node.height > 0:
            node_row(state, node.refs[j]).parent = left
    lower.count = _HALF
    for j in range(_HALF, node.count):
        node.keys[j - _HALF] = node.keys[j]
        node.refs[j - _HALF] = node.refs[j]
    node.count -= _HALF
    lower.prev = node.prev
    lower.next = n
    if node.prev >= 0:
        node_row(state, node.prev).next = left
    node.prev = left
    if node.parent < 0:
        root = _take_node(state, node.height + 1)
        node.parent = root
        side_row(state, side).root = root
        _put_slot(state, root, 0, INT64_MAX, n)
    lower.parent = node.parent
    _put_slot(state, node.parent, _slot_of(state, node.parent, n), lower.keys[_HALF - 1], left)


@kernel_part
def _make_room(state: Array, side: Word, leaf: Word) -> None:
    """Split the full leaf, and before it its full ancestors from the highest down."""
    while True:
        n = leaf
        while (
            node_row(state, n).parent >= 0
            and node_row(state, node_row(state, n).parent).count == FANOUT
        ):
            n = node_row(state, n).parent
        _split_one(state, side, n)
        if n == leaf:
            return


@kernel_part
def _merge_left(state: Array, n: Word, left: Word, bound: Word) -> None:
    """Move all of ``left`` into its right sibling n; ``bound`` is the parent's key of ``left``."""
    node, lower = node_row(state, n), node_row(state, left)
    moved = lower.count
    for j in range(node.count - 1, -1, -1):
        node.keys[j + moved] = node.keys[j]
        node.refs[j + moved] = node.refs[j]
    for j in range(moved):
        node.keys[j] = lower.keys[j]
        node.refs[j] = lower.refs[j]
        if node.height > 0:
            node_row(state, lower.refs[j]).parent = n
    if node.height > 0:
        node.keys[moved - 1] = bound
    node.count += moved


@kernel_part
def _shrink(state: Array, side: Word, n: Word) -> None:
    """Restore the shape after node n lost an entry."""
    while node_row(state, n).parent >= 0 and node_row(state, n).count < _FEW:
        parent = node_row(state, n).parent
        above = node_row(state, parent)
        slot = _slot_of(state, parent, n)
        count = node_row(state, n).count
        gone = -1
        if count == 0:
            gone = n
        elif slot > 0 and node_row(state, above.refs[slot - 1]).count + count <= _MOST:
            slot -= 1
            gone = above.refs[slot]
            _merge_left(state, n, gone, above.keys[slot])
        elif (
            slot + 1 < above.count and node_row(state, above.refs[slot + 1]).count + count <= _MOST
        ):
            gone = n
            _merge_left(state, above.refs[slot + 1], n, above.keys[slot])
        if gone < 0:
            return
        _unlink(state, side, gone)
        _drop_slot(state, parent, slot)
        _free_node(state, gone)
        n = parent
    root = side_row(state, side).root
    while node_row(state, root).height > 0 and node_row(state, root).count <= 1:
        child = node_row(state, root).refs[0] if node_row(state, root).count == 1 else -1
        _free_node(state, root)
        side_row(state, side).root = child
        if child < 0:
            return
        node_row(state, child).parent = -1
        root = child


@kernel_part
def _descend(state: Array, n: Word, key: Word) -> Word:
    while node_row(state, n).height > 0:
        node = node_row(state, n)
        slot = 0
        while slot < node.count - 1 and node.keys[slot] < key:
            slot += 1
        n = node.refs[slot]
    return n


@kernel_part
def seek(state: Array, side: Word, key: Word) -> tuple[Word, Word, Word]:
    """(leaf, slot, level) of a key: its level or -1, and where it is or would stand.

    Leaf -1 while the side has never had a level.
    """
    n = side_row(state, side).top
    if n < 0:
        return -1, 0, -1
    if node_row(state, n).prev >= 0 and key < node_row(state, n).keys[0]:
        n = _descend(state, side_row(state, side).root, key)
    slot = node_row(state, n).count
    while slot > 0 and node_row(state, n).keys[slot - 1] >= key:
        slot -= 1
    if slot < node_row(state, n).count and node_row(state, n).keys[slot] == key:
        return n, slot, node_row(state, n).refs[slot]
    return n, slot, -1


@kernel_part
def insert(state: Array, side: Word, leaf: Word, slot: Word, key: Word) -> Word:
    """A new empty level where :func:`seek` said it belongs; its index.

    ``price`` is set, everything else zero, the queue empty.
    """
    ref = state[LEVELS_FREE]
    if ref >= 0:
        state[LEVELS_FREE] = level_row(state, ref).head
    else:
        ref = state[LEVELS_USED]
        state[LEVELS_USED] += 1
    state[LEVELS_LIVE] += 1
    if leaf < 0:
        leaf = _take_node(state, 0)
        side_row(state, side).root = leaf
        side_row(state, side).top = leaf
    elif node_row(state, leaf).count == FANOUT:
        _make_room(state, side, leaf)
        if slot < _HALF:
            leaf = node_row(state, leaf).prev
        else:
            slot -= _HALF
    _put_slot(state, leaf, slot, key, ref)
    row = side_row(state, side)
    row.levels += 1
    if leaf == row.top and slot == node_row(state, leaf).count - 1:
        row.best = ref
    level = level_row(state, ref)
    level.price = -key if side & 1 else key
    level.size = 0
    level.head = -1
    level.tail = -1
    level.count = 0
    level.side = side
    level.price_scale = 0
    level.size_scale = 0
    return ref


@kernel_part
def remove(state: Array, side: Word, leaf: Word, slot: Word) -> None:
    """The level at a place that :func:`seek` found goes."""
    ref = node_row(state, leaf).refs[slot]
    _drop_slot(state, leaf, slot)
    if node_row(state, leaf).count < _FEW:
        _shrink(state, side, leaf)
    row = side_row(state, side)
    row.levels -= 1
    if row.best == ref:
        row.best = (
            node_row(state, row.top).refs[node_row(state, row.top).count - 1]
            if row.levels > 0
            else -1
        )
    level_row(state, ref).head = state[LEVELS_FREE]
    state[LEVELS_FREE] = ref
    state[LEVELS_LIVE] -= 1


@kernel_part
def worst(state: Array, side: Word) -> Word:
    """The worst level of a side that has levels."""
    n = side_row(state, side).root
    while node_row(state, n).height > 0:
        n = node_row(state, n).refs[0]
    return node_row(state, n).refs[0]


@kernel_part
def clear(state: Array, side: Word) -> None:
    """Every level of a side goes. O(nodes)."""
    row = side_row(state, side)
    first = row.root
    while first >= 0:
        below = node_row(state, first).refs[0] if node_row(state, first).height > 0 else -1
        n = first
        while n >= 0:
            after = node_row(state, n).next
            if node_row(state, n).height == 0:
                for j in range(node_row(state, n).count):
                    ref = node_row(state, n).refs[j]
                    level_row(state, ref).head = state[LEVELS_FREE]
                    state[LEVELS_FREE] = ref
            _free_node(state, n)
            n = after
        first = below
    state[LEVELS_LIVE] -= row.levels
    row.root = -1
    row.top = -1
    row.best = -1
    row.levels = 0


@kernel_part
def rescale(state: Array, side: Word, price_factor: Word, size_factor: Word) -> None:
    """Multiply all prices and sizes of a side; the caller has seen that they fit int64."""
    first = side_row(state, side).root
    while first >= 0:
        n = first
        while n >= 0:
            node = node_row(state, n)
            # The last bound of an inner node is never read and may be anything.
            for j in range(node.count if node.height == 0 else node.count - 1):
                node.keys[j] *= price_factor
                if node.height == 0:
                    level_row(state, node.refs[j]).price *= price_factor
                    level_row(state, node.refs[j]).size *= size_factor
            n = node.next
        first = node_row(state, first).refs[0] if node_row(state, first).height > 0 else -1
