"""What the small flows around one sink have in common, that are there to be killed.

Like a real one such a flow repeats from its last snapshot, whose source position and sink state
are one file. Batches are cut anew, at random places, every time.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from marketflow.sinks.writer import Writer
from tests.support.batches import Feed, Item
from tests.support.chance import chance
from tests.support.patience import PATIENCE_S

ITEMS = 200
_SHARDS = 3


def items(rows: Mapping[str, int], count: int = ITEMS) -> list[Item]:
    """What every run of the flow computes: so many rows of each table an item."""
    feed = Feed(np.random.default_rng(99))
    return [feed.item(k % _SHARDS, dict(rows)) for k in range(count)]


def pieces(item: Item, most: int, luck: random.Random) -> list[Item]:
    """The item in batches of random sizes."""
    cut = luck.randint(1, most)
    return [
        Item(item.shard, {name: batch.slice(k, cut)})
        for name, batch in item.tables.items()
        for k in range(0, batch.num_rows, cut)
    ]


def run(
    writer: Writer, written: Sequence[Item], folder: Path, *, most: int, every: int, rest_s: float
) -> None:
    """The flow from its last snapshot to its end; a snapshot after ``every`` items."""
    snapshot = folder / "snapshot"
    position = 0
    if snapshot.is_file():
        position, state = pickle.loads(snapshot.read_bytes())
        writer.restore(state)
    luck = chance()
    print("ready", flush=True)
    for number in range(position, len(written)):
        for piece in pieces(written[number], most, luck):
            writer.write(piece)
        time.sleep(rest_s)
        if number % every == every - 1:
            temporary = folder / "snapshot.tmp"
            temporary.write_bytes(pickle.dumps((number + 1, writer.snapshot())))
            temporary.replace(snapshot)
    writer.snapshot()
    writer.close()


def killed(module: str, *arguments: str, kills: int, longest_s: float) -> int:
    """Start a flow's module, kill it and start it again, until it ends; the kills that hit it."""
    landed, luck = 0, chance()
    while True:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "TEST_SEED": str(luck.randrange(1 << 30))},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        if landed < kills:
            with suppress(subprocess.TimeoutExpired):
                # The first one surely: how long the rest takes is the machine's affair.
                child.wait(luck.uniform(0.0, longest_s) if landed else 0.0)
                return landed
            child.send_signal(signal.SIGKILL)
            child.communicate()
            landed += 1
            continue
        child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0
        return landed
