"""Marks: which rows a writer was given, and which are in a store."""

from __future__ import annotations

import json

import numpy as np
import pytest

from marketflow.schemas.tables import TABLES
from marketflow.sinks.marks import Gapless, copied, from_json, highest, mark, of_shards, to_json
from tests.support.batches import Feed


def test_rows_come_once_and_without_gap() -> None:
    feed = Feed(np.random.default_rng(1))
    first, second, third = (feed.batch(TABLES["trades"], 7, 5) for _ in range(3))
    taken = Gapless()
    assert taken.advance("trades", 7, first) == (0, 5)
    for wrong in (first, third, first.slice(1)):
        with pytest.raises(AssertionError, match="trades, shard 7"):
            taken.advance("trades", 7, wrong)
    assert taken.advance("trades", 7, second) == (5, 10)
    assert taken.marks == {"trades": {7: 10}}


def test_only_a_writer_in_mid_history_begins_anywhere() -> None:
    feed = Feed(np.random.default_rng(1))
    feed.batch(TABLES["trades"], 7, 5)
    later = feed.batch(TABLES["trades"], 7, 5)
    with pytest.raises(AssertionError):
        Gapless().advance("trades", 7, later)
    midway = Gapless(midway=True)
    assert midway.advance("trades", 7, later) == (5, 10)
    with pytest.raises(AssertionError):
        midway.advance("trades", 7, later)


def test_marks_of_a_moment_stay() -> None:
    feed = Feed(np.random.default_rng(1))
    taken = Gapless()
    kept = {"trades": {7: 0}}
    taken.restore(kept)
    taken.advance("trades", 7, feed.batch(TABLES["trades"], 7, 5))
    before = copied(taken.marks)
    taken.advance("trades", 7, feed.batch(TABLES["trades"], 7, 5))
    assert (kept, before) == ({"trades": {7: 0}}, {"trades": {7: 5}})


def test_marks_of_several_writers() -> None:
    marks = highest([{"trades": {1: 5, 2: 9}}, {"trades": {2: 3, 3: 1}, "quotes": {1: 4}}])
    assert marks == {"trades": {1: 5, 2: 9, 3: 1}, "quotes": {1: 4}}
    assert of_shards(marks, lambda shard: shard != 1) == {"trades": {2: 9, 3: 1}, "quotes": {}}
    assert from_json(json.loads(json.dumps(to_json(marks)))) == marks
    assert [mark(marks, "trades", 2), mark(marks, "trades", 4), mark(marks, "bars", 1)] == [9, 0, 0]
