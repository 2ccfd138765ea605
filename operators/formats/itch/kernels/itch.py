"""Nasdaq TotalView-ITCH 5.0: one pass over the bytes of a frames batch.

Order and trade messages become EVENT rows here. Everything rarer is only checked, counted and
noted in ``rare`` for :mod:`operators.formats.itch.tables`; what cannot be taken is noted in
``bad``. The kernel knows instruments by stock locate; when a message needs one that has no
instrument yet, or a note buffer is full, it pauses *before* that message and the caller resumes it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from marketflow.operators.events import NO_SEQUENCE, EventKind, IdKind
from marketflow.operators.formats.itch.kernels.layout import (
    ASK_SLOT,
    ASK_WORD,
    AT,
    BADS,
    CLOSED,
    CROSSED_AT,
    DONE,
    FLAG_AT,
    FRAME,
    IS_MARKET_WIDE,
    IS_RARE,
    KIND,
    LAST_TS,
    LENGTH,
    MARKET,
    MESSAGES,
    MIDNIGHT,
    NAME_WANTED,
    NOTED,
    NOTES_FULL,
    ORDER_AT,
    PRICE_AT,
    RARES,
    REASON,
    REFUSED,
    ROWS,
    SHARES_AT,
    SIDE_AT,
    SIDE_OF,
    SKIP,
    STOCK_AT,
    TRADE_AT,
    WHY_CUT,
    WHY_EMPTY,
    WHY_FULL,
    WHY_LENGTH,
    WHY_LOCATE,
    WHY_PRICE,
    WHY_PRINTABLE,
    WHY_RANGE,
    WHY_SHARES,
    WHY_SIDE,
    WHY_STOCK,
    WHY_TIME,
    WHY_TYPE,
    WHY_UNPACKED,
)
from marketflow.operators.kernels.big_endian import be16, be32, be64
from marketflow.schemas.codes import RowFlag
from marketflow.schemas.kernel import kernel
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NO_PRICE, NS_PER_DAY

_C, _Q, _S, _I, _R = (ord(c) for c in "CQSIR")
_BUY, _SELL, _YES, _NO, _SPACE = (ord(c) for c in "BSYN ")
_END_OF_MESSAGES = ord("C")
# Parts of the loop: merged into it before optimisation.
_part: Final = register_jitable(forceinline=True)

# Plain integers: what an enum member costs at compile time is not worth its name here.
_LAST = int(RowFlag.LAST)
_UINT, _NO_ID = int(IdKind.UINT), int(IdKind.NONE)
_FEED_END, _LOST = int(EventKind.FEED_END), int(EventKind.DISCONNECT)
_DATA, _END, _DISCONNECT = int(FrameKind.DATA), int(FrameKind.END), int(FrameKind.DISCONNECT)
_TRUNCATED, _BROKEN = int(FrameKind.TRUNCATED), int(FrameKind.BROKEN)
_GAP, _START = int(FrameKind.GAP), int(FrameKind.START)
_PRICE_SCALE = 4
#: Shares are 8 bytes in crosses and imbalances; more than this is no decimal128(28, 12).
_MOST_SHARES = 10**16 - 1
#: Not reasons against a message: all is well; well, but it makes no row; the end of a file.
_TAKEN, _NOT_SHOWN, _EMPTY_END = -1, -2, -3


@_part
def _field64(data: Any, begin: Any, at: Any) -> Any:
    """8 bytes at position ``at`` of the message; 0 if ``at`` is 0: it has no such field.

    Read in any case (no message is shorter than 12 bytes): a select instead of a branch.
    """
    value = be64(data, begin + at)
    return value if at != 0 else np.uint64(0)


@_part
def _field32(data: Any, begin: Any, at: Any, absent: Any) -> Any:
    value = be32(data, begin + at)
    return value if at != 0 else np.int64(absent)


@_part
def _order_fields(row: Any, data: Any, begin: Any, letter: Any) -> Any:
    """Order, trade, shares and price of a message into ``row``; a WHY_ code, _TAKEN or _NOT_SHOWN.

    By tables rather than by type: the types come in random order, and a branch per type would be
    mispredicted for most messages. All bytes are read before the first decision: numba then sees
    that the array needs no reference count.
    """
    order_at, trade_at, shares_at = ORDER_AT[letter], TRADE_AT[letter], SHARES_AT[letter]
    order = _field64(data, begin, order_at)
    trade = _field64(data, begin, trade_at)
    shares = _field32(data, begin, shares_at, 1)
    price = _field32(data, begin, PRICE_AT[letter], NO_PRICE)
    crossed = _field64(data, begin, CROSSED_AT[letter])
    side = data[np.uint64(begin + SIDE_AT[letter])]
    flag = data[np.uint64(begin + FLAG_AT[letter])]
    why = _TAKEN
    if price == 0:
        why = WHY_PRICE
    if shares == 0:
        why = WHY_SHARES
    if SIDE_AT[letter] != 0 and side != _BUY and side != _SELL:
        why = WHY_SIDE
    extra: Any = 0
    if letter == _C:
        extra = 1 if flag == _NO else 0
        if flag != _YES and flag != _NO:
            why = WHY_PRINTABLE
    elif letter == _Q:
        extra = np.int64(flag)
        if crossed > np.uint64(_MOST_SHARES):
            why = WHY_RANGE
        elif crossed == np.uint64(0):
            why = _NOT_SHOWN
    row.order_lo = order
    row.order_kind = _UINT if order_at != 0 else _NO_ID
    row.trade_lo = trade
    row.trade_kind = _UINT if trade_at != 0 else _NO_ID
    row.size = shares if shares_at != 0 else np.int64(crossed)
    row.price = price
    row.side = SIDE_OF[letter, side & np.uint8(1)]
    row.extra = extra
    return why


@_part
def _stock_fault(data: Any, at: Any, letter: Any, known: Any, rival: Any) -> Any:
    """Why a message that calls its locate by another name than ``known`` is not taken.

    A locate belongs to the symbol it was named with. R renames it at once (a new session); any
    other message with another symbol is dead-lettered, and believed when it comes a second time.
    """
    at += STOCK_AT[letter]
    if data[at] == _SPACE:
        return WHY_STOCK
    padding = False
    for i in range(8):
        byte = data[at + i]
        if byte == _SPACE:
            padding = True
        elif padding or byte < 0x21 or byte > 0x7E:
            return WHY_STOCK
    if known != np.uint64(0) and letter != _R and rival != be64(data, at):
        return WHY_LOCATE
    return _TAKEN


@kernel
def _block(
    data: Any,
    frame: Any,
    end: Any,
    ts_recv: Any,
    rows: Any,
    rare: Any,
    bad: Any,
    locates: Any,
    kept: Any,
    state: Any,
) -> Any:
    """Messages of one frame from the cursor to ``end``: a reason to pause, or DONE.

    One flat loop on purpose: a call that takes arrays costs more than decoding a message.
    """
    at, n_rows, n_rare, n_bad = state[AT], state[ROWS], state[RARES], state[BADS]
    messages, last_ts, closed = state[MESSAGES], state[LAST_TS], state[CLOSED]
    midnight, most, skip = state[MIDNIGHT], np.uint64(_MOST_SHARES), state[SKIP]
    stop = DONE
    while at < end:
        if n_rare == len(rare) or n_bad == len(bad):
            stop = NOTES_FULL
            break
        size = be16(data, at) if at + 2 <= end else np.int64(0)
        begin = at + 2
        next_at = begin + size
        if skip > 0 and size > 0 and next_at <= end:
            # The recording was begun again before this: it has been read.
            skip -= 1
            at = next_at
            continue
        if next_at > end:
            why, next_at = WHY_CUT, end
        elif size == 0:
            # Nasdaq's files end in an empty record, after the end-of-messages event.
            why = _EMPTY_END if closed != 0 else WHY_EMPTY
        else:
            letter = data[np.uint64(begin)]
            why = _TAKEN
            if LENGTH[letter] != size:
                why = WHY_TYPE if LENGTH[letter] == 0 else WHY_LENGTH
        if why == _TAKEN:
            kind = KIND[letter]
            since_midnight = (be16(data, begin + 5) << 32) | be32(data, begin + 7)
            slot = MARKET if IS_MARKET_WIDE[letter] != 0 else be16(data, begin + 1)
            stock = STOCK_AT[letter]
            word = _field64(data, begin, stock)
            row = rows[n_rows]
            if kind != 0:
                why = _order_fields(row, data, begin, letter)
            elif letter == _I and max(be64(data, begin + 11), be64(data, begin + 19)) > most:
                why = WHY_RANGE
            if since_midnight >= NS_PER_DAY:
                why = WHY_TIME
            unknown = locates[slot].instrument == -1
            known = locates[slot].word
            if why <= _TAKEN and stock != 0 and (word != known or word == np.uint64(0)):
                unknown = True
                fault = _stock_fault(data, begin, letter, known, locates[slot].rival)
                if fault != _TAKEN:
                    why = fault
                if fault == WHY_LOCATE:
                    locates[slot].rival = word
            if why <= _TAKEN and not unknown and locates[slot].instrument == REFUSED:
                why = WHY_FULL
            if why <= _TAKEN:
                if unknown:
                    state[ASK_SLOT] = slot
                    state[ASK_WORD] = np.int64(word)
                    stop = NAME_WANTED
                    break
                messages += 1
                last_ts = midnight + since_midnight
                instrument = locates[slot].instrument
                if IS_RARE[letter] != 0:
                    _note(rare[n_rare], begin, last_ts, messages, frame, instrument)
                    n_rare += 1
                    if letter == _S:
                        instrument = np.int32(-1)
                        closed = np.int64(data[begin + 11] == _END_OF_MESSAGES)
                if kind != 0 and why == _TAKEN:
                    _common(row, last_ts, ts_recv, messages, frame, instrument, kind)
                    # A row that nobody wants is written all the same, and then over it.
                    n_rows += kept[slot] if instrument >= 0 else 1
        if why > _TAKEN:
            _note_bad(bad[n_bad], at, next_at - at, last_ts, frame, why)
            n_bad += 1
            if why != WHY_CUT and why != WHY_EMPTY:
                messages += 1
        at = next_at
    state[AT], state[ROWS], state[RARES], state[BADS] = at, n_rows, n_rare, n_bad
    state[MESSAGES], state[LAST_TS], state[CLOSED] = messages, last_ts, closed
    state[SKIP] = skip
    return stop


@_part
def _note(row: Any, at: Any, ts: Any, sequence: Any, frame: Any, instrument: Any) -> None:
    row.at = at
    row.ts = ts
    row.sequence = sequence
    row.frame = frame
    row.instrument = instrument


@_part
def _note_bad(row: Any, at: Any, size: Any, ts: Any, frame: Any, why: Any) -> Any:
    row.at = at
    row.ts = ts
    row.size = size
    row.frame = frame
    row.reason = REASON[why]
    row.why = why


@_part
def _common(
    row: Any, ts_event: Any, ts_recv: Any, sequence: Any, frame: Any, instrument: Any, kind: Any
) -> Any:
    row.ts_event = ts_event
    row.ts_recv = ts_recv
    row.sequence = sequence
    row.order_hi = 0
    row.trade_hi = 0
    row.instrument = instrument
    row.count = 0
    row.frame = frame
    row.kind = kind
    row.flags = _LAST
    row.price_scale = _PRICE_SCALE
    row.size_scale = 0
    row.spare = 0


@_part
def _feed_row(row: Any, ts_event: Any, ts_recv: Any, frame: Any, kind: Any) -> Any:
    """A row about the feed itself, at the latest time known."""
    _common(row, ts_event, ts_recv, NO_SEQUENCE, frame, -1, kind)
    row.side = 0
    row.size = 0
    row.price = NO_PRICE
    row.order_lo = 0
    row.order_kind = _NO_ID
    row.trade_lo = 0
    row.trade_kind = _NO_ID
    row.extra = 0


@kernel
def decode(
    data: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    kinds: NDArray[np.int8],
    received: NDArray[np.int64],
    rows: NDArray[Any],
    rare: NDArray[Any],
    bad: NDArray[Any],
    locates: NDArray[Any],
    kept: NDArray[np.uint8],
    state: NDArray[np.int64],
) -> int:
    """Decode frames from the cursor in ``state`` on; returns why it stopped.

    Frame i is ``data[bounds[i]:bounds[i + 1]]``. ``rows`` (EVENT) must hold a row per 14 bytes
    plus one per frame; rows of locates that are not ``kept`` (0) are left out. NAME_WANTED: set
    ``locates[state[ASK_SLOT]]`` (symbol bytes in ``state[ASK_WORD]``, 0 = the message has none)
    and call again. NOTES_FULL: take ``rare`` and ``bad``, set their counts to 0 and call again.
    NOTED: frame ``state[FRAME]`` is about a hole or a line; add its rows, and call again behind it.
    """
    while state[FRAME] < len(kinds):
        frame = state[FRAME]
        begin, end, kind = bounds[frame], bounds[frame + 1], kinds[frame]
        if kind == _DATA:
            state[AT] = max(state[AT], begin)
            stop = _block(data, frame, end, received[frame], rows, rare, bad, locates, kept, state)
            if stop != DONE:
                return int(stop)
        elif kind == _END or kind == _DISCONNECT:
            what = _FEED_END if kind == _END else _LOST
            _feed_row(rows[state[ROWS]], state[LAST_TS], received[frame], frame, what)
            state[ROWS] += 1
        elif kind == _TRUNCATED or kind == _BROKEN:
            if state[BADS] == len(bad):
                return NOTES_FULL
            why = WHY_CUT if kind == _TRUNCATED else WHY_UNPACKED
            _note_bad(bad[state[BADS]], begin, end - begin, state[LAST_TS], frame, why)
            state[BADS] += 1
        elif _GAP <= kind <= _START:
            # One that cannot be read becomes a note of its own.
            return NOTED if state[BADS] < len(bad) else NOTES_FULL
        state[FRAME] = frame + 1
    return DONE
