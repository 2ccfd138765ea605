"""Price levels of many book sides: one B+ tree per side, all in two pooled arrays.

A key is the price on the bid side and minus the price on the ask side, so the best level of either
side is the greatest key: the last slot of the rightmost leaf (``SIDE.top``). Nearly all activity is
there, so a search first looks into that leaf, from its end; anything deeper costs one descent of
O(log n) nodes. Levels themselves never move: a leaf's ``refs`` are indices into the level pool.

Inner nodes: ``keys[j]`` is an upper bound of all keys below child j and less than all keys below
child j + 1; that of the last child is never read. A bound may outlive the key it came from.
A node that falls under a quarter is merged with a sibling if both fit into three quarters of a
node, an empty one goes at once, so n levels take O(n) memory and O(log n) height after any history.

The caller sees to room (``levels_room``, ``nodes_room``): nothing here can fail half-way.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from operators.kernels.jit import bare_kernel
from schemas.units import INT64_MAX

#: A numpy array inside a kernel (numba's own types are more exact than mypy's).
Array: TypeAlias = Any

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
LEVEL: Final = np.dtype(
    [
        ("price", "<i8"),
        ("size", "<i8"),
        ("head", "<i4"),
        ("tail", "<i4"),
        ("count", "<i4"),
        ("side", "<i4"),
        ("price_scale", "i1"),
        ("size_scale", "i1"),
    ],
    align=True,
)

#: One side of one book; side = 2 * book + (0 bid, 1 ask). -1: none.
SIDE: Final = np.dtype([("root", "<i4"), ("top", "<i4"), ("best", "<i4"), ("levels", "<i4")])

# Counters of the two pools (indices into Tree.pool).
NODES_FREE: Final = 0  # head of the free list, -1: empty
NODES_USED: Final = 1  # nodes ever taken: all beyond are untouched
NODES_LIVE: Final = 2
LEVELS_FREE: Final = 3
LEVELS_USED: Final = 4
LEVELS_LIVE: Final = 5
POOL_COUNTERS: Final = 6
#: Nodes that one insertion can take at most (a split on every height, and a new root).
NODES_PER_INSERT: Final = 12


class Tree(NamedTuple):
    """The price levels of all sides of a shard."""

    nodes: Array
    levels: Array
    sides: Array
    pool: Array


def new_tree(sides: int, levels: int, nodes: int) -> Tree:
    """Empty sides, with room for that many levels and nodes."""
    side_rows = np.zeros(sides, SIDE)
    for name in ("root", "top", "best"):
        side_rows[name] = -1
    pool = np.zeros(POOL_COUNTERS, np.int64)
    pool[[NODES_FREE, LEVELS_FREE]] = -1
    return Tree(np.zeros(nodes, NODE), np.zeros(levels, LEVEL), side_rows, pool)


@bare_kernel
def _take_node(tree: Tree, height: int) -> int:
    pool = tree.pool
    n = pool[NODES_FREE]
    if n >= 0:
        pool[NODES_FREE] = tree.nodes[n].next
    else:
        n = pool[NODES_USED]
        pool[NODES_USED] += 1
    pool[NODES_LIVE] += 1
    node = tree.nodes[n]
    node.count = 0
    node.parent = -1
    node.prev = -1
    node.next = -1
    node.height = height
    return n  # type: ignore[no-any-return]


@bare_kernel
def _free_node(tree: Tree, n: int) -> None:
    tree.nodes[n].next = tree.pool[NODES_FREE]
    tree.pool[NODES_FREE] = n
    tree.pool[NODES_LIVE] -= 1


@bare_kernel
def _slot_of(nodes: Array, parent: int, child: int) -> int:
    slot = 0
    while nodes[parent].refs[slot] != child:
        slot += 1
    return slot


@bare_kernel
def _unlink(tree: Tree, side: int, n: int) -> None:
    """Take node n out of the chain of its height."""
    node = tree.nodes[n]
    if node.prev >= 0:
        tree.nodes[node.prev].next = node.next
    if node.next >= 0:
        tree.nodes[node.next].prev = node.prev
    elif node.height == 0:
        tree.sides[side].top = node.prev


@bare_kernel
def _drop_slot(nodes: Array, n: int, slot: int) -> None:
    node = nodes[n]
    for j in range(slot, node.count - 1):
        node.keys[j] = node.keys[j + 1]
        node.refs[j] = node.refs[j + 1]
    node.count -= 1


@bare_kernel
def _put_slot(nodes: Array, n: int, slot: int, key: int, ref: int) -> None:
    node = nodes[n]
    for j in range(node.count, slot, -1):
        node.keys[j] = node.keys[j - 1]
        node.refs[j] = node.refs[j - 1]
    node.keys[slot] = key
    node.refs[slot] = ref
    node.count += 1


@bare_kernel
def _split_one(tree: Tree, side: int, n: int) -> None:
    """Move the lower half of node n into a new left sibling; the parent has room."""
    nodes = tree.nodes
    node = nodes[n]
    left = _take_node(tree, node.height)
    lower = nodes[left]
    for j in range(_HALF):
        lower.keys[j] = node.keys[j]
        lower.refs[j] = node.refs[j]
        if node.height > 0:
            nodes[node.refs[j]].parent = left
    lower.count = _HALF
    for j in range(_HALF, node.count):
        node.keys[j - _HALF] = node.keys[j]
        node.refs[j - _HALF] = node.refs[j]
    node.count -= _HALF
    lower.prev = node.prev
    lower.next = n
    if node.prev >= 0:
        nodes[node.prev].next = left
    node.prev = left
    if node.parent < 0:
        root = _take_node(tree, node.height + 1)
        node.parent = root
        tree.sides[side].root = root
        _put_slot(nodes, root, 0, INT64_MAX, n)
    lower.parent = node.parent
    _put_slot(nodes, node.parent, _slot_of(nodes, node.parent, n), lower.keys[_HALF - 1], left)


@bare_kernel
def _make_room(tree: Tree, side: int, leaf: int) -> None:
    """Split the full leaf, and before it its full ancestors from the highest down."""
    nodes = tree.nodes
    while True:
        n = leaf
        while nodes[n].parent >= 0 and nodes[nodes[n].parent].count == FANOUT:
            n = nodes[n].parent
        _split_one(tree, side, n)
        if n == leaf:
            return


@bare_kernel
def _merge_left(tree: Tree, n: int, left: int, bound: int) -> None:
    """Move all of ``left`` into its right sibling n; ``bound`` is the parent's key of ``left``."""
    nodes = tree.nodes
    node, lower = nodes[n], nodes[left]
    moved = lower.count
    for j in range(node.count - 1, -1, -1):
        node.keys[j + moved] = node.keys[j]
        node.refs[j + moved] = node.refs[j]
    for j in range(moved):
        node.keys[j] = lower.keys[j]
        node.refs[j] = lower.refs[j]
        if node.height > 0:
            nodes[lower.refs[j]].parent = n
    if node.height > 0:
        node.keys[moved - 1] = bound
    node.count += moved


