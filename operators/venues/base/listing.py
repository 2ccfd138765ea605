"""Instruments of a venue's REST listing, kept until the feed carries them.

A listing names hundreds to thousands of instruments, a feed carries a few of them. A row of the
``instruments`` table is made at an instrument's first message, so that no book, no shard and no
snapshot ever holds one that the feed does not carry.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from marketflow.operators.normalise.event_builder import EventBuilder, Number
from marketflow.operators.normalise.feed import VenueDecoder
from marketflow.schemas.codes import MarketStatus
from marketflow.schemas.units import COLUMN_SCALE


class Facts(NamedTuple):
    """Columns of ``instruments``, as the venue writes them; None or "" = not told."""

    ts_event: int
    instrument_id: str | None = None
    price_increment: str | None = None
    size_increment: str | None = None
    contract_multiplier: str | None = None
    is_inverse: bool | None = None
    base_currency: str | None = None
    quote_currency: str | None = None
    settlement_currency: str | None = None
    status: MarketStatus = MarketStatus.UNKNOWN

    def plain(self) -> tuple[Any, ...]:
        """As plain data, for a snapshot."""
        return (*self[:-1], int(self.status))

    @classmethod
    def of(cls, plain: tuple[Any, ...]) -> Facts:
        """What :meth:`plain` made."""
        return cls._make((*plain[:-1], MarketStatus(plain[-1])))


def increment(decimals: int) -> str:
    """Step of a number with that many decimals: 2 -> ``0.01``; "" where no column holds it."""
    if not 0 <= decimals <= COLUMN_SCALE:
        return ""
    return "0." + "0" * (decimals - 1) + "1" if decimals else "1"


class ListedVenue(VenueDecoder):
    """A venue with a listing. Subclasses call :meth:`instrument` and add to STATE."""

    STATE: tuple[str, ...] = ("listing",)

    def __init__(self) -> None:
        super().__init__()
        #: (venue, symbol) -> plain facts not yet shown.
        self.listing: dict[tuple[str, str], tuple[Any, ...]] = {}

    def list_instrument(self, symbol: str, facts: Facts, venue: str | None = None) -> None:
        """Remember what a listing says of an instrument."""
        self.listing[venue or self.VENUE, symbol] = facts.plain()

    def instrument(self, out: EventBuilder, symbol: str, venue: str | None = None) -> int:
        """Index of the instrument; its first use shows what the listing said of it."""
        index = out.instrument(symbol, venue)
        if self.listing:
            plain = self.listing.pop((venue or self.VENUE, symbol), None)
            if plain is not None:
                facts = Facts.of(plain)._asdict()
                values = {k: v for k, v in facts.items() if v not in (None, "")}
                out.row("instruments", index, values.pop("ts_event", 0), **values)
        return index

    @staticmethod
    def statistics(
        out: EventBuilder, instrument: int, ts_event: int, **values: Number | None
    ) -> None:
        """A row of ``statistics`` per value, named by its kind; None or "" = not told."""
        for kind, value in values.items():
            if value not in (None, ""):
                out.row("statistics", instrument, ts_event, kind=kind, value=value)
