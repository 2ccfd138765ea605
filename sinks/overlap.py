"""Rows of an interval of arrival in a store: whether it has any, before they are written once more.

Arrival (``ts_recv``) decides what is in an interval, however long after its events it arrived: so
every file and chunk is asked. Rows of ``depth`` and ``bars`` have no arrival: the tables that are
made of the same messages speak for them, and where the store has none of these, any row of theirs
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import INT64_MAX, NS_PER_MS
from marketflow.sinks.errors import SinkError

#: Their arrival is that of the frame they were made from. (That of a quality event may be the
#: feed's latest, which is another's.)
_ARRIVED: Final = tuple(
    name
    for name, table in TABLES.items()
    if table.has_venue and "ts_recv" in table.names and name != "quality_events"
)
#: Tables without arrival, and those of which one has a row wherever they have.
_SPEAK_FOR: Final = {"depth": ("book_events", "quotes"), "bars": ("trades",)}


class Interval(NamedTuple):
    """Arrivals from ``first_ms`` on and before ``end_ms``; None: open. Of a venue (None: any), with
    the markets of it that have names of their own (``BYBIT_LINEAR`` of ``BYBIT``), unless they are
    among ``others``, which other feeds bring."""

    venue: str | None
    first_ms: int | None
    end_ms: int | None
    others: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        return self.first_ms is None and self.end_ms is None

    @property
    def everything(self) -> Interval:
        """All that ever arrived from there."""
        return self._replace(first_ms=None, end_ms=None)

    def is_of(self, venue: str | None) -> bool:
        """Whether rows of ``venue`` may be the interval's."""
        if self.venue is None or venue is None or venue == self.venue:
            return True
        return venue.startswith(f"{self.venue}_") and venue not in self.others


class Arrived(NamedTuple):
    """When the frames of the interval arrived: from ``first_ms``, before ``end_ms``; None: open.
    Unless it ``is_exact``, others may have arrived within a millisecond of either end."""

    first_ms: int | None = None
    end_ms: int | None = None
    is_exact: bool = True

    def bounds_ns(self, widest: bool = False) -> tuple[int, int]:
        """[from, before): what surely is of the interval, or at the widest may be."""
        first, end = self.first_ms, self.end_ms
        slack_ms = int(widest and not self.is_exact)
        return (
            0 if first is None else (first - slack_ms) * NS_PER_MS,
            INT64_MAX if end is None else (end + slack_ms) * NS_PER_MS,
        )


def other_rows(store: object, table: str) -> SinkError:
    """The interval has another number of rows now than it had."""
    return SinkError(
        f"{store}: the interval has another number of rows of {table} than it had, so the rows "
        "behind it would have other numbers: it cannot be put between the old ones; rebuild the "
        "store (replay from the start into a new one)"
    )


_Ask = Callable[[str, Interval], bool]


def first_table(ask: _Ask, interval: Interval, written: Collection[str]) -> str | None:
    """First table of a store of which ``ask`` says that it has rows of the interval."""
    for name in _ARRIVED:
        if ask(name, interval):
            return name
    everything = interval.everything
    for name, others in _SPEAK_FOR.items():
        told = not interval.is_open and any(ask(other, everything) for other in others)
        if name in written and not told and ask(name, everything):
            return name
    return None
