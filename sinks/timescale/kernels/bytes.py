"""Big-endian stores and block moves on byte arrays.

A store writes whole words wherever it is told, unchecked: callers leave slack behind every row.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

#: Bytes behind the end of what is written that a store or move may touch.
SLACK: Final = 16


def _store(bits: int) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        word = ir.IntType(bits)
        place = builder.bitcast(builder.gep(array.data, [args[1]]), word.as_pointer())
        value = args[2] if bits == 64 else builder.trunc(args[2], word)
        builder.store(builder.bswap(value), place, align=1)
        return context.get_dummy_value()

    def typed(typing_context: Any, out: Any, at: Any, value: Any) -> Any:
        return types.void(out, types.int64, types.int64), codegen

    return intrinsic(typed)


#: ``put16(out, at, value)``: the low two bytes of an integer at ``out[at]``, big endian.
put16: Any = _store(16)
#: Four bytes.
put32: Any = _store(32)
#: Eight bytes.
put64: Any = _store(64)


def _move16(typing_context: Any, out: Any, at: Any, source: Any, begin: Any) -> Any:

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(128)
        places = []
        for kind, array, index in zip(signature.args[::2], args[::2], args[1::2], strict=True):
            data = context.make_array(kind)(context, builder, array).data
            places.append(builder.bitcast(builder.gep(data, [index]), word.as_pointer()))
        builder.store(builder.load(places[1], align=1), places[0], align=1)
        return context.get_dummy_value()

    return types.void(out, types.int64, source, types.int64), codegen


#: ``move16(out, at, source, begin)``: sixteen bytes of ``source`` to ``out``, both uint8.
move16: Any = intrinsic(_move16)


def _zeros(leading: bool) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = builder.ctlz if leading else builder.cttz
        return count(args[0], ir.Constant(ir.IntType(1), 0))

    def typed(typing_context: Any, value: Any) -> Any:
        return types.int64(types.uint64), codegen

    return intrinsic(typed)


#: Number of zero bits above the highest bit set (64 of zero).
leading_zeros: Any = _zeros(True)
#: Number of zero bits below the lowest bit set (64 of zero).
trailing_zeros: Any = _zeros(False)
