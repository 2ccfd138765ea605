"""The chunks of a partition into the order of its file: each value is moved once.

A counting sort by the column of names that leads the file's order says where every row goes; each
column is then scattered there, chunk by chunk, so that nothing is joined first. Rows of one name
keep their order of arrival.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from marketflow.schemas.kernel import kernel
from marketflow.sinks.columns import Bare, Names, Shape, concat

_WORDS: Final[dict[int, Any]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_DECIMAL_BYTES: Final = 16
#: Rows that a 32-bit place can name.
_MOST_ROWS: Final = (1 << 31) - 1

Places = NDArray[np.int32]


@kernel
def _count(codes: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    for code in codes:
        counts[code] += 1


@kernel
def _place(codes: NDArray[np.int32], free: NDArray[np.int64], places: Places) -> None:
    """Next free place of each row's name."""
    for i in range(len(codes)):
        code = codes[i]
        places[i] = free[code]
        free[code] += 1


@kernel
def _scatter(values: NDArray[Any], places: Places, out: NDArray[Any]) -> None:
    for i in range(len(places)):
        out[places[i]] = values[i]


@kernel
def _scatter_pairs(values: NDArray[Any], places: Places, out: NDArray[Any]) -> None:
    """Values of two words each."""
    for i in range(len(places)):
        to = 2 * np.int64(places[i])
        out[to] = values[2 * i]
        out[to + 1] = values[2 * i + 1]


@kernel
def _scatter_lengths(offsets: NDArray[np.int32], places: Places, out: NDArray[np.int64]) -> None:
    for i in range(len(places)):
        out[places[i]] = offsets[i + 1] - offsets[i]


@kernel
def _scatter_runs(
    values: NDArray[Any],
    offsets: NDArray[np.int32],
    width: int,
    places: Places,
    begins: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    """Runs of items of ``width`` words: list i begins at item ``offsets[i]``, and goes to item
    ``begins[places[i]]``."""
    for i in range(len(places)):
        start, to = np.int64(offsets[i]) * width, begins[places[i]] * width
        for j in range((offsets[i + 1] - offsets[i]) * width):
            out[to + j] = values[start + j]


def ordered(form: Shape, chunks: list[Bare], names: Names) -> Bare:
    """All rows of the chunks by the text of their leading NAME column, which has no nulls."""
    codes = [_view(chunk[form.keys[0]], np.int32) for chunk in chunks]
    counts = np.zeros(len(names), np.int64)
    for part in codes:
        _count(part, counts)
    total = int(counts.sum())
    assert total <= _MOST_ROWS, "a partition is sealed long before"
    used = np.flatnonzero(counts).tolist()
    by_text = np.array(sorted(used, key=names.text), np.int64)
    free = np.zeros(len(names), np.int64)
    free[by_text] = np.cumsum(counts[by_text]) - counts[by_text]
    places = []
    for part in codes:
        places.append(np.empty(len(part), np.int32))
        _place(part, free, places[-1])
    return [_column([chunk[i] for chunk in chunks], places, total) for i in range(len(form.fields))]


def _column(parts: list[pa.Array], places: list[Places], total: int) -> pa.Array:
    """One column in its new order."""
    kind = parts[0].type
    if pa.types.is_list(kind) or pa.types.is_string(kind):
        return _runs(parts, places, total)
    width = 0 if pa.types.is_boolean(kind) or _is_large(kind) else kind.bit_width // 8
    if width == _DECIMAL_BYTES:
        out = np.empty(2 * total, np.uint64)
        for part, to in zip(parts, places, strict=True):
            _scatter_pairs(_view(part, np.uint64, 2), to, out)
    elif width in _WORDS:
        out = np.empty(total, _WORDS[width])
        for part, to in zip(parts, places, strict=True):
            _scatter(_view(part, _WORDS[width]), to, out)
    else:
        return _taken(parts, places, total)
    return pa.Array.from_buffers(kind, total, [_validity(parts, places, total), pa.py_buffer(out)])


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_binary(kind) or pa.types.is_binary(kind))


def _runs(parts: list[pa.Array], places: list[Places], total: int) -> pa.Array:
    """Lists or texts in their new order."""
    kind = parts[0].type
    is_list = pa.types.is_list(kind)
    item = kind.value_type.bit_width // 8 if is_list else 1
    word, width = (np.uint32, item // 4) if is_list else (np.uint8, 1)
    lengths = np.empty(total, np.int64)
    offsets = [_offsets(part) for part in parts]
    for at, to in zip(offsets, places, strict=True):
        _scatter_lengths(at, to, lengths)
    ends = np.cumsum(lengths)
    items = int(ends[-1]) if total else 0
    if items > _MOST_ROWS:
        return _taken(parts, places, total)
    out = np.empty(items * width, word)
    for part, at, to in zip(parts, offsets, places, strict=True):
        _scatter_runs(_items(part, word), at, width, to, ends - lengths, out)
    bounds = pa.py_buffer(np.concatenate([[0], ends]).astype(np.int32))
    validity = _validity(parts, places, total)
    if not is_list:
        return pa.Array.from_buffers(kind, total, [validity, bounds, pa.py_buffer(out)])
    values = pa.Array.from_buffers(kind.value_type, items, [None, pa.py_buffer(out)])
    return pa.Array.from_buffers(kind, total, [validity, bounds], children=[values])


def _offsets(part: pa.Array) -> NDArray[np.int32]:
    """Where each list or text begins among the items of the whole buffer, and the last ends."""
    if len(part) == 0:
        return np.zeros(1, np.int32)
    found = np.frombuffer(part.buffers()[1], np.int32, len(part) + 1, 4 * part.offset)
    found.flags.writeable = False
    return found


def _items(part: pa.Array, word: Any) -> NDArray[Any]:
    """The whole buffer of the items of lists or texts."""
    if pa.types.is_list(part.type):
        values = part.values
        assert values.null_count == 0, "levels are never null"
        data, skip = values.buffers()[1], values.offset * values.type.bit_width // 8
    else:
        data, skip = part.buffers()[2], 0
    if data is None:
        return _frozen(np.zeros(0, word))
    return _frozen(np.frombuffer(data, np.uint8)[skip:].view(word))


def _view(part: pa.Array, word: Any, words: int = 1) -> NDArray[Any]:
    """The values of a column of fixed width as ``words`` words each."""
    width = np.dtype(word).itemsize * words
    if len(part) == 0:
        return _frozen(np.zeros(0, word))
    data = part.buffers()[1]
    return _frozen(np.frombuffer(data, word, len(part) * words, part.offset * width))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """One type for the kernels, whoever made the buffer."""
    array.flags.writeable = False
    return array


def _validity(parts: list[pa.Array], places: list[Places], total: int) -> pa.Buffer | None:
    if not any(part.null_count for part in parts):
        return None
    valid = np.empty(total, np.uint8)
    for part, to in zip(parts, places, strict=True):
        told = pc.is_valid(part).to_numpy(zero_copy_only=False).view(np.uint8)
        _scatter(_frozen(told), to, valid)
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def _taken(parts: list[pa.Array], places: list[Places], total: int) -> pa.Array:
    """A column of a rare kind."""
    order = np.empty(total, np.int64)
    order[np.concatenate(places)] = np.arange(total)
    return pc.take(concat([[part] for part in parts])[0], pa.array(order))
