"""The price-level tree against sorted dictionaries, its shape, and what it costs when deep."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.books.kernels import levels
from marketflow.operators.books.kernels.levels import FANOUT, LEVELS_LIVE, NODES_LIVE
from marketflow.operators.kernels.arrays import Pools
from marketflow.schemas.kernel import bare_kernel


@bare_kernel
def run(state: Any, side: Any, prices: Any) -> None:
    """Each price in turn: put it if it is not there (size = price), else take it out."""
    for price in prices:
        key = -price if side & 1 else price
        leaf, slot, ref = levels.seek(state, side, key)
        if ref < 0:
            ref = levels.insert(state, side, leaf, slot, key)
            levels.level_row(state, ref).size = price
        else:
            levels.remove(state, side, leaf, slot)


@bare_kernel
def read(state: Any, side: Any, out: Any) -> Any:
    """Prices best first; how many. Every level is found by seek, with the size it was given."""
    found = 0
    n = levels.side_row(state, side).top
    while n >= 0:
        node = levels.node_row(state, n)
        for j in range(node.count - 1, -1, -1):
            level = levels.level_row(state, node.refs[j])
            key = -level.price if side & 1 else level.price
            leaf, slot, ref = levels.seek(state, side, key)
            good = leaf == n and slot == j and ref == node.refs[j] and level.side == side
            out[found] = level.price if good and level.size == level.price else -1
            found += 1
        n = node.prev
    return found


@bare_kernel
def steps(state: Any, side: Any, prices: Any) -> Any:
    """Most nodes that a search for one of the prices visits."""
    most = 0
    for price in prices:
        visited, n = 1, levels.side_row(state, side).root
        while levels.node_row(state, n).height > 0:
            node, slot = levels.node_row(state, n), 0
            while slot < node.count - 1 and node.keys[slot] < price:
                slot += 1
            n = node.refs[slot]
            visited += 1
        most = max(most, visited)
    return most


@bare_kernel
def clear(state: Any, side: Any) -> None:
    levels.clear(state, side)


@bare_kernel
def rescale(state: Any, side: Any, price_factor: Any, size_factor: Any) -> None:
    levels.rescale(state, side, price_factor, size_factor)


@bare_kernel
def worst(state: Any, side: Any) -> Any:
    return levels.level_row(state, levels.worst(state, side)).price


def new_pools(room: int = 4096) -> Pools:
    pools = Pools(np.zeros(16, np.int64), levels.POOLS)
    levels.start(pools, 4, room, room)
    return pools


def prices_of(pools: Pools, side: int) -> list[int]:
    out = np.zeros(len(pools["levels"]) + 1, np.int64)
    return out[: read(pools.state, side, out)].tolist()


def check_shape(pools: Pools, side: int) -> None:
    """Links, counts and bounds of a whole tree; no node that its neighbour could have taken in."""
    root = int(pools["sides"][side]["root"])
    if root < 0:
        return
    nodes = pools["nodes"]

    def visit(n: int, parent: int, height: int) -> list[int]:
        node = nodes[n]
        assert (node["parent"], node["height"]) == (parent, height)
        assert 0 < node["count"] <= FANOUT or parent < 0
        if height == 0:
            keys = node["keys"][: node["count"]].tolist()
            assert keys == sorted(set(keys))
            return keys
        all_keys: list[int] = []
        for j, child in enumerate(node["refs"][: node["count"]].tolist()):
            keys = visit(child, n, height - 1)
            assert j == 0 or keys[0] > node["keys"][j - 1]
            assert j == node["count"] - 1 or keys[-1] <= node["keys"][j]
            all_keys += keys
        return all_keys

    keys = visit(root, -1, int(nodes[root]["height"]))
    assert len(keys) == pools["sides"][side]["levels"]


@pytest.mark.parametrize("side", [0, 1])
@given(st.lists(st.integers(1, 200), max_size=600))
def test_equals_a_sorted_set(side: int, prices: list[int]) -> None:
    pools, wanted = new_pools(), set()
    run(pools.state, side, np.array(prices, np.int64))
    for price in prices:
        wanted ^= {price}
    assert prices_of(pools, side) == sorted(wanted, reverse=not side)
    check_shape(pools, side)
    assert pools.state[LEVELS_LIVE] == len(wanted)
    if wanted:
        best = pools["sides"][side]["best"]
        assert pools["levels"][best]["price"] == (min if side else max)(wanted)
        assert worst(pools.state, side) == (max if side else min)(wanted)


@pytest.mark.parametrize("order", ["up", "down", "random"])
def test_a_hundred_thousand_levels(order: str) -> None:
    """300,000 operations on one side, deep and shallow, and no search is longer than the height."""
    n = 100_000
    rng = random.Random(7)
    prices = list(range(1, n + 1))
    if order == "random":
        rng.shuffle(prices)
    elif order == "down":
        prices.reverse()
    pools = new_pools(1 << 17)
    run(pools.state, 0, np.array(prices, np.int64))
    assert prices_of(pools, 0) == list(range(n, 0, -1))
    check_shape(pools, 0)
    assert steps(pools.state, 0, np.arange(1, n + 1, 97)) <= 7
    churn = np.array([rng.randint(1, n) for _ in range(100_000)], np.int64)
    run(pools.state, 0, churn)
    run(pools.state, 0, churn[::-1].copy())
    check_shape(pools, 0)
    assert prices_of(pools, 0) == list(range(n, 0, -1))
    assert pools.state[NODES_LIVE] <= n // 6


def test_memory_follows_the_levels_not_the_history() -> None:
    """A best price that wanders for long, leaving a level here and there, leaves few nodes."""
    rng = random.Random(3)
    pools, kept = new_pools(1 << 14), set()
    price = 10**6
    for _ in range(40):
        price += rng.randint(-500, 600)
        near = [price + rng.randint(0, 400) for _ in range(300)]
        run(pools.state, 0, np.array(near, np.int64))
        for p in near:
            kept ^= {p}
        gone = [p for p in kept if rng.random() < 0.85]
        run(pools.state, 0, np.array(gone, np.int64))
        kept -= set(gone)
        check_shape(pools, 0)
        assert pools.state[NODES_LIVE] <= len(kept) // 4 + 3
    assert set(prices_of(pools, 0)) == kept


def test_sides_share_pools_and_clear_gives_all_back() -> None:
    pools = new_pools()
    for side in range(4):
        run(pools.state, side, np.arange(1, 300 + side, dtype=np.int64))
    for side in (2, 0, 3, 1):
        clear(pools.state, side)
        assert prices_of(pools, side) == []
        assert pools["sides"][side].tolist() == (-1, -1, -1, 0)
    assert (pools.state[LEVELS_LIVE], pools.state[NODES_LIVE]) == (0, 0)
    used = pools.state[levels.NODES_USED]
    run(pools.state, 1, np.arange(1, 300, dtype=np.int64))
    assert pools.state[levels.NODES_USED] == used


@pytest.mark.parametrize("side", [0, 1])
def test_rescale_keeps_the_order_and_the_search(side: int) -> None:
    pools = new_pools()
    prices = np.arange(-40, 400, dtype=np.int64)
    run(pools.state, side, prices)
    run(pools.state, side, prices[::3].copy())
    left = sorted(set(prices.tolist()) - set(prices[::3].tolist()), reverse=not side)
    rescale(pools.state, side, 1000, 1000)
    assert prices_of(pools, side) == [p * 1000 for p in left]
    check_shape(pools, side)
    run(pools.state, side, np.array([p * 1000 + 1 for p in left[:100]], np.int64))
    check_shape(pools, side)
