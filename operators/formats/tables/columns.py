"""Columns of a table as they come, from CSV lines or Arrow batches, as arrays of exact values.

Every accessor returns whole columns. A value that cannot be taken marks its row in ``reasons``
(first reason wins, ``details`` names the column) and has some harmless value instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from enum import IntEnum
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from marketflow.operators import ids
from marketflow.operators.kernels import fields, numbers
from marketflow.operators.kernels.ids import NOT_AN_ID
from marketflow.schemas.codes import DeadLetterReason, words
from marketflow.schemas.derived import arrow
from marketflow.schemas.units import END_OF_TIME_NS, NO_PRICE, NS_PER_MS, NS_PER_S, NS_PER_US

Spans = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]
_QUOTE: Final = ord('"')
_UNITS_NS: Final = {"s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US, "ns": 1}
_NO_TEXT: Final = np.zeros(1, np.uint8)


def run_end(kinds: NDArray[np.int8], first: int) -> int:
    """Where the run of frames of one kind ends that starts at ``first``."""
    others = np.flatnonzero(kinds[first:] != kinds[first])
    return first + int(others[0]) if len(others) else len(kinds)


def our_names(names: Sequence[str], given: Mapping[str, str]) -> tuple[str, ...]:
    """Names of columns as the tables have them: the URL's ``columns=ours:theirs,...`` says."""
    pairs = [item.split(":", 1) for item in given.get("columns", "").split(",") if item]
    ours = {theirs: own for own, theirs in pairs}
    return tuple(ours.get(name, name) for name in names)


class Source(Protocol):
    """Where columns come from; ``given`` are constants of the URL."""

    names: frozenset[str]
    given: Mapping[str, str]
    rows: int

    def spans(self, name: str) -> Spans:
        """The column as text; an empty span is null."""
        ...

    def array(self, name: str) -> pa.Array | None:
        """The column as typed Arrow array, None where it is text."""
        ...

    def raw(self, row: int) -> bytes:
        """A row as it came, for its dead letter."""
        ...