@bare_kernel
def _shrink(tree: Tree, side: int, n: int) -> None:
    """Restore the shape after node n lost an entry."""
    nodes = tree.nodes
    while nodes[n].parent >= 0 and nodes[n].count < _FEW:
        parent = nodes[n].parent
        above = nodes[parent]
        slot = _slot_of(nodes, parent, n)
        count = nodes[n].count
        gone = -1
        if count == 0:
            gone = n
        elif slot > 0 and nodes[above.refs[slot - 1]].count + count <= _MOST:
            slot -= 1
            gone = above.refs[slot]
            _merge_left(tree, n, gone, above.keys[slot])
        elif slot + 1 < above.count and nodes[above.refs[slot + 1]].count + count <= _MOST:
            gone = n
            _merge_left(tree, above.refs[slot + 1], n, above.keys[slot])
        if gone < 0:
            return
        _unlink(tree, side, gone)
        _drop_slot(nodes, parent, slot)
        _free_node(tree, gone)
        n = parent
    root = tree.sides[side].root
    while nodes[root].height > 0 and nodes[root].count <= 1:
        child = nodes[root].refs[0] if nodes[root].count == 1 else -1
        _free_node(tree, root)
        tree.sides[side].root = child
        if child < 0:
            return
        nodes[child].parent = -1
        root = child


@bare_kernel
def _descend(nodes: Array, n: int, key: int) -> int:
    while nodes[n].height > 0:
        node = nodes[n]
        slot = 0
        while slot < node.count - 1 and node.keys[slot] < key:
            slot += 1
        n = node.refs[slot]
    return n


