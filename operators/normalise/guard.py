"""Reasons for exceptions of decoders and their libraries: the message becomes a dead letter.

The input is at fault, also where no decoder foresees the exception, such as a panic of a compiled
library (a BaseException). The caller undoes the rows of the message and continues with the next.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from marketflow.operators.instruments import RefusedInstrumentError
from marketflow.operators.normalise.passthrough import BadValueError
from marketflow.operators.normalise.timestamps import TimestampError
from marketflow.schemas.codes import DeadLetterReason

#: These say nothing about the input.
_NOT_OF_THE_INPUT: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)


def verdict(error: BaseException) -> tuple[DeadLetterReason, str]:
    """Reason and detail of the dead letter of what threw ``error``; throws it again where it says
    nothing about the input (an interrupt, no memory)."""
    match error:
        case RefusedInstrumentError() | BadValueError():
            return error.reason, error.detail
        case TimestampError():
            return DeadLetterReason.BAD_TIMESTAMP, str(error)
        case msgspec.DecodeError() | UnicodeError() | RecursionError():
            return DeadLetterReason.MALFORMED, str(error)
        case struct.error():
            return DeadLetterReason.OUT_OF_RANGE, "an integer does not fit 64 bits"
    if isinstance(error, _NOT_OF_THE_INPUT):
        raise error
    return DeadLetterReason.MALFORMED, f"the decoder gave up: {type(error).__name__}: {error}"
