"""A second flow, of two steps: numbers the frames of each feed, and sums their bytes by shard.

Named as ``tests.support.counting:COUNTING``, here and by the processes of its runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bytewax.dataflow import Dataflow
from numpy.typing import NDArray
from pydantic import Field

from marketflow.flows.catalogue import FlowSpec, Start
from marketflow.flows.settings import Settings
from marketflow.operators.engine import core_step
from marketflow.operators.events import Rows
from marketflow.operators.mid_history import is_shown
from marketflow.schemas.derived import arrow
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.shards import ShardPlan, own_shard
from marketflow.schemas.tables.market_data import STATISTICS

FLOW: Final = "tests.support.counting:COUNTING"


class CountingSettings(Settings):
    """Settings of counting."""

    weight: int = Field(1, ge=1, description="what a byte counts")


class Part(NamedTuple):
    """Frames of one shard."""

    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    times: NDArray[np.int64]
    sizes: NDArray[np.int64]


class Sorted(NamedTuple):
    """Frames by shard, and how many there were."""

    parts: list[tuple[int, Part]]
    feed: Rows

    def silenced(self) -> Sorted:
        return Sorted(self.parts, self.feed.silenced())


class Sorter:
    """Gives every frame of a feed its number, which says its shard."""

    def __init__(self, plan: ShardPlan) -> None:
        self._plan = plan
        self._number = 0

    def apply(self, frames: pa.RecordBatch) -> Sorted:
        data = frames.filter(pc.not_equal(frames.column("kind"), int(FrameKind.END)))
        offsets, times = (data.column(n).to_numpy() for n in ("offset", "ts_recv"))
        sizes = pc.binary_length(data.column("payload")).to_numpy()
        numbers = self._number + np.arange(data.num_rows)
        self._number += data.num_rows
        locals_ = numbers % self._plan.shards_per_feed
        parts = []
        for local in filter(self._plan.keeps, range(self._plan.shards_per_feed)):
            mine = locals_ == local
            if mine.any():
                part = Part(offsets[mine], numbers[mine], times[mine], sizes[mine])
                parts.append((self._plan.index(local), part))
        stats = {"messages": data.num_rows} if self._plan.keeps_feed else {}
        return Sorted(parts, Rows(own_shard(self._plan.number), {}, stats))

    def snapshot(self) -> Any:
        return self._number

    def restore(self, state: Any, *changes: Any) -> None:
        self._number = state


class Counter:
    """A row per frame: the bytes of its shard so far."""

    def __init__(self, shard: int, weight: int) -> None:
        self._shard, self._weight = shard, weight
        self._rows = self._bytes = 0

    def apply(self, part: Part) -> Rows:
        count = len(part.sizes)
        sums = self._bytes + np.cumsum(part.sizes) * self._weight
        made = {
            "shard": pa.array(np.full(count, self._shard)),
            "row_sequence": pa.array(np.arange(self._rows, self._rows + count)),
            "ts_event": pa.array(part.times),
            "ts_recv": pa.array(part.times),
            "venue": pa.array(["COUNTED"] * count),
            "symbol": pa.array(["FRAMES"] * count),
            "kind": pa.array(["bytes"] * count),
            "value": pa.nulls(count),
            "text": pa.array([str(total) for total in sums]),
            "sequence": pa.array(part.numbers),
        }
        schema = arrow.schema(STATISTICS)
        columns = [made[field.name].cast(field.type) for field in schema]
        self._rows, self._bytes = self._rows + count, int(sums[-1])
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        return Rows(self._shard, {STATISTICS.name: batch}, {"counted": self._rows})

    def snapshot(self) -> Any:
        return (self._rows, self._bytes)

    def restore(self, state: Any, *changes: Any) -> None:
        self._rows, self._bytes = state


@dataclass(frozen=True)
class Config:
    """What makes the cores."""

    sort: Callable[[int], Any]
    count: Callable[[int], Any]


def make_config(start: Start) -> Config:
    """What makes the cores of one process."""
    assert isinstance(start.settings, CountingSettings)
    weight = start.settings.weight
    return Config(
        start.cores("sort", lambda feed: Sorter(start.plan(feed))),
        start.cores("count", lambda index: Counter(start.shard(index), weight)),
    )


def build(source: Any, sink: Any, config: Config) -> Dataflow:
    """Frames -> frames by shard -> rows."""
    flow = Dataflow("counting")
    frames = op.map("sort_feed", op.input("feed", flow, source), _with_feed)
    done = core_step("sort", frames, config.sort)
    parts = op.flat_map("sort_by_shard", done, _by_shard)
    counted = core_step("count", parts, config.count)
    feed_rows = op.map("sort_rows", done, lambda result: result.feed)
    rows = op.filter("shown", op.merge("merged", counted, feed_rows), is_shown)
    op.output("sinks", op.key_on("one_writer", rows, lambda _: "0"), sink)
    return flow


def _with_feed(item: tuple[str, pa.RecordBatch]) -> tuple[str, tuple[int, pa.RecordBatch]]:
    return item[0], (int(item[0]), item[1])


def _by_shard(result: Sorted) -> list[tuple[str, tuple[int, Part]]]:
    return [(str(shard), (shard, part)) for shard, part in result.parts]


COUNTING: Final = FlowSpec(
    name="counting",
    build=build,
    config=make_config,
    by_feed=("sort",),
    by_shard=("count",),
    tables={STATISTICS.name: STATISTICS},
    settings=CountingSettings,
    levels=frozenset({"counted"}),
    clock=STATISTICS.name,
)