class Columns:
    """Exact values of a source's columns; whole times count its ``time_unit``, ns else."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._unit_ns = _UNITS_NS[source.given.get("time_unit", "ns")]
        self.reasons: NDArray[np.int64] = np.full(source.rows, -1, np.int64)
        self.details: dict[int, str] = {}

    def __len__(self) -> int:
        return self.source.rows

    def fail(self, good: NDArray[np.bool_], reason: DeadLetterReason, detail: str) -> None:
        """Rows that are not good have this reason, unless they have one already."""
        for row in np.flatnonzero(~good & (self.reasons < 0)).tolist():
            self.reasons[row] = int(reason)
            self.details[row] = detail

    def has(self, name: str) -> bool:
        return name in self.source.names or name in self.source.given

    def decimals(
        self, name: str, garbage: DeadLetterReason
    ) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """(mantissas, scales); null or absent is NO_PRICE."""
        n = len(self)
        mantissas, scales = np.full(n, NO_PRICE, np.int64), np.zeros(n, np.int8)
        if name not in self.source.names:
            return mantissas, scales
        array = self.source.array(name)
        if array is None:
            codes = np.zeros(n, np.int8)
            fields.decimals(*self.source.spans(name), mantissas, scales, codes)
            self.fail(codes != numbers.GARBAGE, garbage, name)
            self.fail(codes != numbers.OUT_OF_RANGE, DeadLetterReason.OUT_OF_RANGE, name)
            mantissas[codes != numbers.OK] = NO_PRICE
            return mantissas, scales
        wide, fits = _widened(array)
        words_ = np.frombuffer(wide.buffers()[1], np.uint64)[2 * wide.offset :]
        fields.narrow_words(words_, _valid(wide), mantissas, scales, fits)
        self.fail(fits, DeadLetterReason.OUT_OF_RANGE, name)
        mantissas[~fits] = NO_PRICE
        return mantissas, scales

    def times(self, name: str) -> NDArray[np.int64]:
        """ns since 1970; null or absent is 0."""
        values = np.zeros(len(self), np.int64)
        if name not in self.source.names:
            return values
        array = self.source.array(name)
        if array is None:
            good = np.ones(len(self), np.bool_)
            fields.times(*self.source.spans(name), values, good)
            if self._unit_ns > 1:
                self._counted(name, values, good)
            self.fail(good, DeadLetterReason.BAD_TIMESTAMP, name)
            return values
        if pa.types.is_timestamp(array.type):
            unit_ns = _UNITS_NS[array.type.unit]
            values = _filled(array.view(pa.int64()), 0)
        else:
            unit_ns = self._unit_ns
            values = _filled(array, 0)
        within = (values >= 0) & (values < END_OF_TIME_NS // unit_ns)
        self.fail(within, DeadLetterReason.BAD_TIMESTAMP, name)
        return np.where(within, values, 0) * unit_ns

    def _counted(self, name: str, values: NDArray[np.int64], good: NDArray[np.bool_]) -> None:
        """Times that are numbers of the unit, with decimals or without, into ns."""
        n = len(self)
        mantissas, scales, codes = np.zeros(n, np.int64), np.zeros(n, np.int8), np.zeros(n, np.int8)
        fields.decimals(*self.source.spans(name), mantissas, scales, codes)
        numeric = (codes == numbers.OK) & (mantissas != NO_PRICE)
        steps = 10 ** np.maximum(scales, 0).astype(np.int64)
        factors = self._unit_ns // steps
        fits = (scales >= 0) & (factors > 0) & (mantissas >= 0)
        fits &= mantissas < END_OF_TIME_NS // np.maximum(factors, 1)
        taken = numeric & fits
        values[taken] = mantissas[taken] * factors[taken]
        good[numeric] = fits[numeric]

    def integers(self, name: str, default: int) -> NDArray[np.int64]:
        """Whole numbers; null or absent is ``default``."""
        values = np.full(len(self), default, np.int64)
        if name not in self.source.names:
            return values
        array = self.source.array(name)
        if array is None:
            good = np.ones(len(self), np.bool_)
            fields.integers(*self.source.spans(name), default, values, good)
            self.fail(good, DeadLetterReason.MALFORMED, name)
            return values
        return _filled(array, default)

    def texts(self, name: str) -> pa.StringArray:
        """The column as strings; null where it is empty or absent."""
        if name not in self.source.names:
            return pa.array([self.source.given.get(name)] * len(self), pa.string())
        text, starts, stops = self.source.spans(name)
        out = np.empty(int((stops - starts).sum()), np.uint8)
        bounds = np.empty(len(self) + 1, np.int32)
        fields.gather(text, starts, stops, out, bounds)
        valid = pa.py_buffer(np.packbits(stops > starts, bitorder="little"))
        array = pa.StringArray.from_buffers(
            len(self), pa.py_buffer(bounds), pa.py_buffer(out), valid
        )
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            return self._cleaned(name, out, bounds)
        # Only a quoted field can hold quotes, and holds them doubled.
        return pc.replace_substring(array, '""', '"') if (out == _QUOTE).any() else array

    def _cleaned(self, name: str, out: NDArray[np.uint8], bounds: NDArray[Any]) -> pa.StringArray:
        """Texts of which some are no UTF-8: those fail."""
        values: list[str | None] = []
        good = np.ones(len(self), np.bool_)
        for row, (start, stop) in enumerate(pairwise(bounds.tolist())):
            try:
                text = out[start:stop].tobytes().decode().replace('""', '"')
            except UnicodeDecodeError:
                text, good[row] = "", False
            values.append(text or None)
        self.fail(good, DeadLetterReason.INVALID_ENCODING, name)
        return pa.array(values, pa.string())

    def coded(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """Index per row into the distinct texts of the column; -1 where it is null."""
        places, texts = self.distinct(name)
        return places, texts.to_pylist()

    def distinct(self, name: str) -> tuple[NDArray[np.int64], pa.StringArray]:
        """As :meth:`coded`, without an object for each text."""
        encoded = self.texts(name).dictionary_encode()
        return _filled(encoded.indices, -1), encoded.dictionary

    def codes(
        self, name: str, kind: type[IntEnum], default: int, reason: DeadLetterReason
    ) -> NDArray[np.int8]:
        """Members of an enum from its words; null or absent is ``default``."""
        if not self.has(name):
            return np.full(len(self), default, np.int8)
        indices, texts = self.coded(name)
        known = {word: code for code, word in enumerate(words(kind))}
        table = np.array([known.get(text.lower(), -1) for text in texts] + [default], np.int8)
        values = table[indices]
        self.fail(values >= 0, reason, name)
        return values

    def ids(self, name: str) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int8]]:
        """(hi, lo, IdKind); null or absent is NONE."""
        n = len(self)
        if name not in self.source.names:
            return np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.int8)
        texts = self.texts(name)
        _, offsets, data = texts.buffers()
        bounds = np.frombuffer(offsets, np.int32)[: n + 1].astype(np.int64)
        text = np.frombuffer(data, np.uint8) if data is not None and data.size else _NO_TEXT
        starts = np.where(bounds[1:] > bounds[:-1], bounds[:-1], -1)
        hi, lo, kinds, bad = ids.from_spans(text, starts, bounds[1:])
        if bad:
            good = kinds != NOT_AN_ID
            self.fail(good, DeadLetterReason.BAD_ID, name)
            kinds[~good] = 0
        return hi, lo, kinds


def _valid(array: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False))


def _filled(array: pa.Array, default: int) -> NDArray[np.int64]:
    values = array.cast(pa.int64()).fill_null(default)
    return np.array(values.to_numpy(zero_copy_only=False), np.int64)


def _widened(array: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """As decimal128(38, 12), and which values that was possible for."""
    good = np.ones(len(array), np.bool_)
    if pa.types.is_integer(array.type):
        array = array.cast(pa.decimal128(20, 0))
    try:
        return array.cast(arrow.SUM), good
    except pa.ArrowInvalid:
        pass
    values = []
    for row in range(len(array)):
        value = array[row : row + 1]
        try:
            values.append(value.cast(arrow.SUM))
        except pa.ArrowInvalid:
            good[row] = False
            values.append(pa.nulls(1, arrow.SUM))
    return pa.concat_arrays(values), good


class LineSource:
    """CSV lines of a file whose columns are known."""

    def __init__(
        self,
        text: NDArray[np.uint8],
        bounds: NDArray[np.int64],
        columns: tuple[str, ...],
        given: Mapping[str, str],
    ) -> None:
        self.rows = len(bounds) - 1
        self.names = frozenset(columns)
        self.given = given
        self._text, self._bounds = text, bounds
        self._places = {name: place for place, name in reversed(list(enumerate(columns)))}
        self._starts, self._stops = np.zeros((2, len(columns), self.rows), np.int64)
        self.good = np.ones(self.rows, np.bool_)
        fields.split(text, bounds, self._starts, self._stops, self.good)
        self._starts[:, ~self.good] = self._stops[:, ~self.good] = 0

    def part(self, first: int, last: int) -> LineSource:
        """Lines ``first`` to ``last``."""
        if (first, last) == (0, self.rows):
            return self
        part = copy(self)
        part.rows = last - first
        part._bounds = self._bounds[first : last + 1]
        part._starts, part._stops = self._starts[:, first:last], self._stops[:, first:last]
        part.good = self.good[first:last]
        return part

    def spans(self, name: str) -> Spans:
        place = self._places[name]
        return self._text, self._starts[place], self._stops[place]

    def array(self, name: str) -> None:
        return None

    def raw(self, row: int) -> bytes:
        return self._text[self._bounds[row] : self._bounds[row + 1]].tobytes()


class ArrowSource:
    """Rows of an Arrow batch."""

    def __init__(self, batch: pa.RecordBatch, given: Mapping[str, str]) -> None:
        self.rows = batch.num_rows
        self.names = frozenset(batch.schema.names)
        self.given = given
        self.good = np.ones(self.rows, np.bool_)
        self._batch = batch

    def part(self, first: int, last: int) -> ArrowSource:
        """Rows ``first`` to ``last``."""
        return ArrowSource(self._batch.slice(first, last - first), self.given)

    def _column(self, name: str) -> pa.Array:
        column = self._batch.column(name)
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

    def spans(self, name: str) -> Spans:
        column = self._column(name)
        texts = column.cast(pa.large_string()).cast(pa.large_binary())
        _, offsets, data = texts.buffers()
        bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + self.rows + 1]
        text = _NO_TEXT if data is None or not data.size else np.frombuffer(data, np.uint8)
        starts = bounds[:-1].copy()
        return text, starts, np.where(_valid(texts), bounds[1:], starts)

    def array(self, name: str) -> pa.Array | None:
        column = self._column(name)
        kind = column.type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return None if text else column

    def raw(self, row: int) -> bytes:
        values = (
            f"{n}={pc.cast(self._column(n)[row], pa.string()).as_py()}" for n in sorted(self.names)
        )
        return " ".join(values).encode()
