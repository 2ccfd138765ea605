"""Texts to small integers: an open-addressing table over bytes that lie one after another.

Text ``i`` is ``data[offsets[i]:offsets[i + 1]]``, as in Arrow, and its code is its place. Nothing
here allocates: the caller (:mod:`operators.names`) sees to room.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.kernels.int128 import Word
from marketflow.schemas.kernel import kernel

_SEED: Final = np.uint64(0xCBF29CE484222325)
_PRIME: Final = np.uint64(0x100000001B3)
_FOLD: Final = np.uint64(29)


class Texts(NamedTuple):
    """``slots`` holds codes, -1 where free; their number is a power of two above the texts'."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int32]
    slots: NDArray[np.int32]


@kernel
def _slot(table: Texts, text: NDArray[np.uint8], start: Word, stop: Word) -> Word:
    """The slot of a text: the one that holds its code, or the free one where it belongs."""
    mixed = _SEED
    for at in range(start, stop):
        mixed = (mixed ^ np.uint64(text[at])) * _PRIME
    last = np.int64(len(table.slots) - 1)
    slot = np.int64(mixed ^ (mixed >> _FOLD)) & last
    length = stop - start
    while table.slots[slot] >= 0:
        code = table.slots[slot]
        first = np.int64(table.offsets[code])
        if table.offsets[code + 1] - first == length:
            same = 0
            while same < length and table.data[first + same] == text[start + same]:
                same += 1
            if same == length:
                return slot
        slot = (slot + 1) & last
    return slot


@kernel
def find(
    table: Texts,
    text: NDArray[np.uint8],
    bounds: NDArray[np.int32],
    places: NDArray[np.int64],
    codes: NDArray[np.int32],
) -> tuple[Word, Word]:
    """Codes of ``text[bounds[p]:bounds[p + 1]]`` for each place p; -1 where a text is new.

    Returns how many are new (a new text counts as often as it comes) and their bytes.
    """
    new: Word = 0
    size: Word = 0
    for i in range(len(places)):
        start, stop = np.int64(bounds[places[i]]), np.int64(bounds[places[i] + 1])
        codes[i] = table.slots[_slot(table, text, start, stop)]
        if codes[i] < 0:
            new += 1
            size += stop - start
    return new, size


@kernel
def add(
    table: Texts,
    known: Word,
    text: NDArray[np.uint8],
    bounds: NDArray[np.int32],
    places: NDArray[np.int64],
    codes: NDArray[np.int32],
) -> Word:
    """As :func:`find`, and new texts get the next codes in order; returns how many there are now.

    There is room for all that :func:`find` said.
    """
    for i in range(len(places)):
        if codes[i] >= 0:
            continue
        start, stop = np.int64(bounds[places[i]]), np.int64(bounds[places[i] + 1])
        slot = _slot(table, text, start, stop)
        if table.slots[slot] < 0:
            first = np.int64(table.offsets[known])
            for at in range(stop - start):
                table.data[first + at] = text[start + at]
            table.offsets[known + 1] = np.int32(first + stop - start)
            table.slots[slot] = np.int32(known)
            known += 1
        codes[i] = table.slots[slot]
    return known


@kernel
def fill_slots(table: Texts, known: Word) -> None:
    """Enter the first ``known`` texts into slots that are all free."""
    for code in range(known):
        start, stop = np.int64(table.offsets[code]), np.int64(table.offsets[code + 1])
        table.slots[_slot(table, table.data, start, stop)] = np.int32(code)
