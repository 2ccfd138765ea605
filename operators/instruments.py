"""Instruments of one feed: who they are, how their books are kept, which connection carries them.

The registry only ever grows: an instrument's index (EVENT.instrument) is the order of its first
appearance in the feed, which makes it the same however the feed is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.events import (
    INSTRUMENT,
    NO_INSTRUMENTS,
    BookType,
    ChecksumRule,
    Continuity,
    Instruments,
    SnapshotRule,
)
from marketflow.operators.names import NameTable, Packed, grown
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.names import name_fault
from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW, StateError
from marketflow.schemas.shards import shard_of

#: Instruments of a feed, where the settings do not say otherwise.
MAX_INSTRUMENTS: Final = 1_000_000
_RECENT: Final = 1 << 16
_VERSION: Final = 3


class RefusedInstrumentError(Exception):
    """An instrument that is not taken: what names it becomes a dead letter of this reason."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class BookRules:
    """Rules of a venue's books; see the fields of ``operators.events.INSTRUMENT``.

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


class Seen:
    """Instruments whose books one connection carries. ``told``: how many a snapshot holds."""

    def __init__(self, instruments: Iterable[int] = ()) -> None:
        self._instruments = dict.fromkeys(instruments)
        self.told = 0

    def __len__(self) -> int:
        return len(self._instruments)

    def __iter__(self) -> Iterator[int]:
        return iter(self._instruments)

    def add(self, instrument: int) -> None:
        self._instruments[instrument] = None

    def untold(self) -> tuple[int, ...]:
        """Instruments that joined since the last snapshot."""
        return tuple(islice(self._instruments, self.told, None))


class Registry:
    """Symbols to indices; first use registers with the rules of ``rules(venue, symbol)``.

    ``most``: limit of instruments; one more is a RefusedInstrumentError. An instrument stays
    registered even if the message that named it became a dead letter, so that the sequence of the
    feed alone decides which instruments are in.
    """

    def __init__(
        self,
        venue: str,
        rules: Callable[[str, str], BookRules],
        shards: int,
        most: int = MAX_INSTRUMENTS,
    ) -> None:
        self._venue = venue
        self._rules = rules
        self._shards = shards
        self.most = most
        self._names = NameTable()
        self._rows = np.zeros(0, INSTRUMENT)
        #: The indices asked for lately: most feeds name few instruments very often.
        self._recent: dict[tuple[str, str], int] = {}
        self._instruments = NO_INSTRUMENTS
        self._told = 0
        #: Instruments whose books each connection carries.
        self.seen: dict[str, Seen] = {}

    def __len__(self) -> int:
        return len(self._names)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return self._names.nbytes + self._rows.nbytes

    def index(self, symbol: str, venue: str | None = None) -> int:
        """Index of an instrument of ``venue`` (default: the feed's own). RefusedInstrumentError
        if its name is none that all stores can hold (schemas.names)."""
        key = (venue or self._venue, symbol)
        index = self._recent.get(key)
        if index is not None:
            return index
        index = self._names.find(*key)
        return self._remember(key, self._register(key) if index < 0 else index)

    def find(self, symbol: str, venue: str | None = None) -> int | None:
        """Index of an instrument that is registered already."""
        key = (venue or self._venue, symbol)
        index = self._recent.get(key)
        if index is not None:
            return index
        index = self._names.find(*key)
        return None if index < 0 else self._remember(key, index)

    def _remember(self, key: tuple[str, str], index: int) -> int:
        if len(self._recent) >= _RECENT:
            self._recent.clear()
        self._recent[key] = index
        return index

    def shard(self, index: int) -> int:
        """The instrument's shard within the feed."""
        return int(self._rows["shard"][index])

    def symbols(self, first: int = 0) -> list[str]:
        """Symbols in index order, from index ``first`` on."""
        names = self._names.names()
        found: list[str] = names.symbols.take(pa.array(names.symbol_of[first:])).to_pylist()
        return found

    def _register(self, key: tuple[str, str]) -> int:
        refused = self._refused(key, len(self))
        if refused is not None:
            raise refused
        row = self._row(key, self._rules(*key))
        index = self._names.index(*key)
        self._rows = grown(self._rows, index + 1)
        self._rows[index] = row
        return index

    def _refused(self, key: tuple[str, str], known: int) -> RefusedInstrumentError | None:
        """Why an instrument is not taken as the next one after ``known``."""
        fault = name_fault("venue", key[0]) or name_fault("symbol", key[1])
        if fault is not None:
            return RefusedInstrumentError(DeadLetterReason.UNKNOWN_INSTRUMENT, fault)
        if known < self.most:
            return None
        return RefusedInstrumentError(
            DeadLetterReason.TOO_MANY_INSTRUMENTS,
            f"the feed names more than {self.most} instruments (max_instruments)",
        )

    def _row(self, key: tuple[str, str], rules: BookRules) -> tuple[int, ...]:
        """A row of INSTRUMENT."""
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
        return tuple(values[name] for name in INSTRUMENT.names)

    def indices(
        self,
        venues: pa.StringArray,
        symbols: pa.StringArray,
        venue_places: NDArray[np.int64],
        symbol_places: NDArray[np.int64],
        rules: Callable[[int], BookRules],
    ) -> tuple[NDArray[np.int32], dict[int, RefusedInstrumentError]]:
        """Indices of many distinct pairs of places in two arrays, in the order of the feed.

        New ones are registered with the rules of their place among the pairs; -1 where that is
        refused, and why by place.
        """
        found = self._names.indices(venues, symbols, venue_places, symbol_places, add=False)
        new = np.flatnonzero(found < 0)
        refused: dict[int, RefusedInstrumentError] = {}
        rows: list[tuple[int, ...]] = []
        keys = zip(
            venues.take(pa.array(venue_places[new])).to_pylist(),
            symbols.take(pa.array(symbol_places[new])).to_pylist(),
            strict=True,
        )
        for place, key in zip(new.tolist(), keys, strict=True):
            error = self._refused(key, len(self) + len(rows))
            if error is None:
                rows.append(self._row(key, rules(place)))
            else:
                refused[place] = error
        if rows:
            new = new[~np.isin(new, list(refused))]
            first = len(self)
            found[new] = self._names.indices(venues, symbols, venue_places[new], symbol_places[new])
            self._rows = grown(self._rows, len(self))
            self._rows[first : len(self)] = rows
        return found, refused

    def instruments(self) -> Instruments:
        """All instruments so far; the same object as long as none joins."""
        if len(self._instruments) != len(self):
            self._instruments = Instruments(self._rows[: len(self)], self._names.names())
        return self._instruments

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, shards, first index, packed names and policy rows from there on, connections).

        A connection is its name, whether what was told of it before still holds, and the
        instruments to add. ``changes``: only what came since the last snapshot.
        """
        first = self._told if changes else 0
        seen = []
        for name, carried in self.seen.items():
            if not changes:
                carried.told = 0
            seen.append((name, carried.told > 0, tuple(sorted(carried.untold()))))
            carried.told = len(carried)
        self._told = len(self)
        # Field by field: what lies between them may be anything.
        rows = np.zeros(len(self) - first, INSTRUMENT)
        for column in INSTRUMENT.names or ():
            rows[column] = self._rows[column][first : len(self)]
        packed = tuple(self._names.pack(first)), rows.tobytes()
        return (_VERSION, self._shards, first, *packed, tuple(seen))

    def restore(self, state: Any) -> None:
        """Take a snapshot back, or the changes after what was restored before; StateError if it
        was made for another number of shards."""
        if state[0] != _VERSION:
            raise StateError(
                f"recovery state of the instruments has format {state[0]}, this release reads "
                f"{_VERSION}: {OTHER_RELEASE}"
            )
        _, shards, first, names, rows, seen = state
        if shards != self._shards:
            raise StateError(
                f"recovery state has {shards} shards per feed, the settings {self._shards}: "
                f"set shards to {shards}, or {START_ANEW}"
            )
        if first == 0:
            self._names, self._rows, self.seen = NameTable(), np.zeros(0, INSTRUMENT), {}
            self._recent.clear()
        assert first == len(self), "changes of a registry do not follow what was restored"
        self._names.unpack(Packed(*names))
        self._rows = grown(self._rows, len(self))
        self._rows[first : len(self)] = np.frombuffer(rows, INSTRUMENT)
        before, self.seen = self.seen, {}
        for name, goes_on, added in seen:
            carried = self.seen[name] = before[name] if goes_on else Seen()
            for instrument in added:
                carried.add(instrument)
            carried.told = len(carried)
        self._told = len(self)
