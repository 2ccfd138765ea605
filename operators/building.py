"""Building event rows message by message, with text numbers parsed exactly and in bulk.

Numbers are handed over as the text the venue sent (str or bytes, JSON string or JSON number);
they become (mantissa, scale) exactly. A number that cannot be taken makes a dead letter of that
level or trade alone; the rest of the message lives.
"""

from __future__ import annotations

from schemas.codes import AggressorSide, RejectReason, Side, TradeStatus

Number = str | bytes


class EventBuilder:
    """Collects the rows of one frames batch. One instance per batch; see each method."""

    def instrument(self, symbol: str, venue: str | None = None) -> int:
        """Index of a symbol; the first use registers it with the venue's declared rules."""
        raise NotImplementedError

    def begin(
        self,
        instrument: int,
        ts_event: int,
        *,
        first: int | None = None,
        last: int | None = None,
        previous: int | None = None,
        snapshot: bool = False,
    ) -> None:
        """Open a message group: ``last`` is its update id, ``first`` its first id, ``previous``
        the id of the message before it, where the venue tells."""
        raise NotImplementedError

    def levels(self, side: Side, raw: bytes, columns: str = "ps") -> None:
        """L2 levels from the raw JSON text of an array of arrays, such as
        ``[["0.0010","2.5"],["0.0011","0"]]``. ``columns`` says what each inner element is:
        p price, s size, c order count, x ignored (short or long inner arrays: malformed)."""
        raise NotImplementedError

    def level(self, side: Side, price: Number, size: Number, count: int = 0) -> None:
        """One L2 level of the open group; size 0 removes it."""
        raise NotImplementedError

    def end(self, checksum: int | None = None) -> None:
        """Close the group; a checksum is verified against the book by the engine."""
        raise NotImplementedError

    def trade(
        self,
        instrument: int,
        ts_event: int,
        price: Number,
        size: Number,
        aggressor: AggressorSide,
        trade_id: str | int | None,
        *,
        sequence: int | None = None,
        status: TradeStatus = TradeStatus.NORMAL,
    ) -> None:
        """A print."""
        raise NotImplementedError

    def venue_quote(
        self,
        instrument: int,
        ts_event: int,
        bid: tuple[Number, Number] | None,
        ask: tuple[Number, Number] | None,
        *,
        sequence: int | None = None,
    ) -> None:
        """The venue's own best (price, size) on each side; None where a side is empty."""
        raise NotImplementedError

    def order(
        self,
        kind: int,
        side: Side,
        order_id: str | int,
        price: Number | None = None,
        size: Number | None = None,
        *,
        trade_id: str | int | None = None,
    ) -> None:
        """One L3 row (an EventKind) of the open group."""
        raise NotImplementedError

    def clear(self) -> None:
        """CLEAR inside the open group."""
        raise NotImplementedError

    def row(self, table: str, instrument: int, ts_event: int, **values: object) -> None:
        """A row of a table that passes books by (funding, statistics, market_status,
        instruments, imbalances). Numbers as text, codes as enum members, absent = null."""
        raise NotImplementedError

    def dead(self, reason: RejectReason, detail: str, raw: bytes | None = None) -> None:
        """A dead letter for the current frame; ``raw`` defaults to its payload."""
        raise NotImplementedError