@bare_kernel
def seek(tree: Tree, side: int, key: int) -> tuple[int, int, int]:
    """(leaf, slot, level) of a key: its level or -1, and where it is or would stand.

    Leaf -1 while the side has never had a level.
    """
    nodes = tree.nodes
    n = tree.sides[side].top
    if n < 0:
        return -1, 0, -1
    if nodes[n].prev >= 0 and key < nodes[n].keys[0]:
        n = _descend(nodes, tree.sides[side].root, key)
    slot = nodes[n].count
    while slot > 0 and nodes[n].keys[slot - 1] >= key:
        slot -= 1
    if slot < nodes[n].count and nodes[n].keys[slot] == key:
        return n, slot, nodes[n].refs[slot]
    return n, slot, -1


@bare_kernel
def insert(tree: Tree, side: int, leaf: int, slot: int, key: int) -> int:
    """A new empty level where :func:`seek` said it belongs; its index.

    ``price`` is set, everything else zero, the queue empty.
    """
    nodes, pool = tree.nodes, tree.pool
    ref = pool[LEVELS_FREE]
    if ref >= 0:
        pool[LEVELS_FREE] = tree.levels[ref].head
    else:
        ref = pool[LEVELS_USED]
        pool[LEVELS_USED] += 1
    pool[LEVELS_LIVE] += 1
    if leaf < 0:
        leaf = _take_node(tree, 0)
        tree.sides[side].root = leaf
        tree.sides[side].top = leaf
    elif nodes[leaf].count == FANOUT:
        _make_room(tree, side, leaf)
        if slot < _HALF:
            leaf = nodes[leaf].prev
        else:
            slot -= _HALF
    _put_slot(nodes, leaf, slot, key, ref)
    row = tree.sides[side]
    row.levels += 1
    if leaf == row.top and slot == nodes[leaf].count - 1:
        row.best = ref
    level = tree.levels[ref]
    level.price = -key if side & 1 else key
    level.size = 0
    level.head = -1
    level.tail = -1
    level.count = 0
    level.side = side
    return ref  # type: ignore[no-any-return]


@bare_kernel
def remove(tree: Tree, side: int, leaf: int, slot: int) -> None:
    """The level at a place that :func:`seek` found goes."""
    nodes, pool = tree.nodes, tree.pool
    ref = nodes[leaf].refs[slot]
    _drop_slot(nodes, leaf, slot)
    if nodes[leaf].count < _FEW:
        _shrink(tree, side, leaf)
    row = tree.sides[side]
    row.levels -= 1
    if row.best == ref:
        row.best = nodes[row.top].refs[nodes[row.top].count - 1] if row.levels > 0 else -1
    tree.levels[ref].head = pool[LEVELS_FREE]
    pool[LEVELS_FREE] = ref
    pool[LEVELS_LIVE] -= 1


@bare_kernel
def worst(tree: Tree, side: int) -> int:
    """The worst level of a side that has levels."""
    n = tree.sides[side].root
    while tree.nodes[n].height > 0:
        n = tree.nodes[n].refs[0]
    return tree.nodes[n].refs[0]  # type: ignore[no-any-return]


@bare_kernel
def clear(tree: Tree, side: int) -> None:
    """Every level of a side goes. O(nodes)."""
    nodes, pool = tree.nodes, tree.pool
    row = tree.sides[side]
    first = row.root
    while first >= 0:
        below = nodes[first].refs[0] if nodes[first].height > 0 else -1
        n = first
        while n >= 0:
            after = nodes[n].next
            if nodes[n].height == 0:
                for j in range(nodes[n].count):
                    ref = nodes[n].refs[j]
                    tree.levels[ref].head = pool[LEVELS_FREE]
                    pool[LEVELS_FREE] = ref
            _free_node(tree, n)
            n = after
        first = below
    pool[LEVELS_LIVE] -= row.levels
    row.root = -1
    row.top = -1
    row.best = -1
    row.levels = 0


@bare_kernel
def rescale(tree: Tree, side: int, price_factor: int, size_factor: int) -> None:
    """Multiply all prices and sizes of a side; the caller has seen that they fit int64."""
    nodes = tree.nodes
    first = tree.sides[side].root
    while first >= 0:
        n = first
        while n >= 0:
            node = nodes[n]
            # The last bound of an inner node is never read and may be anything.
            for j in range(node.count if node.height == 0 else node.count - 1):
                node.keys[j] *= price_factor
                if node.height == 0:
                    tree.levels[node.refs[j]].price *= price_factor
                    tree.levels[node.refs[j]].size *= size_factor
            n = node.next
        first = nodes[first].refs[0] if nodes[first].height > 0 else -1
