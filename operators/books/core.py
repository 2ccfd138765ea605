"""Books: integrity and book in one state per shard, events in, finished rows out.

:class:`BookShard` holds the books of all instruments of one shard: price levels, resting orders
(L3), the sync state machine (:mod:`operators.books.kernels.sync`), the venue's own quotes. One call
of ``apply`` runs a whole batch through the compiled engine.

Determinism: the output depends on the rows, never on how they were cut into batches. A bracketed
group that a batch cuts is carried whole into the next one.
Memory: pools grow by doubling and are reused through free lists; the caps of :class:`BookConfig`
bound them (CAPACITY events; the order or level is left out and its book goes stale).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.books import pack as book_pack
from marketflow.operators.books.kernels import engine
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.rows import Place, dead_letters, passing
from marketflow.operators.books.state import ShardState
from marketflow.operators.events import EVENT, EventBatch, Instruments, Rows
from marketflow.operators.rows import rows_to_batch
from marketflow.schemas.recovery import OTHER_RELEASE, StateError
from marketflow.schemas.shards import shard_number
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import DEPTH_LEVELS
from marketflow.schemas.units import NS_PER_MS, NS_PER_S

SNAPSHOT_VERSION: Final = 3
#: Tables of the engine in the order of its outputs.
_OUTPUTS: Final = ("trades", "quotes", "depth", "book_events", "quality_events")
ALL_TABLES: Final = frozenset(_OUTPUTS)


@dataclass(frozen=True, slots=True)
class BookConfig:
    """Settings of the books.

    Parameters
    ----------
    depth_levels
        Levels per side in ``depth``, 1 to 10.
    depth_interval_ns
        0: a ``depth`` row per change of the top levels. Else at most one row per instrument and
        interval of event time, at the first group end in it.
    tables
        Which of trades, quotes, depth, book_events, quality_events to make; one not asked for
        costs nothing.
    clock_skew_ns
        How far an event time may be ahead of its arrival before it is CLOCK_SKEW.
    snapshot_wait_ns
        Event time for which deltas may wait for their first snapshot before NO_SNAPSHOT.
    check_bbo
        Compare the venue's own best prices with the kept books.
    max_orders, max_levels
        Resting orders and price levels of a shard. At the cap the newcomer is left out (CAPACITY)
        and its book goes stale.
    max_buffered_rows, max_buffered_rows_per_book
        Rows of deltas kept for snapshots to come. At a cap all that the book has buffered is
        dropped (CAPACITY, once per outage) and buffering starts over. A bracketed group of more
        rows than that is no message but an INCOMPLETE_GROUP.
    feeds, shards_per_feed, partitions, numbers
        What ``dead_letters`` says of the input: index i belongs to feed f = i // shards_per_feed,
        which is ``partitions[f]`` of ``feeds[f]`` and numbered ``numbers[f]`` (schemas.shards).
    """

    depth_levels: int = DEPTH_LEVELS
    depth_interval_ns: int = 0
    tables: frozenset[str] = ALL_TABLES
    clock_skew_ns: int = 100 * NS_PER_MS
    snapshot_wait_ns: int = 10 * NS_PER_S
    check_bbo: bool = True
    max_orders: int = 1 << 23
    max_levels: int = 1 << 22
    max_buffered_rows: int = 1 << 18
    max_buffered_rows_per_book: int = 1 << 16
    feeds: tuple[str, ...] = ("feed",)
    shards_per_feed: int = 16
    partitions: tuple[int, ...] = (0,)
    numbers: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not 1 <= self.depth_levels <= DEPTH_LEVELS:
            raise ValueError(f"depth_levels is {self.depth_levels}: use 1 to {DEPTH_LEVELS}")
        for name in ("depth_interval_ns", "clock_skew_ns", "snapshot_wait_ns"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is below zero: use 0 or more")
        for name in ("max_orders", "max_levels", "max_buffered_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: use at least 1")

    def place_of(self, index: int) -> Place:
        """Of a shard by its index in the run."""
        feed, local = divmod(index, self.shards_per_feed)
        shard = shard_number(self.numbers[feed], local)
        return Place(shard, self.feeds[feed], self.partitions[feed])


class BookShard:
    """The books of one shard. ``apply(batch) -> Rows``; see the module."""

    def __init__(self, index: int, config: BookConfig) -> None:
        self.index = index
        self.config = config
        self._place = config.place_of(index)
        self.shard = self._place.shard
        self._kept = ShardState(self._settings(), "depth" in config.tables)
        self._carried: NDArray[np.void] = np.zeros(0, EVENT)
        self._carried_offsets: NDArray[np.int64] = np.zeros(0, np.int64)
        self._sequences: dict[str, int] = {}

    def _settings(self) -> dict[int, int]:
        config = self.config
        return {
            es.EMIT_TRADES: int("trades" in config.tables),
            es.EMIT_QUOTES: int("quotes" in config.tables),
            es.EMIT_DEPTH: int("depth" in config.tables),
            es.EMIT_EVENTS: int("book_events" in config.tables),
            es.EMIT_QUALITY: int("quality_events" in config.tables),
            es.SKEW_NS: config.clock_skew_ns,
            es.DEPTH_LEVELS: config.depth_levels,
            es.DEPTH_INTERVAL_NS: config.depth_interval_ns,
            es.SNAPSHOT_WAIT_NS: config.snapshot_wait_ns,
            es.MAX_ORDERS: config.max_orders,
            es.MAX_LEVELS: config.max_levels,
            es.MAX_PENDING: config.max_buffered_rows,
            es.MAX_PENDING_BOOK: min(config.max_buffered_rows_per_book, config.max_buffered_rows),
            es.CHECK_BBO: int(config.check_bbo),
        }

    def apply(self, batch: EventBatch) -> Rows:
        """Run the rows of a batch (this shard's, in feed order) through the books."""
        rows, offsets = self._with_carried(batch.rows, batch.offsets)
        kept = self._kept
        kept.start(len(rows), offsets, self._sequences.get("quality_events", 0))
        self._run(rows, batch.instruments)
        tables = self._tables(batch.instruments)
        for name, rare in batch.tables.items():
            if rare.num_rows:
                first = self._claim(name, rare.num_rows)
                tables[name] = passing(name, rare, batch.instruments, self.shard, first)
        ended = bool(kept.state[es.ENDED])
        return Rows(self.shard, tables, self._stats(), ended, self.index)

    def _with_carried(
        self, rows: NDArray[np.void], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """The rows after those carried, and the feed offsets their ``frame`` stands for."""
        carried = len(self._carried)
        if carried == 0:
            return rows, offsets
        shifted = rows.copy()
        shifted["frame"] += carried
        both = np.concatenate([self._carried, shifted])
        self._carried = np.zeros(0, EVENT)
        return both, np.concatenate([self._carried_offsets, offsets])

    def _carry(self, rows: NDArray[np.void], offsets: NDArray[np.int64]) -> None:
        self._carried = rows.copy()
        frames = rows["frame"]
        known = (frames >= 0) & (frames < len(offsets))
        self._carried_offsets = np.full(len(rows), -1, np.int64)
        self._carried_offsets[known] = offsets[frames[known]]
        self._carried["frame"] = np.arange(len(rows))

    def _run(self, rows: NDArray[np.void], instruments: Instruments) -> None:
        kept = self._kept
        at, resumed = 0, False
        kept.know(instruments)
        while True:
            before = at
            code, at = engine.run(kept.state, rows, at, resumed)
            resumed = False
            if code == es.DONE:
                return
            if code == es.CARRY:
                self._carry(rows[at:], kept.pools["offsets"])
                return
            if code == es.NEW_BOOK:
                self._add_book(int(rows[at]["instrument"]), instruments)
            elif code == es.NEW_SHOWN:
                kept.add_shown(int(rows[at]["instrument"]))
            elif code == es.REPLAY:
                self._replay(int(rows[at]["instrument"]))
                resumed = True
            else:
                kept.make_room(code, stuck=at == before)

    def _add_book(self, index: int, instruments: Instruments) -> None:
        assert index < len(instruments), f"a row of instrument {index}, of which nothing is known"
        self._kept.add_book(index, instruments.rows[index])

    def _replay(self, instrument: int) -> None:
        """Run the buffered rows of a book onto the snapshot it has just taken."""
        kept = self._kept
        rows, offsets = kept.take_pending(instrument)
        batch_offsets = kept.pools["offsets"]
        kept.pools.put("offsets", offsets)
        kept.state[es.REPLAYING] = 1
        at = 0
        while True:
            before = at
            code, at = engine.run(kept.state, rows, at, False)
            if code == es.DONE:
                break
            kept.make_room(code, stuck=at == before)
        kept.state[es.REPLAYING] = 0
        kept.pools.put("offsets", batch_offsets)

    def _claim(self, name: str, rows: int) -> int:
        """First row_sequence of so many new rows of a table."""
        first = self._sequences.get(name, 0)
        self._sequences[name] = first + rows
        return first

    def _tables(self, instruments: Instruments) -> dict[str, pa.RecordBatch]:
        tables: dict[str, pa.RecordBatch] = {}
        *outputs, rejects = self._kept.outputs()
        for name, rows in zip(_OUTPUTS, outputs, strict=True):
            if len(rows) and name in self.config.tables:
                first = self._claim(name, len(rows))
                tables[name] = rows_to_batch(TABLES[name], rows, instruments, self.shard, first)
        if len(rejects):
            first = self._claim("dead_letters", len(rejects))
            tables["dead_letters"] = dead_letters(rejects, self._place, first)
        return tables

    def _stats(self) -> dict[str, int]:
        kept = self._kept
        counts = kept.state[es.STAT_FIRST : es.STAT_FIRST + len(es.STATS)].tolist()
        stats = {name: n for name, n in zip(es.STATS, counts, strict=True) if n}
        memory = self.memory()
        return {
            **stats,
            "stale_books": int(kept.state[es.STALE_BOOKS]),
            "books": memory["books"],
            "orders": memory["orders"],
            "levels": memory["levels"],
            "memory_bytes": memory["memory_bytes"],
        }

    def memory(self) -> dict[str, int]:
        """Counts of the shard and their memory: totals of arrays, and the cost of one order
        (its row and two hash slots), one level (its row and its share of tree nodes at the
        leanest legal filling) and one book."""
        return self._kept.memory() | {"carried_bytes": self._carried.nbytes}

    def snapshot(self, *, changes: bool = False) -> Any:
        """A copy of the state: compact arrays that do not depend on where things lie.
        ``changes``: of the books only those that changed since the last snapshot."""
        return {
            "version": SNAPSHOT_VERSION,
            "shard": self.shard,
            "sequences": dict(self._sequences),
            "carried": self._carried.copy(),
            "carried_offsets": self._carried_offsets.copy(),
            "kept": self._kept.pack(changes),
        }

    def restore(self, value: Any, *changes: Any) -> None:
        """Take a snapshot back, and the changes after it; StateError with the remedy if it is of
        another format."""
        version = value.get("version") if isinstance(value, dict) else None
        if version != SNAPSHOT_VERSION:
            raise StateError(
                f"recovery state of the books has format {version}, this release reads "
                f"{SNAPSHOT_VERSION}: {OTHER_RELEASE}"
            )
        newest = changes[-1] if changes else value
        self._sequences = dict(newest["sequences"])
        self._carried = newest["carried"].copy()
        self._carried_offsets = newest["carried_offsets"].copy()
        self._kept = ShardState(self._settings(), "depth" in self.config.tables)
        self._kept.unpack(book_pack.merge([part["kept"] for part in (value, *changes)]))

    def state_hash(self) -> str:
        """SHA-256 of the state: equal for equal input, however it was batched or resumed."""
        digest = hashlib.sha256()
        state = self.snapshot()
        digest.update(repr(sorted(state["sequences"].items())).encode())
        carried = state["carried"]
        carried["frame"] = 0
        for name, array in sorted({**state["kept"], "carried": carried}.items()):
            digest.update(name.encode())
            _feed(digest, array)
        return digest.hexdigest()


def _feed(digest: Any, array: NDArray[Any]) -> None:
    """The values of an array into a digest; what lies between its fields may be anything."""
    if array.dtype.names is None:
        digest.update(np.ascontiguousarray(array).tobytes())
    else:
        for name in array.dtype.names:
            _feed(digest, array[name])
