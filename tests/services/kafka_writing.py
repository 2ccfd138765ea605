"""A small flow around the Kafka sink, to be killed: ``python -m``, with BROKERS, PREFIX, FOLDER and
optionally a format.

Like a real one it repeats from its last snapshot, whose source position and sink state are one
file. Batches are cut anew, at random places, every time.
"""

from __future__ import annotations

import pickle
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sinks.kafka import KafkaWriter
from sinks.kafka_url import parse_kafka_sink
from tests.batches import Feed, Item
from tests.services.topics import plain

ITEMS = 200
ROWS = {"quotes": 60, "trades": 25, "dead_letters": 1}
_SHARDS = 3


def items(count: int = ITEMS) -> list[Item]:
    """What every run of the flow computes."""
    feed = Feed(np.random.default_rng(99))
    return [feed.item(k % _SHARDS, ROWS) for k in range(count)]


def pieces(item: Item) -> list[Item]:
    """The item in batches of random sizes."""
    cut = random.randint(1, 80)
    return [
        Item(item.shard, {name: batch.slice(k, cut)})
        for name, batch in item.tables.items()
        for k in range(0, batch.num_rows, cut)
    ]


def expected(count: int = ITEMS) -> dict[str, list[dict[str, Any]]]:
    """Every row of the first ``count`` items by table, in the order of its identity."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    for item in items(count):
        for name, batch in item.tables.items():
            rows[name] += plain(batch)
    return {
        name: sorted(found, key=lambda row: (row["shard"], row["row_sequence"]))
        for name, found in rows.items()
    }


def sink(brokers: str, prefix: str, query: str = "", run: str | None = "run-1") -> KafkaWriter:
    """The writer of a run with this recovery identity."""
    return KafkaWriter(parse_kafka_sink(f"kafka://{brokers}/{prefix}{query}"), "w0", run)


def main() -> None:
    brokers, prefix, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    query = f"?commit_ms=5&format={sys.argv[4]}" if len(sys.argv) > 4 else "?commit_ms=5"
    writer = sink(brokers, prefix, query)
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
        time.sleep(0.002)
        if number % 23 == 22:
            temporary = folder / "snapshot.tmp"
            temporary.write_bytes(pickle.dumps((number + 1, writer.snapshot())))
            temporary.replace(snapshot)
    writer.snapshot()
    writer.close()


if __name__ == "__main__":
    main()
