"""Layouts of the ITCH 5.0 kernel: its notes, its state, and where each message has its fields.

Byte positions count from the message type byte (Nasdaq TotalView-ITCH 5.0 manual, section 4).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import EventKind
from marketflow.schemas.codes import DeadLetterReason, Side

#: Slot of ``locates`` for the whole market: one more than the largest stock locate.
MARKET: Final = 65536
#: What is known of each stock locate. ``word``: its 8 symbol bytes, 0 = never named; ``rival``:
#: another symbol it was once called; ``instrument``: -1 = none yet.
LOCATE: Final = np.dtype([("word", "<u8"), ("rival", "<u8"), ("instrument", "<i4")], align=True)
#: A message for the tables: where its type byte is in the batch's bytes, and what it is about.
RARE: Final = np.dtype(
    [("at", "<i8"), ("ts", "<i8"), ("sequence", "<i8"), ("frame", "<i4"), ("instrument", "<i4")],
    align=True,
)
#: Input that could not be taken: ``size`` bytes from ``at`` on (with their length prefix).
BAD: Final = np.dtype(
    [
        ("at", "<i8"),
        ("ts", "<i8"),
        ("size", "<i8"),
        ("frame", "<i4"),
        ("reason", "i1"),
        ("why", "i1"),
    ],
    align=True,
)

#: Slots of the int64 ``state``: cursor and counts of this batch, then what a feed remembers.
FRAME, AT, ROWS, RARES, BADS, ASK_SLOT, ASK_WORD, MESSAGES, LAST_TS, MIDNIGHT, CLOSED, SKIP = range(
    12
)
STATE_SIZE: Final = 12
#: ``instrument`` of a locate whose name is one too many for the feed (-1: not named yet).
REFUSED: Final = -2
#: Why the kernel returned.
DONE, NAME_WANTED, NOTES_FULL, NOTED = range(4)
#: ``why`` of a bad row; the words are in operators.formats.itch.decoder.
(
    WHY_CUT,
    WHY_EMPTY,
    WHY_TYPE,
    WHY_LENGTH,
    WHY_TIME,
    WHY_SIDE,
    WHY_SHARES,
    WHY_PRICE,
    WHY_PRINTABLE,
    WHY_RANGE,
    WHY_STOCK,
    WHY_LOCATE,
    WHY_UNPACKED,
    WHY_NOTE,
    WHY_FULL,
) = range(15)

#: Message lengths by type (manual, section 4), and where the 8-byte stock stands (0: it has none).
LENGTHS: Final = {
    "S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21,
    "A": 36, "F": 40, "E": 31, "C": 36, "X": 23, "D": 19, "U": 35, "P": 44, "Q": 40, "B": 19,
    "I": 50, "N": 20, "O": 48,
}  # fmt: skip
STOCKS: Final = {
    "R": 11, "H": 11, "Y": 11, "L": 15, "K": 11, "J": 11, "h": 11, "A": 24, "F": 24, "P": 24,
    "Q": 19, "I": 28, "N": 11, "O": 11,
}  # fmt: skip
_KINDS: Final = {
    "A": EventKind.ADD, "F": EventKind.ADD, "E": EventKind.EXECUTE, "C": EventKind.EXECUTE,
    "X": EventKind.REDUCE, "D": EventKind.DELETE, "U": EventKind.REPLACE, "P": EventKind.TRADE,
    "Q": EventKind.TRADE, "B": EventKind.BUST, "S": EventKind.CLOCK,
}  # fmt: skip


def by_type(values: dict[str, int]) -> NDArray[np.uint8]:
    """A value per message type, small enough to stay in the first-level cache."""
    table = np.zeros(256, np.uint8)
    for letter, value in values.items():
        table[ord(letter)] = value
    return table


LENGTH: Final = by_type(LENGTHS)
STOCK_AT: Final = by_type(STOCKS)
KIND: Final = by_type({letter: int(kind) for letter, kind in _KINDS.items()})
# Where the fields of order and trade messages stand; 0: none.
ORDER_AT: Final = by_type(dict.fromkeys("AFECXDU", 11))
TRADE_AT: Final = by_type({"E": 23, "C": 23, "U": 19, "P": 36, "Q": 31, "B": 11})
SHARES_AT: Final = by_type({"A": 20, "F": 20, "P": 20, "E": 19, "C": 19, "X": 19, "U": 27})
PRICE_AT: Final = by_type({"A": 32, "F": 32, "P": 32, "C": 32, "U": 31, "Q": 27})
SIDE_AT: Final = by_type({"A": 19, "F": 19, "P": 19})
CROSSED_AT: Final = by_type({"Q": 11})
FLAG_AT: Final = by_type({"C": 31, "Q": 39})
#: EVENT.side by type and the lowest bit of the indicator: B is even, S odd. A print against a
#: hidden order does not tell its aggressor, and the orders of the other messages have their side.
SIDE_OF: Final = np.zeros((256, 2), np.int8)
SIDE_OF[[ord("A"), ord("F")]] = (Side.BID, Side.ASK)
IS_RARE: Final = by_type({letter: 1 for letter in "SRHYLVWKJhQINO"})
IS_MARKET_WIDE: Final = by_type({letter: 1 for letter in "SVW"})

#: DeadLetterReason by WHY_ code.
REASON: Final = np.zeros(15, np.int8)
REASON[WHY_CUT] = DeadLetterReason.TRUNCATED
REASON[WHY_EMPTY] = DeadLetterReason.MALFORMED
REASON[WHY_TYPE] = DeadLetterReason.UNKNOWN_MESSAGE
REASON[WHY_LENGTH] = DeadLetterReason.MALFORMED
REASON[WHY_TIME] = DeadLetterReason.BAD_TIMESTAMP
REASON[WHY_SIDE] = DeadLetterReason.BAD_SIDE
REASON[WHY_SHARES] = DeadLetterReason.BAD_SIZE
REASON[WHY_PRICE] = DeadLetterReason.BAD_PRICE
REASON[WHY_PRINTABLE] = DeadLetterReason.MALFORMED
REASON[WHY_RANGE] = DeadLetterReason.OUT_OF_RANGE
REASON[WHY_STOCK] = DeadLetterReason.UNKNOWN_INSTRUMENT
REASON[WHY_LOCATE] = DeadLetterReason.MALFORMED
REASON[WHY_UNPACKED] = DeadLetterReason.INVALID_ENCODING
REASON[WHY_NOTE] = DeadLetterReason.MALFORMED
REASON[WHY_FULL] = DeadLetterReason.TOO_MANY_INSTRUMENTS
