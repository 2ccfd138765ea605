"""The arrays of a shard's bars: made, grown, packed and unpacked.

An instrument costs its name, a clock and a place per window that may be open; bars and seeds lie in
pools (:mod:`operators.bars.kernels.bars`) and cost what is open.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.bars.kernels import bars as kernels
from marketflow.operators.bars.kernels import layout
from marketflow.operators.names import NameTable, Packed, grown

#: Rows that a pool begins with, and has free before a kernel call.
_LEAST: Final = 256
_SPARE: Final = 128
#: Free rows that are no reason to close up a pool.
_CHUNK: Final = 4096
#: What snapshots keep of a clock.
_KEPT: Final = np.dtype([("watermark", "<i8"), ("due", "<i8")])
_PACKED: Final[tuple[np.dtype[Any], ...]] = (
    np.dtype(np.int32),
    _KEPT,
    np.dtype(np.int32),
    layout.SEED,
    np.dtype(np.int64),
    layout.OPEN_BAR,
)


class BarsState:
    """Open bars of all instruments of a shard."""

    def __init__(self, windows: NDArray[np.void]) -> None:
        self.places = int(windows["places"].sum())
        self._windows = len(windows)
        self._empty()

    def _empty(self) -> None:
        """Begin without instruments."""
        self.names = NameTable()
        self._told = 0  # names that the last snapshot has
        self._clocks = np.zeros(0, layout.CLOCK)
        self._refs = np.zeros((0, self.places), np.int32)
        self._bars = np.zeros(_LEAST, layout.OPEN_BAR)
        self._seeds = np.zeros(_LEAST, layout.SEED)
        self._pools = np.zeros(layout.N_POOLS, np.int64)
        self._pools[[layout.BARS_FREE, layout.SEEDS_FREE]] = -1

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        arrays = (self._clocks, self._refs, self._bars, self._seeds)
        return self.names.nbytes + sum(array.nbytes for array in arrays)

    def state(self, windows: NDArray[np.void], counts: NDArray[np.int64]) -> kernels.State:
        return kernels.State(
            self._clocks, self._refs, self._bars, self._seeds, self._pools, windows, counts
        )

    def make_room(self, bars: int = _SPARE, seeds: int = _SPARE) -> None:
        """Room for so many more open bars and seeds."""
        bars += 2 * self._windows
        self._bars = grown(self._bars, int(self._pools[layout.BARS_LIVE]) + bars)
        self._seeds = grown(self._seeds, int(self._pools[layout.SEEDS_LIVE]) + seeds)

    def grow(self) -> None:
        """Room for every instrument that has a name."""
        count, room = len(self.names), len(self._clocks)
        if count <= room:
            return
        self._clocks = grown(self._clocks, count)
        fresh = self._clocks[room:]
        fresh["watermark"], fresh["due"] = layout.NEVER, layout.NOT_DUE
        fresh["seed"], fresh["touched"] = -1, 0
        refs = np.full((len(self._clocks), self.places), -1, np.int32)
        refs[:room] = self._refs
        self._refs = refs

    def pack(self, changes: bool) -> tuple[Any, ...]:
        """(names known before, packed names, then as bytes: indices of instruments, their clocks,
        places among them of those with a seed, the seeds, places of open bars, the bars)."""
        first = self._told if changes else 0
        count = len(self.names)
        clocks = self._clocks[:count]
        chosen = np.flatnonzero(clocks["touched"]) if changes else np.arange(count)
        clocks["touched"] = 0
        self._told = count
        seeds = clocks["seed"][chosen]
        with_seed = np.flatnonzero(seeds >= 0)
        refs = self._refs[chosen].ravel()
        used = np.flatnonzero(refs >= 0)
        return (
            first,
            tuple(self.names.pack(first)),
            chosen.astype(np.int32).tobytes(),
            _packed(clocks[chosen], _KEPT).tobytes(),
            with_seed.astype(np.int32).tobytes(),
            self._seeds[seeds[with_seed]].tobytes(),
            used.tobytes(),
            self._bars[refs[used]].tobytes(),
        )

    def unpack(self, first: int, names: Any, *arrays: bytes) -> None:
        """Become as packed, or take the changes after that."""
        if first == 0:
            self._empty()
        assert first == len(self.names), "changes of bars do not follow what was restored"
        self.names.unpack(Packed(*names))
        self._told = len(self.names)
        self.grow()
        self._take(*(np.frombuffer(a, d) for a, d in zip(arrays, _PACKED, strict=True)))
        if self._pools[layout.BARS_USED] > 2 * self._pools[layout.BARS_LIVE] + _CHUNK:
            self.unpack(*self.pack(changes=False))  # closes up what changes have left free

    def _take(
        self,
        chosen: NDArray[np.int32],
        clocks: NDArray[np.void],
        with_seed: NDArray[np.int32],
        seeds: NDArray[np.void],
        used: NDArray[np.int64],
        bars: NDArray[np.void],
    ) -> None:
        """Instruments ``chosen`` become as packed."""
        pools = self._pools
        before = self._refs[chosen].ravel()
        pools[layout.BARS_LIVE] -= _free(
            self._bars, "trade_count", before[before >= 0], pools[layout.BARS_FREE :]
        )
        before = self._clocks["seed"][chosen]
        pools[layout.SEEDS_LIVE] -= _free(
            self._seeds, "ts", before[before >= 0], pools[layout.SEEDS_FREE :]
        )
        for name in _KEPT.names or ():
            self._clocks[name][chosen] = clocks[name]
        first = int(pools[layout.SEEDS_USED])
        self._seeds = grown(self._seeds, first + len(seeds))
        self._seeds[first : first + len(seeds)] = seeds
        of_chosen = np.full(len(chosen), -1, np.int32)
        of_chosen[with_seed] = np.arange(first, first + len(seeds))
        self._clocks["seed"][chosen] = of_chosen
        pools[[layout.SEEDS_USED, layout.SEEDS_LIVE]] += len(seeds)
        first = int(pools[layout.BARS_USED])
        self._bars = grown(self._bars, first + len(bars))
        self._bars[first : first + len(bars)] = bars
        refs = np.full(len(chosen) * self.places, -1, np.int32)
        refs[used] = np.arange(first, first + len(bars))
        self._refs[chosen] = refs.reshape(len(chosen), self.places)
        pools[[layout.BARS_USED, layout.BARS_LIVE]] += len(bars)


def _packed(rows: NDArray[np.void], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """The fields of ``dtype`` alone."""
    packed = np.empty(len(rows), dtype)
    for name in dtype.names or ():
        packed[name] = rows[name]
    return packed


def _free(
    rows: NDArray[np.void], link: str, which: NDArray[np.int32], head: NDArray[np.int64]
) -> int:
    """Put rows of a pool on its list of free ones (``head[0]``); how many they are."""
    if len(which):
        rows[link][which[:-1]] = which[1:]
        rows[link][which[-1]] = head[0]
        head[0] = which[0]
    return len(which)
