"""Slow twin of operators.books.core: the obvious Python version of books, sync and their rows.

Dictionaries and sorting in place of trees and pools, Decimals in place of mantissas, whole groups
in place of rows. Rows come out as dicts of the table's columns (times and null times as ints and
None, no identity, no venue). It has no caps.
"""

from __future__ import annotations

from decimal import localcontext
from typing import Any

from marketflow.operators.events import Continuity, Instruments
from marketflow.operators.events import EventKind as K
from marketflow.operators.events import SnapshotRule as S
from marketflow.schemas.units import NO_PRICE, text_of
from tests.reference.book_changes import TwinChanges
from tests.reference.book_show import SOURCES
from tests.reference.book_state import Book, Q, Row, known, signed
from tests.reference.checksum import checksum

HOLES = (K.GAP, K.FILLED, K.LOST)
RARE_GROUPS = (K.TRADE, K.BUST, K.CORRECTION, K.VENUE_BID, K.VENUE_ASK)


class TwinShard(TwinChanges):
    """``apply(rows, instruments)`` returns the rows of each table."""

    # Rows in and out.

    def apply(self, rows: Any, instruments: Instruments) -> dict[str, list[Row]]:
        with localcontext(prec=80):
            return self._apply(rows, instruments)

    def _apply(self, rows: Any, instruments: Instruments) -> dict[str, list[Row]]:
        self.out = {}
        todo = self.carried + [dict(zip(rows.dtype.names, r, strict=True)) for r in rows.tolist()]
        self.carried = []
        i = 0
        while i < len(todo):
            row = todo[i]
            if row["instrument"] >= 0:
                self._book_for(row["instrument"], instruments)
            if row["kind"] == K.BEGIN:
                j = i + 1
                while j < len(todo) and todo[j]["kind"] not in (K.END, K.BEGIN, K.FEED_END):
                    if todo[j]["instrument"] != row["instrument"]:
                        break
                    j += 1
                if j == len(todo):
                    self.carried = todo[i:]
                    break
                if todo[j]["kind"] == K.END and todo[j]["instrument"] == row["instrument"]:
                    self._group(todo[i : j + 1])
                    i = j + 1
                else:
                    self._incomplete(row, todo[j]["kind"] == K.FEED_END)
                    i = j
                continue
            if row["instrument"] < 0:
                self._everybody(row)
            elif row["kind"] != K.END:
                self._direct(self.books[row["instrument"]], row)
            i += 1
        wanted = self.config.tables | {"dead_letters"}
        return {name: rows for name, rows in self.out.items() if name in wanted}

    def _book_for(self, index: int, instruments: Instruments) -> None:
        if index not in self.books:
            names = instruments.rows.dtype.names or ()
            policy = dict(zip(names, instruments.rows[index].tolist(), strict=True))
            book = Book(index, policy, instruments.symbols[index])
            if policy["snapshot_rule"] in (S.NONE, S.PARTIAL):
                book.phase = "live"
            self.books[index] = book

    # Outside brackets.

    def _everybody(self, row: Row) -> None:
        for book in self.books.values():
            ts = self._time(book, row)
            if row["kind"] == K.DISCONNECT:
                self._disconnect(book, row, ts)
            elif row["kind"] in HOLES:
                self._hole(book, row, ts)
            elif row["kind"] == K.FEED_END:
                self._settle_at_end(book, row, ts)
                if book.open:
                    self._fault(book, Q.INCOMPLETE_GROUP, ts, row, sequence=None)
                    book.open = False
                if book.phase == "await" and book.first_delta:
                    self._miss(book, row, ts)

    def _direct(self, book: Book, row: Row) -> None:
        ts, kind = self._time(book, row), row["kind"]
        if kind <= K.ORDER_SIZE:
            self._go_on(book, row, ts)
            if book.phase == "live":
                book.mode = "direct"
                self._change(book, row, ts)
                book.open = book.phase == "live"
            else:
                self._kept_out(book, row, ts, waits=True)
        elif kind in (K.TRADE, K.BUST, K.CORRECTION):
            self._print(book, row, ts)
        elif kind in (K.VENUE_BID, K.VENUE_ASK):
            self._venue(book, row, ts)
        elif kind == K.DISCONNECT:
            self._disconnect(book, row, ts)
        elif kind in HOLES:
            self._hole(book, row, ts)
        elif kind == K.LINE:
            self._line(book, row, ts)
        if row["flags"] & 1:
            if kind not in RARE_GROUPS:
                self._check_time(book, row)
            book.open = False
            if book.changed and book.phase == "live":
                self._truncate(book, row, ts)
                self._show(book, row, ts, known(row["sequence"]))
            book.changed = False

    def _kept_out(self, book: Book, row: Row, ts: int, waits: bool) -> None:
        if row["kind"] == K.EXECUTE and book.phase != "live":
            self._execute(book, row, ts, live=False)
        if waits and row["kind"] == K.CLEAR and row["side"] == 0:
            if book.policy["snapshot_rule"] != S.SPLICE:
                self._go_live(book, row, ts)
        elif waits and book.phase == "await":
            self._miss(book, row, ts)

    def _incomplete(self, row: Row, at_end: bool) -> None:
        book = self.books[row["instrument"]]
        ts = self._time(book, row)
        cause = self._fault(book, Q.INCOMPLETE_GROUP, ts, row)
        if not at_end and book.phase == "live" and book.policy["snapshot_rule"] in SOURCES:
            self._go_stale(book, row, ts, cause)

    def _disconnect(self, book: Book, row: Row, ts: int) -> None:
        cause = self._fault(book, Q.DISCONNECT, ts, row, sequence=None)
        if book.policy["snapshot_rule"] in SOURCES:
            if book.phase == "live":
                self._go_stale(book, row, ts, cause)
            book.buffer.clear()
            book.applied = book.gone = None
            book.venue_quotes, book.waiting, book.own = [], [], []
            book.mismatched = False

    # Holes of a whole feed, and its lines.

    def _hole(self, book: Book, row: Row, ts: int) -> None:
        rule = book.policy["snapshot_rule"]
        if row["kind"] == K.FILLED:
            if book.phase == "held":
                self._go_live(book, row, ts)
                self._show(book, row, ts, known(row["sequence"]))
            return
        lost = {"sequence_from": signed(row["order_lo"])}
        lost["value"] = row["sequence"] - lost["sequence_from"] + 1
        if not book.policy["book_type"]:
            if row["instrument"] >= 0:
                self._fault(book, Q.GAP, ts, row, **lost)
            return
        if book.phase == "held" and row["kind"] == K.LOST:
            self._lose_held(book, row, ts)
        elif book.phase == "live":
            cause = self._fault(book, Q.GAP, ts, row, **lost)
            if row["kind"] == K.GAP and rule not in SOURCES:
                self._fault(book, Q.STALE, ts, row, cause_id=cause)
                book.phase, book.stale_since, book.cause = "held", max(ts, 1), cause
                self._show_stale(book, row, ts)
            else:
                self._go_stale(book, row, ts, cause)
                book.phase = "rejoin" if rule == S.PARTIAL else "stale"

    def _lose_held(self, book: Book, row: Row, ts: int) -> None:
        self._empty(book, row, ts, 1 | 4)
        book.changed = False
        book.phase = "rejoin" if book.policy["snapshot_rule"] == S.PARTIAL else "stale"

    def _go_on(self, book: Book, row: Row, ts: int) -> None:
        """A book row for a book that waits for no other."""
        if book.phase == "held":
            self._lose_held(book, row, ts)
        if book.phase == "rejoin":
            self._go_live(book, row, ts)
            book.applied = None

    def _line(self, book: Book, row: Row, ts: int) -> None:
        if row["extra"] == Q.LINE_RECOVERED:
            since = book.stale_since or ts
            self._fault(
                book, Q.LINE_RECOVERED, since, row, ts_until=ts or None, cause_id=book.cause
            )
            book.stale_since, book.cause = 0, None
            return
        value = None if row["size"] == NO_PRICE else row["size"]
        cause = self._fault(book, Q(row["extra"]), ts, row, value=value)
        if not book.stale_since:
            book.stale_since, book.cause = max(ts, 1), cause

    # Groups.

    def _group(self, rows: list[Row]) -> None:
        begin, end = rows[0], rows[-1]
        book = self.books[begin["instrument"]]
        ts = self._time(book, begin)
        self._check_time(book, begin)
        self._go_on(book, begin, ts)
        self.group_events = []
        snapshot = bool(begin["flags"] & 2) or book.policy["snapshot_rule"] == S.EVERY
        if snapshot:
            book.mode = "apply" if self._takes_snapshot(book, begin, ts) else "skip"
            if book.mode == "apply":
                self._empty(book, begin, ts, 2)
        else:
            book.mode = self._delta_mode(book, begin, ts, rows)
        no_ops = 0
        for row in rows[1:-1]:
            ts = self._time(book, row)
            if row["kind"] <= K.ORDER_SIZE:
                if book.mode == "apply":
                    no_ops += self._change(book, row, ts)
                elif book.mode == "skip":
                    self._kept_out(book, row, ts, waits=False)
            elif row["kind"] in (K.TRADE, K.BUST, K.CORRECTION):
                self._print(book, row, ts)
            elif row["kind"] in (K.VENUE_BID, K.VENUE_ASK):
                self._venue(book, row, ts)
        if book.mode == "apply":
            self._end(book, begin, end, snapshot, no_ops)
        book.mode = "direct"
        self.group_events = None

    def _end(self, book: Book, begin: Row, end: Row, snapshot: bool, no_ops: int) -> None:
        ts = self._time(book, end)
        self._truncate(book, end, ts)
        if self.group_events:
            self.group_events[-1]["flags"] |= 1
        if no_ops:
            self._fault(book, Q.NO_OP, ts, end, value=no_ops)
        last = known(begin["sequence"])
        if snapshot or last is not None:
            book.applied = last
        book.fresh = snapshot and book.policy["snapshot_rule"] == S.SPLICE
        if not self._verified(book, end, ts) or book.phase == "splicing":
            return
        if snapshot and book.buffer:
            book.phase = "splicing"
            groups, book.buffer = book.buffer, []
            self.replaying = True
            for group in groups:
                self._group(group)
            self.replaying = False
            if book.phase != "splicing":
                return
        if snapshot and book.phase != "live":
            mendable = book.policy["snapshot_rule"] in SOURCES and not book.policy["may_cross"]
            if mendable and self._state(book) == "crossed":
                self._go_stale(book, end, ts, self._fault(book, Q.CROSSED, ts, end))
                return
            self._go_live(book, end, ts)
            if book.policy["bbo_tolerance"]:
                book.venue_quotes, book.waiting, book.own, book.mismatched = [], [], [], False
        self._show(book, end, ts, book.applied)

    def _verified(self, book: Book, end: Row, ts: int) -> bool:
        rule = book.policy["checksum_rule"]
        if end["count"] != 1 or rule == 0:
            return True
        tops = [
            [side[p].sent for p in sorted(side, reverse=not k)][:25]
            for k, side in enumerate(book.sides)
        ]
        texts = [[(text_of(*p), text_of(*s)) for p, s in top] for top in tops]
        own, expected = checksum(rule, *texts), end["size"] & 0xFFFFFFFF
        if own == expected:
            return True
        cause = self._fault(book, Q.BAD_CHECKSUM, ts, end, value=own, expected=expected)
        self._go_stale(book, end, ts, cause)
        return False

    # Sync.

    def _takes_snapshot(self, book: Book, row: Row, ts: int) -> bool:
        rule, last = book.policy["snapshot_rule"], known(row["sequence"])
        if last is None:
            return True
        if rule == S.SPLICE:
            if book.phase == "live":
                return book.applied is None or last > book.applied
            return book.gone is None or last >= book.gone
        checked = rule == S.EVERY and book.policy["continuity"] != Continuity.NONE
        if checked and book.phase == "live" and book.applied is not None and last < book.applied:
            self._fault(book, Q.OUT_OF_ORDER, ts, row, value=book.applied - last)
            return False
        return True

    def _delta_mode(self, book: Book, row: Row, ts: int, group: list[Row]) -> str:
        rule = book.policy["snapshot_rule"]
        if book.phase in ("await", "stale"):
            if rule == S.SPLICE:
                return self._buffer(book, row, ts, group)
            if book.phase == "await":
                self._miss(book, row, ts)
            return "skip"
        first, previous = (known(signed(row[n])) for n in ("order_lo", "order_hi"))
        last, chain = known(row["sequence"]), book.policy["continuity"]
        if chain == Continuity.NONE or last is None or book.applied is None:
            return "apply"
        verdict, until = self._chains(book, chain, first, last, previous)
        if verdict in ("seen", "old"):
            kind = Q.DUPLICATE if verdict == "seen" else Q.OUT_OF_ORDER
            self._fault(book, kind, ts, row, value=book.applied - last)
            return "skip"
        if verdict == "inside":
            return "skip"
        if verdict == "gap":
            cause = None
            if not (book.phase == "splicing" and book.fresh):
                lost = {"sequence_from": book.applied + 1, "sequence_to": until}
                value = until - book.applied
                cause = self._fault(book, Q.GAP, ts, row, value=value, **lost)
            if rule == S.PARTIAL:
                return "apply"
            self._go_stale(book, row, ts, cause)
            return self._buffer(book, row, ts, group) if rule == S.SPLICE else "skip"
        return "apply"

    def _chains(
        self, book: Book, chain: int, first: int | None, last: int, previous: int | None
    ) -> tuple[str, int]:
        applied = book.applied
        assert applied is not None
        if chain == Continuity.FIRST_FOLLOWS:
            until, hole = (first or 0) - 1, first is not None and first > applied + 1
        elif chain == Continuity.PREVIOUS_EQUALS:
            until, hole = previous or 0, previous is not None and previous > applied
        else:
            until, hole = last - 1, chain == Continuity.STEP_ONE and last > applied + 1
        if book.fresh:
            if last < applied or (last == applied and chain != Continuity.PREVIOUS_EQUALS):
                return "inside", 0
            if chain == Continuity.PREVIOUS_EQUALS and book.policy["first_overlap"]:
                hole = hole and not (first is not None and first <= applied + 1)
        else:
            if chain == Continuity.PREVIOUS_EQUALS and previous == applied:
                return "ok", 0
            if last <= applied:
                return ("seen" if last == applied else "old"), 0
        return ("gap", until) if hole else ("ok", 0)

    def _buffer(self, book: Book, row: Row, ts: int, group: list[Row]) -> str:
        book.first_delta = book.first_delta or ts
        book.buffer.append(
            [r for r in group if r["kind"] <= K.ORDER_SIZE or r["kind"] in (K.BEGIN, K.END)]
        )
        if book.phase == "await" and ts - book.first_delta > self.config.snapshot_wait_ns:
            self._miss(book, row, ts)
        return "buffer"

    def _miss(self, book: Book, row: Row, ts: int) -> None:
        since = book.first_delta or ts
        until = ts if ts > since else None
        book.cause = self._fault(book, Q.NO_SNAPSHOT, since, row, ts_until=until)
        self._show_stale(book, row, ts)
        book.phase, book.stale_since = "stale", max(since, 1)

    def _go_stale(self, book: Book, row: Row, ts: int, cause: int | None) -> None:
        book.mode = "skip"
        book.gone, book.fresh = book.applied, False
        self._empty(book, row, ts, 1 | 4)
        self.group_events = None if self.group_events is None else []
        if book.phase == "live":
            self._fault(book, Q.STALE, ts, row, cause_id=cause)
            book.phase, book.stale_since, book.cause = "stale", max(ts, 1), cause
            self._show_stale(book, row, ts)
        elif book.phase == "splicing":
            book.phase = "stale" if book.stale_since else "await"
        book.changed = False

    def _go_live(self, book: Book, row: Row, ts: int) -> None:
        if book.stale_since:
            self._fault(book, Q.VALID, book.stale_since, row, ts_until=ts, cause_id=book.cause)
        book.phase, book.stale_since, book.cause = "live", 0, None
