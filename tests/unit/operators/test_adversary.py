"""Input that means harm: whatever it is, it becomes rows or dead letters, and the flow goes on."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketflow.flows.market_data import decoders as feeds
from marketflow.operators.bars.core import BarsConfig, BarsShard
from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.normalise.core import Normaliser, ShardPlan
from marketflow.operators.normalise.feed import FeedDecoder, JsonFeed
from marketflow.operators.venues import VENUES
from marketflow.operators.venues.binance.feed import BinanceFeed
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.errors import SourceError
from marketflow.sources.reader import Limits
from marketflow.sources.registry import parse_source
from tests.support import adversary
from tests.support.captures import TestFrame, frames
from tests.support.command import marketflow
from tests.support.decoding import cut, frames_of
from tests.support.lakes import table_rows

URLS = ("https://h/depth?symbol=X", "wss://h/book", "", "x" * 3000, "https://h/symbols?\x00")
TIMES = [adversary.NOW_NS] * 8 + [0, 1, -1, 2**63 - 1, -(2**63), 9 * 10**18]


class Core:
    """The flow without its edges: normalise, books and bars of one feed, restarted at will."""

    def __init__(self, make: Callable[[], FeedDecoder]) -> None:
        self._make = make
        self._normaliser = self._new()
        self._books: dict[int, BookShard] = {}
        self._bars: dict[int, BarsShard] = {}
        self.letters: list[dict[str, Any]] = []

    def _new(self) -> Normaliser:
        return Normaliser("feed", self._make(), ShardPlan(0))

    def apply(self, batch: pa.RecordBatch) -> None:
        """One batch all the way."""
        parts, feed = self._normaliser.apply(batch)
        self._keep(feed.tables)
        for shard, events in parts:
            if shard not in self._books:
                self._books[shard] = BookShard(shard, BookConfig())
                self._bars[shard] = BarsShard(BarsConfig(("1s", "1d")))
            rows = self._books[shard].apply(events)
            self._keep(rows.tables)
            self._keep(self._bars[shard].apply(rows).tables)

    def _keep(self, tables: dict[str, pa.RecordBatch]) -> None:
        for name, rows in tables.items():
            rows.validate(full=True)
            if name == "dead_letters":
                self.letters += rows.drop_columns(["ts_recv"]).to_pylist()

    def restart(self) -> None:
        """Normalise is given up and taken back from its snapshot."""
        state = pickle.loads(pickle.dumps(self._normaliser.snapshot()))
        self._normaliser = self._new()
        self._normaliser.restore(state)


def through(make: Callable[[], FeedDecoder], batches: list[pa.RecordBatch]) -> Core:
    """All batches through the core, with a restart after each."""
    core = Core(make)
    for batch in batches:
        core.apply(batch)
        core.restart()
    return core


@pytest.mark.parametrize("exchange", sorted(VENUES))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_message_of_a_venue_ends_the_flow(exchange: str, seed: int) -> None:
    rng = random.Random(seed)
    market = getattr(VENUES[exchange](), "market", None)
    make = partial(BinanceFeed, market) if market else lambda: JsonFeed(VENUES[exchange]())
    kinds = [FrameKind.DATA] * 8 + list(FrameKind)
    rows = [
        TestFrame(text, rng.choice(kinds), rng.choice("abc"), rng.choice(URLS), rng.choice(TIMES))
        for text in adversary.messages(rng, exchange, 20)
    ]
    through(make, cut([frames(rows)], 7))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
@example(seed=19932)  # a DBN definition behind records of its instrument, in one block
def test_no_file_ends_the_flow(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Every reader with its decoder; cut otherwise, the dead letters are the same."""
    folder = tmp_path_factory.mktemp("poison")
    for source in adversary.write_all(folder, seed, 25):
        try:
            spec = parse_source(source)
        except SourceError:
            continue  # refused before anything runs: an answer too
        make = partial(feeds.decoder, spec, 16)
        whole = through(make, frames_of(source))
        pieces = through(make, frames_of(source, Limits(max_rows=3, max_bytes=4096)))
        assert whole.letters == pieces.letters, source


def test_a_run_of_garbage_goes_to_its_end_and_starts_again(tmp_path: Path) -> None:
    """All of it at once, through the command line into a lake: exit 0, every dead letter counted;
    started again the flow takes up its state and finds nothing new."""
    garbage = tmp_path / "garbage"
    garbage.mkdir()
    sources = adversary.write_all(garbage, 7, 60)
    arguments = [a for source in sources for a in ("--source", source)]
    arguments += ["--sink", f"parquet:{tmp_path / 'lake'}", "--recovery", str(tmp_path / "state")]
    counts = []
    for _ in range(2):
        done = marketflow("run", "market_data", *arguments, "--json", MARKETFLOW_BATCH_ROWS="16")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        summary = json.loads(done.stdout)
        letters = table_rows(tmp_path / "lake", "dead_letters")
        assert letters is not None
        assert sum(summary["dead_letters"].values()) == letters.num_rows > len(sources)
        counts.append(letters.num_rows)
    assert counts[0] == counts[1]
