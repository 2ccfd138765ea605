"""The engine against its slow twin over seeded streams, row by row and however the input is cut."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.events import (
    BookType,
    ChecksumRule,
    Continuity,
    Instruments,
    SnapshotRule,
)
from marketflow.operators.events import (
    EventKind as K,
)
from marketflow.operators.instruments import BookRules
from marketflow.schemas.codes import QualityKind as Q
from tests.reference.book import TwinShard
from tests.support.books import T0, Script, batch, collect, instruments

CONFIG = BookConfig(snapshot_wait_ns=40_000)
ORDER_RULES = (
    BookRules(book_type=BookType.L3),
    BookRules(book_type=BookType.L3, snapshot_rule=SnapshotRule.PARTIAL, may_cross=True),
    BookRules(
        book_type=BookType.L3, snapshot_rule=SnapshotRule.IN_STREAM, continuity=Continuity.STEP_ONE
    ),
)
#: The market's own instrument, or a line's.
BOOKLESS = BookRules(book_type=BookType.NONE)
LEVEL_RULES = (
    BookRules(
        continuity=Continuity.FIRST_FOLLOWS, snapshot_rule=SnapshotRule.SPLICE, first_overlap=1
    ),
    BookRules(
        continuity=Continuity.PREVIOUS_EQUALS,
        snapshot_rule=SnapshotRule.SPLICE,
        first_overlap=1,
        bbo_tolerance=2,
    ),
    BookRules(continuity=Continuity.STEP_ONE, snapshot_rule=SnapshotRule.IN_STREAM, max_levels=4),
    BookRules(snapshot_rule=SnapshotRule.EVERY, continuity=Continuity.INCREASING),
    BookRules(continuity=Continuity.INCREASING, snapshot_rule=SnapshotRule.SPLICE),
    BookRules(may_cross=True),
    BookRules(snapshot_rule=SnapshotRule.IN_STREAM, checksum_rule=ChecksumRule.OKX),
)


def _price(rng: random.Random, side: int, spread: int) -> Any:
    mantissa = 10_000 + (-1 if side == 1 else 1) * rng.randint(-spread, 12)
    if rng.random() < 0.02:
        return 0
    scale = rng.choices([2, 1, 4, 0, 14, 9], [90, 3, 3, 2, 1, 0.3])[0]
    return mantissa * 10 ** (scale - 2) if scale > 2 else mantissa // 10 ** (2 - scale), scale


def _size(rng: random.Random, zero: float) -> Any:
    if rng.random() < zero:
        return 0
    scale = rng.choices([2, 0, 5, 12, 13], [90, 4, 4, 0.5, 0.2])[0]
    return rng.choice([rng.randint(1, 9), rng.randint(1, 9) * 100, 10**15]), scale


def _damaged(script: Script, rng: random.Random) -> Any:
    """The rows of a script; now and then the END of a group is lost."""
    rows = script.end().rows
    lost = [row["kind"] == K.END and rng.random() < 0.01 for row in rows]
    return rows[~np.array(lost)]


def _hole(script: Script, rng: random.Random, k: int, bookless: int) -> None:
    """A hole of the whole feed or of one instrument: given up, filled, or gone on from; or what
    a line does."""
    where, first = rng.choice([-1, -1, k, bookless]), rng.randint(1, 10**6)
    kinds = [[K.GAP, K.FILLED], [K.GAP, K.LOST], [K.GAP], [K.LOST], [K.FILLED], [K.LINE]]
    for kind in rng.choice(kinds):
        event = rng.choice([Q.LINE_DOWN, Q.LINE_LAGGING, Q.LINE_RECOVERED])
        script.row(
            kind, instrument=bookless if kind is K.LINE else where, order=first, extra=int(event),
            sequence=first + rng.randint(0, 9), size=rng.choice([0, 7]), flags=0,
            ts=rng.choice([script.ts, 0]),
        )  # fmt: skip


def order_script(seed: int, messages: int) -> tuple[Any, Instruments]:
    """L3 messages of every kind, known and unknown ids, groups of several rows, brackets."""
    rng = random.Random(seed)
    script, next_id = Script(), 1
    kinds = [K.ADD] * 10 + [K.DELETE] * 4 + [K.REDUCE, K.EXECUTE, K.REPLACE, K.MODIFY] * 2
    kinds += [K.ORDER_SIZE, K.TRADE]
    sequences = [0] * len(ORDER_RULES)
    for _ in range(messages):
        k = rng.randrange(len(ORDER_RULES))
        kind, side = rng.choice(kinds), rng.randint(1, 2)
        if rng.random() < 0.01:
            kind = rng.choice([K.CLEAR, K.CLOCK, K.DISCONNECT, K.BUST, K.CORRECTION])
            side = rng.randint(0, 2)
        if rng.random() < 0.01:
            _hole(script, rng, k, len(ORDER_RULES))
        if kind is K.ADD or rng.random() < 0.02:
            next_id += 1
        old = max(next_id - rng.randint(0, 25), 1)
        order = next_id if kind is K.ADD and rng.random() < 0.98 else old
        script.recv = rng.choice([0, script.ts, script.ts - 10**9])
        price, size = _price(rng, side, 1), _size(rng, 0.02)
        if k == 2 and kind in (K.ADD, K.DELETE, K.REDUCE, K.MODIFY, K.REPLACE, K.EXECUTE):
            snapshot = rng.random() < 0.04
            sequences[k] += rng.choices([1, 0, 2, -1], [95, 2, 2, 1])[0]
            own = None if kind is K.EXECUTE and rng.random() < 0.5 else price
            rows = [(kind, side, order, own, size, next_id + 1)]
            rows += [(K.ADD, side, next_id + 1, price, size)] * rng.randint(0, 1)
            next_id += 1
            script.group(
                instrument=k, last=sequences[k], snapshot=snapshot, orders=rows,
                late=rng.choice([0, 0, 0, 5000]),
            )  # fmt: skip
            continue
        own_price = kind in (K.ADD, K.MODIFY, K.REPLACE, K.TRADE) or rng.random() < 0.3
        if kind is K.REPLACE:
            next_id += 1
        script.row(
            kind, instrument=k, side=side, order=order, price=price if own_price else None,
            size=size, trade=next_id if kind is K.REPLACE else rng.randint(1, 40),
            sequence=rng.choice([None, 7]), flags=rng.choices([1, 0, 3], [80, 15, 5])[0],
            extra=int(rng.random() < 0.2), ts=script.ts - rng.choice([0, 0, 0, 3000]),
        )  # fmt: skip
    return _damaged(script, rng), instruments(*ORDER_RULES, BOOKLESS)


def level_script(seed: int, messages: int) -> tuple[Any, Instruments]:
    """L2 groups with gaps, repetitions, snapshots new and old, venue quotes, outages."""
    rng = random.Random(seed)
    script = Script()
    last = [rng.randint(1, 50) for _ in LEVEL_RULES]
    for _ in range(messages):
        k = rng.randrange(len(LEVEL_RULES))
        script.recv = rng.choice([0, script.ts + 10, script.ts - 10**9])
        if rng.random() < 0.01:
            _hole(script, rng, k, len(LEVEL_RULES))
        chance = rng.random()
        if chance < 0.03:
            script.row(K.DISCONNECT, instrument=rng.choice([k, k, -1]), ts=rng.choice([0, None]))
            continue
        if chance < 0.1:
            quote = [(_price(rng, s, 1), _size(rng, 0.1)) for s in (1, 2)]
            script.quote(
                *[q if rng.random() < 0.95 else None for q in quote], instrument=k,
                sequence=rng.choice([None, last[k], last[k] - 1]),
            )  # fmt: skip
            continue
        if chance < 0.14:
            script.row(
                K.TRADE, instrument=k, side=rng.randint(0, 2), price=_price(rng, 1, 1),
                size=_size(rng, 0), trade=rng.randint(1, 9), ts=T0,
            )  # fmt: skip
            continue
        if chance < 0.18:
            side = rng.randint(1, 2)
            script.row(
                K.LEVEL, instrument=k, side=side, price=_price(rng, side, 0),
                size=_size(rng, 0.3), count=rng.randint(0, 3), flags=rng.choice([0, 1, 1]),
            )  # fmt: skip
            continue
        snapshot = chance < 0.28
        step = rng.choices([1, 3, 0, -2], [80, 12, 5, 3])[0]
        before, skipped = last[k], rng.choices([0, 2], [95, 5])[0]
        last[k] += step + skipped
        levels = []
        for _ in range(rng.randint(0, 6)):
            side = rng.randint(1, 2)
            spread = rng.choices([-1, 1], [98, 2])[0]
            size = _size(rng, 0 if snapshot else 0.4)
            levels.append((side, _price(rng, side, spread), size, rng.randint(0, 3)))
        known = rng.random() < 0.97
        script.group(
            levels, instrument=k, snapshot=snapshot,
            first=before + skipped + 1 if known else None,
            last=last[k] - (rng.choice([0, 0, 4]) if snapshot else 0) if known else None,
            previous=before + skipped if known else None,
            checksum=rng.choice([None] * 20 + [5]) if k == 6 else None,
            late=rng.choice([0, 0, 0, 5000]),
        )  # fmt: skip
    return _damaged(script, rng), instruments(*LEVEL_RULES, BOOKLESS)


SCRIPTS = {"orders": order_script, "levels": level_script}


def _run(rows: Any, names: Instruments, config: BookConfig, cuts: list[int]) -> Any:
    shard = BookShard(0, config)
    bounds = [0, *cuts, len(rows)]
    parts = [rows[a:b] for a, b in pairwise(bounds)]
    return collect([shard.apply(batch(part, names)) for part in parts]), shard


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        rows, expected = found.get(name, []), wanted.get(name, [])
        for i, (row, other) in enumerate(zip(rows, expected, strict=False)):
            assert row == other, f"{name} {i}"
        assert len(rows) == len(expected), name


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("seed", range(12))
def test_engine_equals_twin(kind: str, seed: int) -> None:
    rows, names = SCRIPTS[kind](seed, 1200)
    config = replace(CONFIG, depth_interval_ns=5000) if seed % 4 == 3 else CONFIG
    found, _ = _run(rows, names, config, [])
    _same(found, TwinShard(config).apply(rows, names))


@pytest.mark.parametrize("kind", SCRIPTS)
@given(data=st.data())
def test_cuts_and_restores_change_nothing(kind: str, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 50), "seed")
    rows, names = SCRIPTS[kind](seed, 250)
    n = len(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=12), "cuts"))
    whole, shard = _run(rows, names, CONFIG, [])
    wanted_hash = shard.state_hash()
    parts, results, shard = [0, *cuts, n], [], BookShard(0, CONFIG)
    for a, b in pairwise(parts):
        if data.draw(st.booleans(), "restore"):
            saved = pickle.dumps(shard.snapshot())
            shard = BookShard(0, CONFIG)
            shard.restore(pickle.loads(saved))
        results.append(shard.apply(batch(rows[a:b], names)))
    _same(collect(results), whole)
    assert shard.state_hash() == wanted_hash


@pytest.mark.parametrize("kind", SCRIPTS)
def test_tables_do_not_depend_on_which_others_are_asked_for(kind: str) -> None:
    rows, names = SCRIPTS[kind](99, 600)
    whole, _ = _run(rows, names, CONFIG, [])
    for tables in ({"trades", "quotes"}, {"depth"}, {"book_events"}, {"quality_events"}, set()):
        found, _ = _run(rows, names, replace(CONFIG, tables=frozenset(tables)), [])
        # A trade that cannot be made is a dead letter only where trades are asked for.
        letters = {"dead_letters"} if "trades" in tables else set()
        found = {n: made for n, made in found.items() if letters or n != "dead_letters"}
        _same(found, {n: whole[n] for n in tables | letters if n in whole})


def test_row_by_row_equals_at_once() -> None:
    rows, names = level_script(5, 150)
    whole, shard = _run(rows, names, CONFIG, [])
    single, other = _run(rows, names, CONFIG, list(range(1, len(rows))))
    _same(single, whole)
    assert shard.state_hash() == other.state_hash()
