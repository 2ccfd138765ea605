"""A small flow around the database sink, to be killed: ``python -m``, with DSN and FOLDER.

Like a real one it repeats from its last snapshot, whose source position and sink state are one
file. Batches are cut anew, at random places, every time.
"""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path

import numpy as np

from sinks.timescale import TimescaleOptions, TimescaleWriter
from tests.batches import Feed, Item

ITEMS = 200
_ROWS = {"quotes": 120, "trades": 40, "depth": 10, "dead_letters": 1}
_SHARDS = 3
OPTIONS = TimescaleOptions(flush_rows=500, flush_after_s=1e9, stall_s=2.0, outage_s=60.0)


def items(count: int = ITEMS) -> list[Item]:
    """What every run of the flow computes."""
    feed = Feed(np.random.default_rng(99))
    return [feed.item(k % _SHARDS, _ROWS) for k in range(count)]


def pieces(item: Item) -> list[Item]:
    """The item in batches of random sizes."""
    cut = random.randint(1, 150)
    return [
        Item(item.shard, {name: batch.slice(k, cut)})
        for name, batch in item.tables.items()
        for k in range(0, batch.num_rows, cut)
    ]


def main() -> None:
    dsn, folder = sys.argv[1], Path(sys.argv[2])
    writer = TimescaleWriter(dsn, recovery="killed", options=OPTIONS)
    snapshot = folder / "snapshot"
    position = 0
    if snapshot.is_file():
        position, state = pickle.loads(snapshot.read_bytes())
        writer.restore(state)
    written = items()
    print("ready", flush=True)
    for number in range(position, ITEMS):
        for piece in pieces(written[number]):
            writer.write(piece)
        if number % 7 == 0:
            temporary = folder / "snapshot.tmp"
            temporary.write_bytes(pickle.dumps((number + 1, writer.snapshot())))
            temporary.replace(snapshot)
    writer.snapshot()
    writer.close()


if __name__ == "__main__":
    main()
