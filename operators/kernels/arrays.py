"""Many arrays behind one argument: how the book engine's functions reach their state.

Every array that a kernel takes costs seven machine words per call, more than most functions here
do. So all state of a shard hangs on one int64 array, the *state*: counters, and for every pool its
address and length in two neighbouring places. :func:`row_of` makes the accessor of a pool's rows
(``node_row(state, n).count``), :func:`view_of` that of a whole pool as an array. Neither checks
bounds, as numba's own indexing does not. The Python side that owns the arrays (:class:`Pools`)
keeps them alive and writes a new address whenever one is replaced.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj
from numba.np.numpy_support import from_dtype
from numpy.typing import NDArray

#: A numpy array, or a row of one, inside a kernel (numba's own types are more exact than mypy's).
Array: TypeAlias = Any
#: An integer of 64 bits inside a kernel.
Word: TypeAlias = Any

_LINE_BYTES: Final = 64
_WORD: Final = ir.IntType(64)
_FLAG: Final = ir.IntType(32)
_BYTES: Final = ir.IntType(8).as_pointer()
# Untyped parts of numba.
_make_array: Any = arrayobj.make_array
_populate_array: Any = arrayobj.populate_array
_pack_array: Any = cgutils.pack_array


def _load(context: Any, builder: Any, state_type: Any, state: Any, place: int) -> Any:
    """The word at ``place`` of the state."""
    data = _make_array(state_type)(context, builder, state).data
    return builder.load(builder.gep(data, [ir.Constant(_WORD, place)]))


def row_of(place: int, dtype: np.dtype[Any]) -> Any:
    """``accessor(state, index)``: the row of the pool at ``place``, by reference."""
    record: Any = from_dtype(dtype)

    def typed(typing_context: Any, state: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base = _load(context, builder, signature.args[0], args[0], place)
            index = context.cast(builder, args[1], signature.args[1], types.int64)
            offset = builder.mul(index, ir.Constant(_WORD, dtype.itemsize))
            return builder.inttoptr(builder.add(base, offset), context.get_value_type(record))

        return record(state, index), codegen

    return intrinsic(typed)


def view_of(place: int, dtype: np.dtype[Any]) -> Any:
    """``accessor(state)``: the pool at ``place`` as a one-dimensional array."""
    array_type: Any = types.Array(from_dtype(dtype), 1, "C")  # type: ignore[no-untyped-call]

    def typed(typing_context: Any, state: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base = _load(context, builder, signature.args[0], args[0], place)
            rows = _load(context, builder, signature.args[0], args[0], place + 1)
            array = _make_array(array_type)(context, builder)
            _populate_array(
                array,
                data=builder.inttoptr(base, array.data.type),
                shape=_pack_array(builder, [rows]),
                strides=_pack_array(builder, [ir.Constant(_WORD, dtype.itemsize)]),
                itemsize=ir.Constant(_WORD, dtype.itemsize),
                meminfo=None,
            )
            return array._getvalue()

        return array_type(state), codegen

    return intrinsic(typed)


def prefetch_of(place: int, dtype: np.dtype[Any]) -> Any:
    """``hint(state, index)``: the row will be wanted soon; costs next to nothing."""

    def typed(typing_context: Any, state: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base = _load(context, builder, signature.args[0], args[0], place)
            index = context.cast(builder, args[1], signature.args[1], types.int64)
            offset = builder.mul(index, ir.Constant(_WORD, dtype.itemsize))
            row = builder.inttoptr(builder.add(base, offset), _BYTES)
            kind = ir.FunctionType(ir.VoidType(), [_BYTES, _FLAG, _FLAG, _FLAG])
            hint = builder.module.declare_intrinsic("llvm.prefetch", [_BYTES], kind)
            # For reading, to be kept in all caches, data.
            builder.call(hint, [row, _FLAG(0), _FLAG(3), _FLAG(1)])
            return context.get_dummy_value()

        return types.void(state, index), codegen

    return intrinsic(typed)


def aligned(rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeroed rows that begin on a cache line (numpy's own begin 16 bytes after one)."""
    size = rows * dtype.itemsize
    raw = np.zeros(size + _LINE_BYTES, np.uint8)
    offset = -raw.ctypes.data % _LINE_BYTES
    return raw[offset : offset + size].view(dtype)


class Pools:
    """The arrays behind a state, by name. ``places[name]`` is where its address and length are."""

    def __init__(self, state: NDArray[np.int64], places: dict[str, int]) -> None:
        self.state = state
        self._places = places
        self._arrays: dict[str, NDArray[Any]] = {}
        #: Moves on whenever an array of another size is put.
        self.version = 0

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Use this array from now on."""
        assert array.flags.c_contiguous, name
        place = self._places[name]
        before = self._arrays.get(name)
        if before is None or before.nbytes != array.nbytes:
            self.version += 1
        self._arrays[name] = array
        self.state[place] = array.ctypes.data
        self.state[place + 1] = len(array)

    def grow(self, name: str, rows: int) -> None:
        """Room for ``rows``: a copy whose new rows are zero."""
        old = self._arrays[name]
        assert rows >= len(old), (name, rows, len(old))
        new = aligned(rows, old.dtype)
        new[: len(old)] = old
        self.put(name, new)

    def nbytes(self, *names: str) -> int:
        return sum(self._arrays[name].nbytes for name in names)
