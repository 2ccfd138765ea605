"""The end of a message group: truncate, verify, judge, show."""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import bbo as engine_bbo
from marketflow.operators.books.kernels import levels, orders, sync
from marketflow.operators.books.kernels import show as engine_show
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.report import book_event, fault, quality
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.operators.events import NO_SEQUENCE, SnapshotRule
from marketflow.schemas.codes import Action, BookState, QualityKind, RowFlag
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import NO_PRICE

_SPLICE: Final = int(SnapshotRule.SPLICE)
_CROSSED_STATE: Final = int(BookState.CROSSED)
_LOCKED_STATE: Final = int(BookState.LOCKED)
_CROSSED: Final = int(QualityKind.CROSSED)
_LOCKED: Final = int(QualityKind.LOCKED)
_BAD_CHECKSUM: Final = int(QualityKind.BAD_CHECKSUM)
_NO_OP: Final = int(QualityKind.NO_OP)
_CANCEL: Final = int(Action.CANCEL)
_LAST: Final = int(RowFlag.LAST)
_CRC_MASK: Final = 0xFFFFFFFF
_ZERO: Final = np.uint64(0)


@kernel_part
def excess(state: Array, b: Word) -> Word:
    """Levels beyond those the venue maintains, after one more row at most."""
    most = es.book_row(state, b).max_levels
    if most <= 0:
        return 0
    bids, asks = levels.side_row(state, 2 * b).levels, levels.side_row(state, 2 * b + 1).levels
    return max(bids + 1 - most, 0) + max(asks + 1 - most, 0)


@kernel_part
def _truncate(state: Array, b: Word, row: Array, ts: Word) -> None:
    """Drop what is beyond the levels the venue maintains: it will not tell when they go."""
    book = es.book_row(state, b)
    for side in range(2 * b, 2 * b + 2):
        while levels.side_row(state, side).levels > book.max_levels:
            ref = levels.worst(state, side)
            level = levels.level_row(state, ref)
            price = level.price
            orders.forget_queue(state, level)
            leaf, slot, _ = levels.seek(state, side, -price if side & 1 else price)
            levels.remove(state, side, leaf, slot)
            state[es.DEPTH_TRUNCATED] += 1
            if state[es.EMIT_EVENTS]:
                book_event(
                    state, b, ts, row, _CANCEL, (side & 1) + 1, price, 0, _ZERO, _ZERO, 0,
                    row.flags,
                )  # fmt: skip


@kernel_part
def show(state: Array, b: Word, row: Array, ts: Word, sequence: Word) -> bool:
    """Judge a LIVE book at the end of a group and show what changed; False: it went stale."""
    book = es.book_row(state, b)
    book_state = engine_show.state_of(state, b)
    if book_state != book.state and book.may_cross == 0:
        if book_state == _CROSSED_STATE:
            cause = fault(state, b, ts, row.ts_recv, _CROSSED, row.sequence, row.sequence, NO_PRICE)
            if sync.has_source(book):
                sync.go_stale(state, b, ts, row, cause)
                return False
        elif book_state == _LOCKED_STATE:
            fault(state, b, ts, row.ts_recv, _LOCKED, row.sequence, row.sequence, NO_PRICE)
    engine_show.show_quote(state, b, ts, row.ts_recv, sequence, book_state)
    if state[es.EMIT_DEPTH]:
        engine_show.show_depth(state, b, ts, sequence, book_state)
    book.state = book_state
    book.dirty = 0
    if book.bbo >= 0:
        engine_bbo.compare_at_group_end(state, b, ts, row.ts_recv)
    return True


@kernel_part
def close_direct(state: Array, b: Word, row: Array, ts: Word) -> None:
    """End of a group outside brackets that changed something."""
    book = es.book_row(state, b)
    if book.phase != es.LIVE:
        return
    if book.max_levels > 0:
        _truncate(state, b, row, ts)
    if not show(state, b, row, ts, row.sequence):
        book.mode = es.WAIT


@kernel_part
def _verify(state: Array, b: Word, row: Array, ts: Word) -> bool:
    """The venue's checksum, where END carries one."""
    if row.count != 1 or es.book_row(state, b).checksum_rule == 0:
        return True
    own, expected = engine_show.checksum_of(state, b), row.size & _CRC_MASK
    if own == expected:
        state[es.CHECKSUMS_VERIFIED] += 1
        return True
    state[es.CHECKSUMS_FAILED] += 1
    cause = quality(
        state, b, ts, row.ts_recv, _BAD_CHECKSUM, row.sequence, row.sequence, own, expected, 0, -1
    )
    sync.go_stale(state, b, ts, row, cause)
    return False


@kernel_part
def _crossed(state: Array, b: Word, row: Array, ts: Word) -> bool:
    """Is the full state just taken crossed? Then it is no way out of an outage."""
    if es.book_row(state, b).may_cross or engine_show.state_of(state, b) != _CROSSED_STATE:
        return False
    cause = fault(state, b, ts, row.ts_recv, _CROSSED, row.sequence, row.sequence, NO_PRICE)
    sync.go_stale(state, b, ts, row, cause)
    return True


@kernel_part
def _reveal(state: Array, b: Word, row: Array, ts: Word) -> None:
    """The full state (and what was replayed onto it) is complete: show it."""
    book = es.book_row(state, b)
    if book.phase != es.LIVE:
        if sync.has_source(book) and _crossed(state, b, row, ts):
            return
        sync.go_live(state, b, ts, row)
        if book.bbo_tolerance > 0:
            engine_bbo.forget_quotes(book)
    show(state, b, row, ts, book.applied)


@kernel_part
def end(state: Array, b: Word, row: Array, ts: Word, resumed: bool) -> Word:
    """END of a bracketed group; REPLAY if buffered rows must be applied first, else DONE.

    After REPLAY it is called once more, ``resumed``, with the same row.
    """
    book = es.book_row(state, b)
    if resumed:
        if book.phase == es.SPLICING:
            _reveal(state, b, row, ts)
        sync.settle(book)
        return es.DONE
    if book.mode == es.BUFFER:
        sync.buffer_row(state, b, row)
    if book.mode == es.APPLY:
        if book.max_levels > 0:
            _truncate(state, b, row, ts)
        if state[es.GROUP_EVENT] >= 0:
            es.event_out(state, state[es.GROUP_EVENT]).flags |= _LAST
        if book.group_no_ops > 0:
            fault(state, b, ts, row.ts_recv, _NO_OP, row.sequence, row.sequence, book.group_no_ops)
        if book.snapshot or book.group_sequence != NO_SEQUENCE:
            book.applied = book.group_sequence
        book.fresh = 1 if book.snapshot and book.snapshot_rule == _SPLICE else 0
        if _verify(state, b, row, ts) and book.phase != es.SPLICING:
            if book.snapshot and book.pending > 0:
                book.phase = es.SPLICING
                state[es.GROUP_EVENT] = -1
                return es.REPLAY
            if book.snapshot:
                _reveal(state, b, row, ts)
            else:
                show(state, b, row, ts, book.applied)
    state[es.GROUP_EVENT] = -1
    sync.settle(book)
    return es.DONE
