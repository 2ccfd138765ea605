"""Slow twin of operators.books.core, part 2: quotes, depth, and the venue's own best prices."""

from __future__ import annotations

from typing import Any

from marketflow.operators.events import EventKind as K
from marketflow.operators.events import SnapshotRule as S
from marketflow.schemas.units import NO_PRICE
from tests.reference.book_state import SIDES, Book, Q, Row, TwinBase, known

SOURCES = (S.SPLICE, S.IN_STREAM, S.EVERY)
RING = 64  # groups and quotes that wait to be compared


class TwinShow(TwinBase):
    """What is shown of books."""

    # What is shown.

    def _best(self, book: Book) -> tuple[Any, Any, Any, Any]:
        bids, asks = book.sides
        bid, ask = max(bids, default=None), min(asks, default=None)
        return (
            bid, None if bid is None else bids[bid].size,
            ask, None if ask is None else asks[ask].size,
        )  # fmt: skip

    def _state(self, book: Book) -> str:
        bid, _, ask, _ = self._best(book)
        if bid is None or ask is None:
            return "empty" if bid is None and ask is None else "one_sided"
        return "valid" if bid < ask else "crossed" if bid > ask else "locked"

    def _show_stale(self, book: Book, row: Row, ts: int) -> None:
        self._quote(book, row, ts, known(row["sequence"]), (None,) * 4, "stale")
        self._depth(book, row, ts, known(row["sequence"]), "stale")
        book.state, book.changed, book.open = "stale", False, False

    def _show(self, book: Book, row: Row, ts: int, sequence: int | None) -> None:
        state = self._state(book)
        if state != book.state and not book.policy["may_cross"]:
            if state == "crossed":
                cause = self._fault(book, Q.CROSSED, ts, row)
                if book.policy["snapshot_rule"] in SOURCES:
                    self._go_stale(book, row, ts, cause)
                    return
            elif state == "locked":
                self._fault(book, Q.LOCKED, ts, row)
        self._quote(book, row, ts, sequence, self._best(book), state)
        self._depth(book, row, ts, sequence, state)
        book.state, book.changed = state, False
        self._compare(book, row, ts)

    def _quote(self, book: Book, row: Row, ts: int, sequence: Any, best: Any, state: str) -> None:
        if (best, state) == (book.best, book.state):
            return
        book.best = best
        names = ("bid_price", "bid_size", "ask_price", "ask_size")
        self._put(
            "quotes", book, ts, row, **dict(zip(names, best, strict=True)), sequence=sequence,
            origin="book", book_state=state,
        )  # fmt: skip

    def _depth(self, book: Book, row: Row, ts: int, sequence: Any, state: str) -> None:
        if "depth" not in self.config.tables:
            return
        interval = self.config.depth_interval_ns
        was_stale = book.depth is not None and book.depth["book_state"] == "stale"
        if interval and state != "stale" and not was_stale:
            if ts // interval <= book.bucket:
                return
            book.bucket = ts // interval
        shown: Row = {"book_state": state}
        for k, side in enumerate(book.sides):
            most = 0 if state == "stale" else self.config.depth_levels
            prices = sorted(side, reverse=not k)[:most]
            shown[f"{SIDES[k + 1]}_prices"] = prices
            shown[f"{SIDES[k + 1]}_sizes"] = [side[p].size for p in prices]
            shown[f"{SIDES[k + 1]}_counts"] = [side[p].count for p in prices]
        if shown != book.depth:
            book.depth = shown
            self._put("depth", book, ts, row, **shown, sequence=sequence)

    # The venue's own best prices.

    def _venue(self, book: Book, row: Row, ts: int) -> None:
        best: Any = (None, None)
        if row["price"] != NO_PRICE:
            best = self._fit(book, row, "price"), self._fit(book, row, "size")
            if None in best:
                best = None
        if row["kind"] == K.VENUE_BID:
            book.venue_bid = best
            return
        self._check_time(book, row)
        bid, book.venue_bid = book.venue_bid, (None, None)
        if best is None or bid is None:
            return
        quote = (*bid, *best)
        if quote != book.venue_best:
            names = ("bid_price", "bid_size", "ask_price", "ask_size")
            self._put(
                "quotes", book, ts, row, **dict(zip(names, quote, strict=True)),
                sequence=known(row["sequence"]), origin="venue", book_state="valid",
            )  # fmt: skip
        book.venue_best = quote
        if not (self.config.check_bbo and book.policy["book_type"]):
            return
        reach, at = book.policy["bbo_tolerance"], known(row["sequence"])
        if reach == 0:
            if at is not None:
                self._settle(book, row, ts, at)
                book.venue_quotes = [*book.venue_quotes, (at, quote)][-RING:]
        elif book.phase == "live" and book.state is not None:
            recent = [best for group, best in book.own if group >= book.groups - reach]
            if any(not _difference(quote, own, reach) for own in recent):
                self._judge(book, row, ts, at, 0)
            else:
                book.waiting.append((book.groups, at, quote))

    def _settle(self, book: Book, row: Row, ts: int, newest: int) -> None:
        """Tolerance 0: a group is compared when a quote with a later id is there."""
        while book.own and book.own[0][0] < newest:
            at, own = book.own.pop(0)
            earlier = [(u, quote) for u, quote in book.venue_quotes if u <= at]
            if earlier:
                u, quote = earlier[-1]
                self._judge(book, row, ts, u, _difference(quote, own, 0), at)

    def _settle_at_end(self, book: Book, row: Row, ts: int) -> None:
        """The feed is over: at most one mismatch comes of the groups that still wait."""
        if book.policy["bbo_tolerance"]:
            return
        told = False
        for at, own in book.own:
            earlier = [(u, quote) for u, quote in book.venue_quotes if u <= at]
            if earlier:
                u, quote = earlier[-1]
                difference = _difference(quote, own, 0)
                book.mismatched = book.mismatched or told
                told = told or (difference != 0 and not book.mismatched)
                self._judge(book, row, ts, u, difference, at)
        book.own = []

    def _compare(self, book: Book, row: Row, ts: int) -> None:
        """A group has ended."""
        reach = book.policy["bbo_tolerance"]
        if book.venue_best is None:
            return
        book.groups += 1
        own = self._best(book)
        if reach == 0:
            if book.applied is not None:
                book.own = [*book.own, (book.applied, own)][-RING:]
                if book.venue_quotes:
                    self._settle(book, row, ts, book.venue_quotes[-1][0])
            return
        book.own.append((book.groups, own))
        still = []
        for group, at, quote in book.waiting:
            difference = _difference(quote, own, reach)
            if difference == 0 or book.groups - group >= reach:
                self._judge(book, row, ts, at, difference)
            else:
                still.append((group, at, quote))
        book.waiting = still

    def _judge(
        self, book: Book, row: Row, ts: int, at: int | None, difference: int, group: Any = ...
    ) -> None:
        until = book.applied if group is ... else group
        if difference and not book.mismatched:
            self._fault(
                book, Q.BBO_MISMATCH, ts, row, value=difference,
                sequence_from=at, sequence_to=until,
            )  # fmt: skip
        book.mismatched = difference != 0


def _difference(venue: Any, own: Any, reach: int) -> int:
    found = 0
    for k in (0, 2):
        if venue[k] != own[k]:
            found |= 1 << k
        elif reach == 0 and venue[k + 1] != own[k + 1] and venue[k + 1]:
            found |= 2 << k
    return found
