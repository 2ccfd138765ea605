"""Books to and from a compact form that does not depend on where things lie in the pools.

Levels from worst to best, side by side of book by book; orders level by level, oldest first. It is
what snapshots hold and what the state hash is taken of.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import levels, orders
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.schemas.kernel import bare_kernel

#: ``orders``: how many orders of the order array belong to it.
PACKED_LEVEL: Final = np.dtype(
    [
        ("price", "<i8"),
        ("size", "<i8"),
        ("side", "<i4"),
        ("count", "<i4"),
        ("orders", "<i4"),
        ("price_scale", "i1"),
        ("size_scale", "i1"),
        ("spare", "<i2"),
    ],
    align=True,
)
#: The three words of an order, and its IdKind.
PACKED_ORDER: Final = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("size", "<i8"), ("kind", "<i8")])


@bare_kernel
def measure(state: Array, books: Array) -> tuple[Word, Word]:
    """Live levels and orders of these books."""
    count = orders_count = 0
    for k in range(2 * len(books)):
        n = levels.side_row(state, 2 * books[k >> 1] + (k & 1)).top
        while n >= 0:
            node = levels.node_row(state, n)
            for j in range(node.count):
                i = levels.level_row(state, node.refs[j]).head
                while i >= 0:
                    orders_count += 1
                    i = orders.order_row(state, i).next
            count += node.count
            n = node.prev
    return count, orders_count


@bare_kernel
def pack(state: Array, books: Array, out_levels: Array, out_orders: Array) -> None:
    """Fill arrays that have exactly the live levels and orders of these books."""
    at_level = at_order = 0
    for k in range(2 * len(books)):
        side = 2 * books[k >> 1] + (k & 1)
        # Down to the worst leaf, then up along the chain.
        n = levels.side_row(state, side).root
        if n < 0:
            continue
        while levels.node_row(state, n).height > 0:
            n = levels.node_row(state, n).refs[0]
        while n >= 0:
            node = levels.node_row(state, n)
            for j in range(node.count):
                level = levels.level_row(state, node.refs[j])
                out = out_levels[at_level]
                out.price = level.price
                out.size = level.size
                out.side = side
                out.count = level.count
                out.price_scale = level.price_scale
                out.size_scale = level.size_scale
                first = at_order
                i = level.head
                while i >= 0:
                    order, packed = orders.order_row(state, i), out_orders[at_order]
                    packed.hi = order.hi
                    packed.lo = order.lo
                    packed.size = order.size
                    packed.kind = order.kind
                    at_order += 1
                    i = order.next
                out.orders = at_order - first
                at_level += 1
            n = node.next


@bare_kernel
def unpack(state: Array, in_levels: Array, in_orders: Array) -> None:
    """Build the levels and orders of an empty shard with enough room."""
    at_order = 0
    for k in range(len(in_levels)):
        packed = in_levels[k]
        side = packed.side
        key = -packed.price if side & 1 else packed.price
        leaf, slot, _ = levels.seek(state, side, key)
        ref = levels.insert(state, side, leaf, slot, key)
        level = levels.level_row(state, ref)
        for _ in range(packed.orders):
            row = in_orders[at_order]
            i = orders.add(state, row.hi, row.lo, row.kind, side >> 1, row.size)
            orders.enqueue(state, level, ref, i)
            at_order += 1
        level.size = packed.size
        level.count = packed.count
        level.price_scale = packed.price_scale
        level.size_scale = packed.size_scale
