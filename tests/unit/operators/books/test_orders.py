"""The order store: its hash table against a dictionary, however ids are spread; queues."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from marketflow.operators.books.kernels import orders
from marketflow.operators.kernels.arrays import Pools
from marketflow.schemas.kernel import bare_kernel

KINDS = {
    "sequential": lambda rng, n: (0, n, 1, 0),
    "in steps of a power of two": lambda rng, n: (0, n << 20, 1, 0),
    "numbered per book": lambda rng, n: (0, n // 50, 1, n % 50),
    "random 128 bits": lambda rng, n: (rng.getrandbits(64), rng.getrandbits(64), 2, n % 3),
    "high half only": lambda rng, n: (n, 0, 4, 1),
}


@bare_kernel
def add(state: Any, hi: Any, lo: Any, kind: Any, book: Any, size: Any) -> Any:
    return orders.add(state, hi, lo, kind, book, size)


@bare_kernel
def find(state: Any, hi: Any, lo: Any, kind: Any, book: Any) -> Any:
    return orders.find(state, hi, lo, kind, book)


@bare_kernel
def forget(state: Any, i: Any) -> None:
    orders.forget(state, i)


def _words(key: tuple[int, int, int, int]) -> tuple[Any, ...]:
    return np.uint64(key[0]), np.uint64(key[1]), np.int64(key[2]), np.int64(key[3])


@pytest.mark.parametrize("kind", KINDS)
def test_table_equals_a_dictionary(kind: str) -> None:
    rng = random.Random(11)
    pools = Pools(np.zeros(32, np.int64), orders.POOLS)
    orders.start(pools, 64)
    known: dict[tuple[int, int, int, int], int] = {}
    gone: list[tuple[int, int, int, int]] = []
    for n in range(6000):
        if known and rng.random() < (0.6 if len(known) > 500 else 0.42):
            key = rng.choice(list(known)) if rng.random() < 0.3 else next(iter(known))
            forget(pools.state, known.pop(key))
            gone.append(key)
        else:
            key = KINDS[kind](rng, n)
            if len(known) == len(pools["orders"]):
                orders.more_orders(pools, 2 * len(pools["orders"]))
            known[key] = add(pools.state, *_words(key), np.int64(n))
        if n % 500 == 0:
            assert all(find(pools.state, *_words(k)) == i for k, i in known.items())
            missing = [k for k in gone[-200:] if k not in known]
            assert all(find(pools.state, *_words(k)) == -1 for k in missing)
    assert pools.state[orders.ORDERS_LIVE] == len(known)
    assert np.count_nonzero(pools["slots"]) == len(known)  # no tombstones
    assert len(pools["orders"]) <= 1024


def test_runs_stay_short() -> None:
    """At the fullest, half of the slots, an order is a few slots from its home, for any ids."""
    for kind, make in KINDS.items():
        rng = random.Random(1)
        pools = Pools(np.zeros(32, np.int64), orders.POOLS)
        orders.start(pools, 4096)
        for n in range(4096):
            add(pools.state, *_words(make(rng, n)), np.int64(1))
        slots = pools["slots"]
        taken = np.flatnonzero(slots)
        homes = (slots[taken] >> np.uint64(32)).astype(np.int64) % len(slots)
        away = (taken - homes) % len(slots)
        assert away.mean() < 6, kind
        assert away.max() < 200, kind
