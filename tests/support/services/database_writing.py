"""A small flow around the database sink: ``python -m``, with DSN and FOLDER."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from marketflow.sinks.timescale.config import TimescaleOptions
from marketflow.sinks.timescale.writer import TimescaleWriter
from tests.support.batches import Item
from tests.support.patience import PATIENCE_S
from tests.support.services import small_flow

_ROWS = {"quotes": 120, "trades": 40, "depth": 10, "dead_letters": 1}
_MOST = 150
OPTIONS = TimescaleOptions(flush_rows=500, flush_after_s=1e9, stall_s=2.0, outage_s=PATIENCE_S)


def items(count: int = small_flow.ITEMS) -> list[Item]:
    """What every run of the flow computes."""
    return small_flow.items(_ROWS, count)


def pieces(item: Item, luck: random.Random) -> list[Item]:
    """The item in batches of random sizes."""
    return small_flow.pieces(item, _MOST, luck)


def main() -> None:
    writer = TimescaleWriter(sys.argv[1], recovery="killed", options=OPTIONS)
    small_flow.run(writer, items(), Path(sys.argv[2]), most=_MOST, every=7, rest_s=0.0)


if __name__ == "__main__":
    main()
