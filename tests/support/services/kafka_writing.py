"""A small flow around the Kafka sink: ``python -m``, with BROKERS, PREFIX, FOLDER and optionally a
format."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from marketflow.sinks.kafka.config import KafkaConfig
from marketflow.sinks.kafka.writer import KafkaWriter
from tests.support.batches import Item
from tests.support.services import small_flow
from tests.support.services.small_flow import ITEMS
from tests.support.services.topics import plain

ROWS = {"quotes": 60, "trades": 25, "dead_letters": 1}
_MOST = 80


def items(count: int = ITEMS) -> list[Item]:
    """What every run of the flow computes."""
    return small_flow.items(ROWS, count)


def pieces(item: Item, luck: random.Random) -> list[Item]:
    """The item in batches of random sizes."""
    return small_flow.pieces(item, _MOST, luck)


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
    return KafkaWriter(KafkaConfig.parse(f"kafka://{brokers}/{prefix}{query}"), "w0", run)


def main() -> None:
    brokers, prefix, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    query = f"?commit_ms=5&format={sys.argv[4]}" if len(sys.argv) > 4 else "?commit_ms=5"
    writer = sink(brokers, prefix, query)
    small_flow.run(writer, items(), folder, most=_MOST, every=23, rest_s=0.002)


if __name__ == "__main__":
    main()
