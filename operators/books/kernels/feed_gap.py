"""Holes of a whole sequenced feed, and its lines: what they mean for books.

ITCH and its like number the messages of a feed, not those of a book: when some are missing, any
book may be concerned, so every book is.

- GAP: the messages may still come, and nothing else comes before. The book is shown as stale and
  kept as it is (HELD).
- FILLED: they have come: the book is valid again, for it is right as of the message before them.
- LOST: they never will. The book is emptied. One without a source of full states that was
  complete (NONE) stays stale for good; one of a feed that was joined in mid-session (PARTIAL)
  is stale until its own next row and begins anew with it, as incomplete as it began; any other
  waits for its next full state.

An instrument without a book (the market's own, a line's) only records what is said of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import close as engine_close
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels import sync
from marketflow.operators.books.kernels.report import fault, quality
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.operators.events import EventKind, SnapshotRule
from marketflow.schemas.codes import QualityKind
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import NO_PRICE

_GAP_ROW: Final = int(EventKind.GAP)
_FILLED: Final = int(EventKind.FILLED)
_PARTIAL: Final = int(SnapshotRule.PARTIAL)
_GAP: Final = int(QualityKind.GAP)
_RECOVERED: Final = int(QualityKind.LINE_RECOVERED)


@kernel_part
def _told(state: Array, b: Word, row: Array, ts: Word) -> Word:
    first, last = np.int64(row.order_lo), row.sequence
    return fault(state, b, ts, row.ts_recv, _GAP, first, last, last - first + 1)


@kernel_part
def apply(state: Array, b: Word, row: Array, ts: Word) -> None:
    """A GAP, FILLED or LOST row for one book."""
    book = es.book_row(state, b)
    if row.kind == _FILLED:
        if book.phase == es.HELD:
            sync.go_live(state, b, ts, row)
            book.mode = es.DIRECT
            engine_close.show(state, b, row, ts, row.sequence)
        return
    if book.has_book == 0:
        if row.instrument >= 0:  # what concerns everybody it has been told by a row of its own
            _told(state, b, row, ts)
        return
    if book.phase == es.HELD:
        if row.kind != _GAP_ROW:
            sync.lose_held(state, b, row, ts)
        return
    if book.phase != es.LIVE:
        return
    cause = _told(state, b, row, ts)
    if row.kind == _GAP_ROW and not sync.has_source(book):
        sync.hold(state, b, row, ts, cause)
        return
    sync.go_stale(state, b, ts, row, cause)
    if book.snapshot_rule == _PARTIAL:
        book.phase = es.REJOIN


@kernel_part
def line(state: Array, b: Word, row: Array, ts: Word) -> None:
    """A LINE row; the instrument is the line."""
    book = es.book_row(state, b)
    if row.extra == _RECOVERED:
        since = book.stale_since if book.stale_since != 0 else ts
        quality(
            state, b, since, row.ts_recv, _RECOVERED, row.sequence, row.sequence,
            NO_PRICE, NO_PRICE, ts, book.cause,
        )  # fmt: skip
        book.stale_since = 0
        book.cause = -1
        return
    cause = fault(state, b, ts, row.ts_recv, row.extra, row.sequence, row.sequence, row.size)
    if book.stale_since == 0:
        book.stale_since = max(ts, 1)
        book.cause = cause
