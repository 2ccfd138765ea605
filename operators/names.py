"""Names of instruments as codes, without a Python object for each.

Tables only grow, and what was handed out stays true: Arrow arrays and code columns are views of the
buffers that the tables grow into.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.kernels import texts as kernels

#: Rows that a growing array has at least, and the part of its rows that it gets more above that.
_LEAST: Final = 64
_PART: Final = 8
#: Names from which on batches have dictionaries of their own.
COMPACT_FROM: Final = 1 << 14


def grown(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """The array with room for ``rows``, an eighth to spare; itself where it has that."""
    if rows <= len(array):
        return array
    new = np.zeros(max(rows, len(array) + len(array) // _PART, _LEAST), array.dtype)
    new[: len(array)] = array
    return new


def _bytes_of(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Data and bounds of an Arrow array without nulls, as they lie."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    empty = data is None or not data.size
    return np.frombuffer(b"\0" if empty else data, np.uint8), bounds


class TextTable:
    """Distinct texts in order of first appearance; a text's code is its place."""

    def __init__(self) -> None:
        self._count = 0
        self._data = np.empty(0, np.uint8)
        self._offsets = np.zeros(1, np.int32)
        self._slots = np.full(_LEAST, -1, np.int32)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return self._data.nbytes + self._offsets.nbytes + self._slots.nbytes

    def _table(self) -> kernels.Texts:
        return kernels.Texts(self._data, self._offsets, self._slots)

    def codes(
        self,
        data: NDArray[np.uint8],
        bounds: NDArray[np.int32],
        places: NDArray[np.int64],
        *,
        add: bool = True,
    ) -> NDArray[np.int32]:
        """Codes of ``data[bounds[p]:bounds[p + 1]]`` for each place p. New texts are added in
        order, or are -1."""
        codes = np.empty(len(places), np.int32)
        new, size = kernels.find(self._table(), data, bounds, places, codes)
        if new and add:
            self._reserve(self._count + new, int(self._offsets[self._count]) + size)
            self._count = kernels.add(self._table(), self._count, data, bounds, places, codes)
        return codes

    def code(self, text: str, *, add: bool = True) -> int:
        """Code of one text."""
        data = np.frombuffer(text.encode() or b"\0", np.uint8)
        bounds = np.array([0, len(data) if text else 0], np.int32)
        return int(self.codes(data, bounds, np.zeros(1, np.int64), add=add)[0])

    def _reserve(self, count: int, size: int) -> None:
        assert size < 2**31, "names take more than 2 GiB"
        self._data = grown(self._data, size)
        self._offsets = grown(self._offsets, count + 1)
        if 3 * count > 2 * len(self._slots):
            self._slots = np.full(1 << (3 * count // 2).bit_length(), -1, np.int32)
            kernels.fill_slots(self._table(), self._count)

    def arrow(self, first: int = 0) -> pa.StringArray:
        """The texts from code ``first`` on; shares memory."""
        return pa.StringArray.from_buffers(
            self._count - first,
            pa.py_buffer(self._offsets[first : self._count + 1]),
            pa.py_buffer(self._data),
        )


class Names(NamedTuple):
    """Dictionaries of ``venue`` and ``symbol``, and each instrument's (int32) place in them."""

    venues: pa.StringArray
    symbols: pa.StringArray
    venue_of: NDArray[np.int32]
    symbol_of: NDArray[np.int32]

    def of(self, instruments: NDArray[Any]) -> tuple[Names, NDArray[np.int32] | None]:
        """Names for rows of these instruments. Where there are very many names, only those that
        the rows have, and each row's place among them; else all, and None."""
        if len(self.symbols) < max(COMPACT_FROM, len(instruments)):
            return self, None
        used, places = np.unique(instruments, return_inverse=True)
        codes, symbol_of = np.unique(self.symbol_of[used], return_inverse=True)
        few = Names(
            self.venues,
            self.symbols.take(pa.array(codes)),
            self.venue_of[used],
            symbol_of.astype(np.int32),
        )
        return few, places.astype(np.int32)


class Packed(NamedTuple):
    """Pairs in order: distinct venues, the place of each pair's venue among them, and the bounds
    and bytes of the symbols (int32 arrays as bytes)."""

    venues: tuple[str, ...]
    venue_of: bytes
    bounds: bytes
    symbols: bytes


class NameTable:
    """Pairs of venue and symbol in order of first appearance; a pair's index is its place."""

    def __init__(self) -> None:
        self.venues = TextTable()
        self.symbols = TextTable()
        self._pairs = TextTable()  # of 8 bytes each: the codes of venue and symbol
        self._venue_of = np.empty(0, np.int32)
        self._symbol_of = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def nbytes(self) -> int:
        tables = self.venues.nbytes + self.symbols.nbytes + self._pairs.nbytes
        return tables + self._venue_of.nbytes + self._symbol_of.nbytes

    def index(self, venue: str, symbol: str) -> int:
        """Index of a pair; it is added if it is new."""
        codes = self.venues.code(venue), self.symbols.code(symbol)
        return int(self._indices(*(np.array([code], np.int32) for code in codes))[0])

    def find(self, venue: str, symbol: str) -> int:
        """Index of a pair, -1 if it is new."""
        codes = self.venues.code(venue, add=False), self.symbols.code(symbol, add=False)
        if min(codes) < 0:
            return -1
        return int(self._indices(*(np.array([code], np.int32) for code in codes), add=False)[0])

    def indices(
        self,
        venues: pa.StringArray,
        symbols: pa.StringArray,
        venue_places: NDArray[np.int64],
        symbol_places: NDArray[np.int64],
        *,
        add: bool = True,
    ) -> NDArray[np.int32]:
        """Indices of many pairs of places in two arrays; new ones are added in order, or -1."""
        return self._indices(
            self.venues.codes(*_bytes_of(venues), venue_places, add=add),
            self.symbols.codes(*_bytes_of(symbols), symbol_places, add=add),
            add=add,
        )

    def _indices(
        self, venues: NDArray[np.int32], symbols: NDArray[np.int32], *, add: bool = True
    ) -> NDArray[np.int32]:
        pairs = np.ascontiguousarray(np.stack([venues, symbols], axis=1), np.int32)
        count, known = len(pairs), len(self)
        bounds = np.arange(0, 8 * count + 1, 8, dtype=np.int32)
        found = self._pairs.codes(
            pairs.view(np.uint8).reshape(-1), bounds, np.arange(count), add=add
        )
        if len(self) > known:
            self._venue_of = grown(self._venue_of, len(self))
            self._symbol_of = grown(self._symbol_of, len(self))
            new = found >= known
            self._venue_of[found[new]] = venues[new]
            self._symbol_of[found[new]] = symbols[new]
        return found

    def names(self) -> Names:
        """Names of all pairs so far; shares memory."""
        count = len(self)
        return Names(
            self.venues.arrow(),
            self.symbols.arrow(),
            self._venue_of[:count],
            self._symbol_of[:count],
        )

    def pack(self, first: int = 0) -> Packed:
        """The pairs from index ``first`` on, as plain bytes."""
        names = self.names()
        used, venue_of = np.unique(names.venue_of[first:], return_inverse=True)
        data, bounds = _bytes_of(names.symbols.take(pa.array(names.symbol_of[first:])))
        return Packed(
            tuple(names.venues.take(pa.array(used)).to_pylist()),
            venue_of.astype(np.int32).tobytes(),
            bounds.tobytes(),
            data[bounds[0] : bounds[-1]].tobytes(),
        )

    def unpack(self, packed: Packed) -> None:
        """Add packed pairs behind those that are here."""
        venues, venue_of, bounds, data = packed
        offsets = np.frombuffer(bounds, np.int32)
        count, known = len(offsets) - 1, len(self)
        symbols = pa.StringArray.from_buffers(
            count, pa.py_buffer((offsets - offsets[0]).tobytes()), pa.py_buffer(data)
        )
        places = np.frombuffer(venue_of, np.int32).astype(np.int64)
        self.indices(pa.array(venues, pa.string()), symbols, places, np.arange(count))
        assert len(self) == known + count, "packed names are no continuation"
