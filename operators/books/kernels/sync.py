"""The book-sync state machine: may this group be applied, and is the book right afterwards?

One machine for every venue, driven by the instrument's policies (operators.events.INSTRUMENT):

    AWAIT --snapshot--> LIVE --gap, checksum, crossed, capacity, disconnect--> STALE
    STALE --snapshot--> LIVE        SPLICE venues pass through SPLICING, where deltas that came
                                    before the snapshot are replayed onto it

- A book that goes stale is emptied and shown as stale at once, before anything else of its
  instrument. It never shows a wrong level; its next full state makes it valid again.
- A delta is checked before any of it is applied. Repeated or older than what is applied: skipped
  and reported. Later than the next one: GAP, with how much is missing.
- A full state from elsewhere (SPLICE) is taken only if it is newer than what is applied, and not
  older than deltas that can no longer be replayed. Full states of the channel itself
  (IN_STREAM, EVERY) are the venue's word: they always replace.
- Books without a source of full states: NONE goes stale for good (until a CLEAR of the whole
  book, after which it is known again), PARTIAL never claimed to be complete and goes on.
- Holes of a whole sequenced feed are the business of :mod:`.feed_gap` (phases HELD and REJOIN).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import bbo as engine_bbo
from marketflow.operators.books.kernels import levels, orders
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.report import book_event, check_time, fault, quality
from marketflow.operators.books.kernels.show import show_depth, show_quote
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.operators.events import NO_SEQUENCE, Continuity, SnapshotRule
from marketflow.schemas.codes import Action, BookState, QualityKind, RowFlag
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import NO_PRICE

_NONE: Final = int(SnapshotRule.NONE)
_IN_STREAM: Final = int(SnapshotRule.IN_STREAM)
_SPLICE: Final = int(SnapshotRule.SPLICE)
_PARTIAL: Final = int(SnapshotRule.PARTIAL)
_EVERY: Final = int(SnapshotRule.EVERY)
_UNCHECKED: Final = int(Continuity.NONE)
_FIRST_FOLLOWS: Final = int(Continuity.FIRST_FOLLOWS)
_PREVIOUS_EQUALS: Final = int(Continuity.PREVIOUS_EQUALS)
_STEP_ONE: Final = int(Continuity.STEP_ONE)
_GAP: Final = int(QualityKind.GAP)
_DUPLICATE: Final = int(QualityKind.DUPLICATE)
_OUT_OF_ORDER: Final = int(QualityKind.OUT_OF_ORDER)
_BECAME_STALE: Final = int(QualityKind.STALE)
_BECAME_VALID: Final = int(QualityKind.VALID)
_NO_SNAPSHOT: Final = int(QualityKind.NO_SNAPSHOT)
_CAPACITY: Final = int(QualityKind.CAPACITY)
_DISCONNECT: Final = int(QualityKind.DISCONNECT)
_CLEAR: Final = int(Action.CLEAR)
_SNAPSHOT: Final = int(RowFlag.SNAPSHOT)
_LAST: Final = int(RowFlag.LAST)
_MAYBE_BAD: Final = int(RowFlag.MAYBE_BAD)
_STALE_STATE: Final = int(BookState.STALE)

# Verdicts on a delta.
_OK: Final = 0
_SEEN: Final = 1
_OLD: Final = 2
_MISSING: Final = 3

_ZERO: Final = np.uint64(0)


@kernel_part
def has_source(book: Array) -> bool:
    """Will a full state come that can mend the book?"""
    rule = book.snapshot_rule
    return bool(rule == _SPLICE or rule == _IN_STREAM or rule == _EVERY)


@kernel_part
def empty_side(state: Array, side: Word) -> None:
    """All orders and levels of one side go."""
    n = levels.side_row(state, side).top
    while n >= 0:
        node = levels.node_row(state, n)
        for j in range(node.count):
            orders.forget_queue(state, levels.level_row(state, node.refs[j]))
        n = node.prev
    levels.clear(state, side)


@kernel_part
def empty(state: Array, b: Word, ts: Word, row: Array, flags: Word) -> None:
    """The whole book goes, with a CLEAR row in ``book_events`` if there was anything."""
    bids, asks = levels.side_row(state, 2 * b).levels, levels.side_row(state, 2 * b + 1).levels
    if bids == 0 and asks == 0:
        return
    empty_side(state, 2 * b)
    empty_side(state, 2 * b + 1)
    es.book_row(state, b).dirty = es.TOP | es.ANY
    if state[es.EMIT_EVENTS]:
        book_event(state, b, ts, row, _CLEAR, 0, NO_PRICE, NO_PRICE, _ZERO, _ZERO, 0, flags)


@kernel_part
def _show_stale(state: Array, b: Word, ts: Word, row: Array) -> None:
    book = es.book_row(state, b)
    show_quote(state, b, ts, row.ts_recv, row.sequence, _STALE_STATE)
    if state[es.EMIT_DEPTH]:
        show_depth(state, b, ts, row.sequence, _STALE_STATE)
    book.state = _STALE_STATE
    book.dirty = 0
    book.open = 0


@kernel_part
def _announce(state: Array, b: Word, ts: Word, row: Array, cause: Word) -> None:
    book = es.book_row(state, b)
    book.phase = es.STALE
    book.stale_since = max(ts, 1)
    book.cause = cause
    book.capped = 0
    state[es.STALE_BOOKS] += 1
    _show_stale(state, b, ts, row)


@kernel_part
def go_stale(state: Array, b: Word, ts: Word, row: Array, cause: Word) -> None:
    """The book cannot be trusted any more because of quality event ``cause``."""
    book = es.book_row(state, b)
    inside = book.mode == es.APPLY or book.mode == es.SKIP or book.mode == es.BUFFER
    book.mode = es.SKIP if inside else es.WAIT
    book.gone = book.applied
    book.fresh = 0
    empty(state, b, ts, row, _LAST | _MAYBE_BAD)
    state[es.GROUP_EVENT] = -1
    if book.phase == es.LIVE:
        quality(
            state, b, ts, row.ts_recv, _BECAME_STALE, row.sequence, row.sequence,
            NO_PRICE, NO_PRICE, 0, cause,
        )  # fmt: skip
        _announce(state, b, ts, row, cause)
    elif book.phase == es.SPLICING:
        book.phase = es.STALE if book.stale_since != 0 else es.AWAIT
        book.dirty = 0


@kernel_part
def go_live(state: Array, b: Word, ts: Word, row: Array) -> None:
    """The book has its full state; VALID ends an outage that was announced."""
    book = es.book_row(state, b)
    if book.stale_since != 0:
        quality(
            state, b, book.stale_since, row.ts_recv, _BECAME_VALID, row.sequence, row.sequence,
            NO_PRICE, NO_PRICE, ts, book.cause,
        )  # fmt: skip
        state[es.STALE_BOOKS] -= 1
    book.phase = es.LIVE
    book.stale_since = 0
    book.cause = -1
    book.capped = 0


@kernel_part
def miss_snapshot(state: Array, b: Word, ts: Word, row: Array) -> None:
    """Deltas, and no full state to apply them to: said once, and the book shown as stale."""
    book = es.book_row(state, b)
    since = book.first_delta_ts if book.first_delta_ts != 0 else ts
    cause = quality(
        state, b, since, row.ts_recv, _NO_SNAPSHOT, row.sequence, row.sequence,
        NO_PRICE, NO_PRICE, ts if ts > since else 0, -1,
    )  # fmt: skip
    _announce(state, b, ts, row, cause)
    book.stale_since = max(since, 1)


@kernel_part
def _delta_verdict(book: Array, first: Word, last: Word, previous: Word) -> Word:
    """How a delta chains to what is applied (both known)."""
    applied, rule = book.applied, book.continuity
    if rule == _PREVIOUS_EQUALS and previous == applied:
        # Also a repeated id without changes (OKX keep-alive) and a venue that restarts its ids.
        return _OK
    if last <= applied:
        return _SEEN if last == applied else _OLD
    if rule == _FIRST_FOLLOWS and first != NO_SEQUENCE and first > applied + 1:
        return _MISSING
    if rule == _PREVIOUS_EQUALS and previous != NO_SEQUENCE and previous > applied:
        return _MISSING
    if rule == _STEP_ONE and last > applied + 1:
        return _MISSING
    return _OK


@kernel_part
def _splice_verdict(book: Array, first: Word, last: Word, previous: Word) -> Word:
    """Does the first delta after a spliced snapshot reach across its id? _SEEN: it is inside."""
    applied, rule = book.applied, book.continuity
    # Futures chains name the snapshot's own id as the next one's previous: last == id is applied.
    if last < applied or (last == applied and rule != _PREVIOUS_EQUALS):
        return _SEEN
    crosses = first != NO_SEQUENCE and first <= applied + 1
    if rule == _FIRST_FOLLOWS and first != NO_SEQUENCE and not crosses:
        return _MISSING
    if rule == _PREVIOUS_EQUALS and previous != NO_SEQUENCE and previous > applied:
        if book.first_overlap == 0 or not crosses:
            return _MISSING
    if rule == _STEP_ONE and last > applied + 1:
        return _MISSING
    return _OK


@kernel_part
def drop_pending(state: Array, b: Word) -> None:
    """Forget the buffered rows of a book; the others close up in order."""
    book = es.book_row(state, b)
    if book.pending == 0:
        return
    rows, offsets = es.all_pending(state), es.all_pending_offsets(state)
    kept = 0
    for i in range(state[es.N_PENDING]):
        if rows[i].instrument != book.instrument:
            rows[kept] = rows[i]
            offsets[kept] = offsets[i]
            kept += 1
    state[es.N_PENDING] = kept
    book.pending = 0
    book.gone = book.buffered_last


@kernel_part
def buffer_row(state: Array, b: Word, row: Array) -> None:
    """Keep one row for the next snapshot."""
    n = state[es.N_PENDING]
    state[es.N_PENDING] = n + 1
    es.all_pending(state)[n] = row
    es.pending_row(state, n).frame = 0  # of a batch long gone when it is replayed
    known = 0 <= row.frame < state[es.OFFSETS + 1]
    es.all_pending_offsets(state)[n] = es.all_offsets(state)[row.frame] if known else -1
    es.book_row(state, b).pending += 1


@kernel_part
def _buffer_group(state: Array, b: Word, row: Array, ts: Word, rows: Word) -> None:
    """BUFFER for a delta of ``rows`` rows, SKIP where it would pass a cap.

    At a cap all that the book has buffered is dropped (reported once per outage) and buffering
    starts over: the next snapshot will be newer than what was dropped.
    """
    book = es.book_row(state, b)
    if book.first_delta_ts == 0:
        book.first_delta_ts = ts
    book.mode = es.BUFFER
    if (
        book.pending + rows > state[es.MAX_PENDING_BOOK]
        or state[es.N_PENDING] + rows > state[es.MAX_PENDING]
    ):
        if book.capped == 0:
            cap = min(state[es.MAX_PENDING_BOOK], state[es.MAX_PENDING])
            fault(state, b, ts, row.ts_recv, _CAPACITY, row.sequence, row.sequence, cap)
            book.capped = 1
        drop_pending(state, b)
        if rows > state[es.MAX_PENDING_BOOK] or state[es.N_PENDING] + rows > state[es.MAX_PENDING]:
            book.mode = es.SKIP
            book.gone = row.sequence
    if book.mode == es.BUFFER:
        book.buffered_last = row.sequence
        buffer_row(state, b, row)
    if book.phase == es.AWAIT and ts - book.first_delta_ts > state[es.SNAPSHOT_WAIT_NS]:
        miss_snapshot(state, b, ts, row)


@kernel_part
def hold(state: Array, b: Word, row: Array, ts: Word, cause: Word) -> None:
    """A LIVE book that misses something which may still come before anything else does: shown as
    stale, kept as it is."""
    quality(
        state, b, ts, row.ts_recv, _BECAME_STALE, row.sequence, row.sequence,
        NO_PRICE, NO_PRICE, 0, cause,
    )  # fmt: skip
    _announce(state, b, ts, row, cause)
    book = es.book_row(state, b)
    book.phase = es.HELD
    book.mode = es.WAIT


@kernel_part
def lose_held(state: Array, b: Word, row: Array, ts: Word) -> None:
    """A HELD book, whose missing messages will not come: empty and stale like any other."""
    book = es.book_row(state, b)
    empty(state, b, ts, row, _LAST | _MAYBE_BAD)
    book.dirty = 0
    state[es.GROUP_EVENT] = -1
    book.phase = es.REJOIN if book.snapshot_rule == _PARTIAL else es.STALE


@kernel_part
def go_on(state: Array, b: Word, row: Array, ts: Word) -> None:
    """A book row for a HELD book means that the feed went on with the hole in it; for a REJOIN one
    that it may begin anew, as where a feed is joined in mid-session."""
    book = es.book_row(state, b)
    if book.phase == es.HELD:
        lose_held(state, b, row, ts)
    if book.phase == es.REJOIN:
        go_live(state, b, ts, row)
        book.applied = NO_SEQUENCE
        book.mode = es.DIRECT


@kernel_part
def _begin_snapshot(state: Array, b: Word, row: Array, ts: Word) -> None:
    book, rule = es.book_row(state, b), es.book_row(state, b).snapshot_rule
    last, applied = row.sequence, book.applied
    known = last != NO_SEQUENCE
    if rule == _SPLICE and known:
        floor = applied if book.phase == es.LIVE else book.gone
        if floor != NO_SEQUENCE and (last < floor or (last == floor and book.phase == es.LIVE)):
            state[es.SNAPSHOTS_IGNORED] += 1
            book.mode = es.SKIP
            return
    if rule == _EVERY and book.continuity != _UNCHECKED and known and applied != NO_SEQUENCE:
        if last < applied and book.phase == es.LIVE:
            fault(state, b, ts, row.ts_recv, _OUT_OF_ORDER, last, last, applied - last)
            book.mode = es.SKIP
            return
    book.mode = es.APPLY
    book.snapshot = 1
    empty(state, b, ts, row, _SNAPSHOT)


@kernel_part
def _begin_delta(state: Array, b: Word, row: Array, ts: Word, rows: Word) -> None:
    book, rule = es.book_row(state, b), es.book_row(state, b).snapshot_rule
    if book.phase == es.AWAIT or book.phase == es.STALE:
        book.mode = es.SKIP
        if rule == _SPLICE:
            _buffer_group(state, b, row, ts, rows)
        elif book.phase == es.AWAIT:
            miss_snapshot(state, b, ts, row)
        return
    first, last, previous = np.int64(row.order_lo), row.sequence, np.int64(row.order_hi)
    verdict = _OK
    if book.continuity != _UNCHECKED and last != NO_SEQUENCE and book.applied != NO_SEQUENCE:
        if book.fresh:
            verdict = _splice_verdict(book, first, last, previous)
            if verdict == _SEEN:
                book.mode = es.SKIP
                return
        else:
            verdict = _delta_verdict(book, first, last, previous)
    book.mode = es.APPLY
    if verdict == _SEEN or verdict == _OLD:
        kind = _DUPLICATE if verdict == _SEEN else _OUT_OF_ORDER
        fault(state, b, ts, row.ts_recv, kind, last, last, book.applied - last)
        book.mode = es.SKIP
    elif verdict == _MISSING:
        until = last - 1
        if book.continuity == _FIRST_FOLLOWS:
            until = first - 1
        elif book.continuity == _PREVIOUS_EQUALS:
            until = previous
        # A snapshot too old for what is buffered is no gap of the feed: the next one will do.
        too_old = book.phase == es.SPLICING and book.fresh
        cause = -1
        if not too_old:
            missing = until - book.applied
            cause = fault(state, b, ts, row.ts_recv, _GAP, book.applied + 1, until, missing)
        if rule != _PARTIAL:
            go_stale(state, b, ts, row, cause)
            if rule == _SPLICE:
                _buffer_group(state, b, row, ts, rows)


@kernel_part
def begin(state: Array, b: Word, row: Array, ts: Word, rows: Word) -> None:
    """BEGIN: decide what happens to a group of ``rows`` rows (BEGIN and END among them)."""
    book = es.book_row(state, b)
    if state[es.REPLAYING] == 0:
        check_time(state, b, row, ts)
    if book.phase == es.HELD or book.phase == es.REJOIN:
        go_on(state, b, row, ts)
    book.group_sequence = row.sequence
    book.group_no_ops = 0
    book.snapshot = 0
    state[es.GROUP_EVENT] = -1
    if row.flags & _SNAPSHOT or book.snapshot_rule == _EVERY:
        _begin_snapshot(state, b, row, ts)
    else:
        _begin_delta(state, b, row, ts, rows)


@kernel_part
def settle(book: Array) -> None:
    """Outside brackets again."""
    book.mode = es.DIRECT if book.phase == es.LIVE else es.WAIT


@kernel_part
def disconnect(state: Array, b: Word, row: Array, ts: Word) -> None:
    """The connection was lost: what came between is unknown, so books with a source of full
    states wait for one. Sequence numbers may start anew."""
    book = es.book_row(state, b)
    cause = fault(state, b, ts, row.ts_recv, _DISCONNECT, NO_SEQUENCE, NO_SEQUENCE, NO_PRICE)
    if not has_source(book):
        return
    if book.phase == es.LIVE:
        go_stale(state, b, ts, row, cause)
    drop_pending(state, b)
    settle(book)
    book.applied = NO_SEQUENCE
    book.gone = NO_SEQUENCE
    engine_bbo.forget_quotes(book)


@kernel_part
def whole_clear(state: Array, b: Word, row: Array, ts: Word) -> None:
    """CLEAR of a whole book outside brackets: it is known again where no other source tells."""
    book = es.book_row(state, b)
    if book.phase != es.LIVE and book.snapshot_rule != _SPLICE:
        go_live(state, b, ts, row)
        book.mode = es.DIRECT
