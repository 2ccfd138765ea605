"""Splitting a run of event rows by shard, in feed order, in two passes over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.kernel import kernel


@kernel
def split_rows(
    rows: NDArray[Any],
    shard_of: NDArray[np.int32],
    active: NDArray[np.bool_],
    starts: NDArray[np.int64],
) -> NDArray[Any]:
    """Rows regrouped by shard, order within a shard kept.

    ``shard_of[instrument]`` is the shard, or -1 for shards another process keeps. A row of
    instrument -1 concerns everybody and is copied to every ``active`` shard. ``starts`` has one
    element more than there are shards; shard s gets ``result[starts[s]:starts[s + 1]]``.
    """
    shards = len(active)
    counts = np.zeros(shards + 1, np.int64)
    everybody = 0
    for i in range(len(rows)):
        instrument = rows[i].instrument
        if instrument < 0:
            everybody += 1
        else:
            shard = shard_of[instrument]
            if shard >= 0:
                counts[shard] += 1
    total = 0
    for shard in range(shards):
        starts[shard] = total
        total += counts[shard] + (everybody if active[shard] else 0)
    starts[shards] = total
    result = np.empty(total, rows.dtype)
    next_row = starts[:shards].copy()
    for i in range(len(rows)):
        instrument = rows[i].instrument
        if instrument < 0:
            for shard in range(shards):
                if active[shard]:
                    result[next_row[shard]] = rows[i]
                    next_row[shard] += 1
        else:
            shard = shard_of[instrument]
            if shard >= 0:
                result[next_row[shard]] = rows[i]
                next_row[shard] += 1
    return result
