"""Feeds merged in order of time: whatever the times, the batches and the waits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.schemas.messages import frame_batches as framing
from marketflow.sources.kafka.merge import FeedFrames, Merge

Times = list[int]


def _frames(offset: int, times: Times) -> pa.RecordBatch:
    offsets = np.arange(offset, offset + len(times), dtype=np.int64)
    payload = pa.array([b"x"] * len(times), pa.large_binary())
    return framing.batch(offsets, payload, ts_recv=np.array(times, np.int64))


class _Feed:
    """Batches of these times; an empty one is a moment without messages."""

    def __init__(self, batches: list[Times]) -> None:
        self._batches = list(batches)
        self._offset = 0

    def read(self) -> pa.RecordBatch | None:
        if not self._batches:
            return None
        times = self._batches.pop(0)
        self._offset += len(times)
        return _frames(self._offset - len(times), times)


def _slices(feeds: list[list[Times]], slice_rows: int) -> list[list[FeedFrames]]:
    merge = Merge([_Feed(batches) for batches in feeds], slice_rows)
    found = []
    for _ in range(1000):
        if merge.fill() is not None:
            found.append(merge.emit())
        elif merge.over:
            return found
    raise AssertionError("the merge does not end")


def _counted_as(batches: list[Times]) -> Times:
    """A frame counts as of the latest time up to it."""
    flat = [time for batch in batches for time in batch]
    return np.maximum.accumulate(flat).tolist() if flat else []


_FEEDS = st.lists(st.lists(st.lists(st.integers(0, 30), max_size=5), max_size=5), max_size=4)


@given(_FEEDS, st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_slices_are_in_order_and_complete(feeds: list[list[Times]], slice_rows: int) -> None:
    slices = _slices(feeds, slice_rows)
    seen: list[list[int]] = [[] for _ in feeds]
    before = -1
    for pieces in slices:
        times = []
        for feed, frames in pieces:
            assert 0 < frames.num_rows <= slice_rows
            offsets = frames.column("offset").to_pylist()
            seen[feed] += offsets
            times += [_counted_as(feeds[feed])[offset] for offset in offsets]
        assert min(times) >= before
        before = max(times)
    assert seen == [list(range(sum(map(len, batches)))) for batches in feeds]


def test_nothing_is_emitted_before_every_feed_has_something() -> None:
    merge = Merge([_Feed([[1, 2]]), _Feed([[], [5]])])
    assert merge.fill() is None
    assert merge.fill() == 1
    assert [(feed, f.num_rows) for feed, f in merge.emit()] == [(0, 2)]


def test_what_is_not_due_stays() -> None:
    merge = Merge([_Feed([[10, 20, 30]]), _Feed([[15, 40]])])
    assert merge.fill() == 10
    assert [(feed, f.num_rows) for feed, f in merge.emit(20)] == [(0, 2), (1, 1)]
    assert merge.fill() == 30
