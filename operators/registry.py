"""Instruments of one feed: who they are, how their books are kept, which connection carries them.

The registry only ever grows: an instrument's index (EVENT.instrument) is the order of its first
appearance in the feed, which makes it the same however the feed is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from operators.events import (
    INSTRUMENT,
    BookType,
    ChecksumRule,
    Continuity,
    Instruments,
    SnapshotRule,
)
from schemas.codes import RejectReason
from schemas.names import name_fault
from schemas.recovery import START_ANEW, StateError
from schemas.shards import shard_of

assert INSTRUMENT.names is not None
_SHARD: Final = INSTRUMENT.names.index("shard")


class RefusedInstrumentError(Exception):
    """An instrument that is not taken: what names it becomes a dead letter of this reason."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class BookRules:
    """What a venue declares of its books; see the fields of ``operators.events.INSTRUMENT``.

    ``max_levels``: levels per side the subscription maintains, 0 for all of them.
    ``bbo_tolerance``: groups by which a venue's own quote may differ from the book in time.
    ``first_overlap``: how the first delta after a spliced snapshot must meet the snapshot's id.
    """

    book_type: BookType = BookType.L2
    continuity: Continuity = Continuity.NONE
    snapshot_rule: SnapshotRule = SnapshotRule.NONE
    checksum_rule: ChecksumRule = ChecksumRule.NONE
    first_overlap: int = 0
    max_levels: int = 0
    may_cross: bool = False
    bbo_tolerance: int = 0


class Registry:
    """Symbols to indices; first use registers with the rules of ``rules(venue, symbol)``."""

    def __init__(self, venue: str, rules: Callable[[str, str], BookRules], shards: int) -> None:
        self._venue = venue
        self._rules = rules
        self._shards = shards
        self._indices: dict[tuple[str, str], int] = {}
        self._rows: list[tuple[int, ...]] = []
        self._instruments = Instruments(np.zeros(0, INSTRUMENT), (), ())
        #: Instruments whose books each connection carries.
        self.seen: dict[str, set[int]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def index(self, symbol: str, venue: str | None = None) -> int:
        """Index of an instrument of ``venue`` (default: the feed's own). RefusedInstrumentError
        if its name is none that all stores can hold (schemas.names)."""
        key = (venue or self._venue, symbol)
        index = self._indices.get(key)
        return self._register(key) if index is None else index

    def find(self, symbol: str, venue: str | None = None) -> int | None:
        """Index of an instrument that is registered already."""
        return self._indices.get((venue or self._venue, symbol))

    def shard(self, index: int) -> int:
        """The instrument's shard within the feed."""
        return self._rows[index][_SHARD]

    def symbols(self) -> tuple[str, ...]:
        """Symbols in index order."""
        return tuple(symbol for _, symbol in self._indices)

    def _register(self, key: tuple[str, str]) -> int:
        fault = name_fault("venue", key[0]) or name_fault("symbol", key[1])
        if fault is not None:
            raise RefusedInstrumentError(RejectReason.UNKNOWN_INSTRUMENT, fault)
        rules = self._rules(*key)
        values = {
            "shard": shard_of(*key, self._shards),
            "max_levels": rules.max_levels,
            "bbo_tolerance": rules.bbo_tolerance,
            "book_type": int(rules.book_type),
            "continuity": int(rules.continuity),
            "snapshot_rule": int(rules.snapshot_rule),
            "checksum_rule": int(rules.checksum_rule),
            "first_overlap": rules.first_overlap,
            "may_cross": int(rules.may_cross),
        }
        assert INSTRUMENT.names is not None
        self._rows.append(tuple(values[name] for name in INSTRUMENT.names))
        self._indices[key] = len(self._rows) - 1
        return len(self._rows) - 1

    def instruments(self) -> Instruments:
        """All instruments so far; the same object as long as none joins."""
        if len(self._instruments) != len(self._rows):
            venues, symbols = zip(*self._indices, strict=True)
            self._instruments = Instruments(np.array(self._rows, INSTRUMENT), venues, symbols)
        return self._instruments

    def snapshot(self) -> Any:
        """Keys and policy rows in index order, and the instruments of each connection."""
        seen = {name: sorted(indices) for name, indices in self.seen.items() if indices}
        return (self._shards, tuple(self._indices), tuple(self._rows), seen)

    def restore(self, state: Any) -> None:
        """Take a snapshot back; StateError if it was made for another number of shards."""
        shards, keys, rows, seen = state
        if shards != self._shards:
            raise StateError(
                f"recovery state has {shards} shards per feed, the settings {self._shards}: "
                f"set shards to {shards}, or {START_ANEW}"
            )
        self._indices = {tuple(key): index for index, key in enumerate(keys)}
        self._rows = [tuple(row) for row in rows]
        self.seen = {name: set(indices) for name, indices in seen.items()}
