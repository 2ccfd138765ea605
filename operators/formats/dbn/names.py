"""Names of Databento instrument ids: from metadata by date, and from records of the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Final

from marketflow.schemas.units import NS_PER_S

_FOREVER: Final = 2**63 - 1


def _midnight_ns(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * NS_PER_S


class Names:
    """``mappings`` is that of DBN metadata: symbol -> [{start_date, end_date, symbol: id text}]."""

    def __init__(self, mappings: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> None:
        self._spans: dict[int, list[tuple[int, int, str]]] = {}
        #: Names that the stream itself gave: they win.
        self._told: dict[int, str] = {}
        for name, intervals in (mappings or {}).items():
            for interval in intervals:
                if not interval["symbol"].isdigit():
                    continue  # mapped to something other than an instrument id
                span = (
                    _midnight_ns(interval["start_date"]),
                    _midnight_ns(interval["end_date"]),
                    name,
                )
                self._spans.setdefault(int(interval["symbol"]), []).append(span)
        for spans in self._spans.values():
            spans.sort()

    def add(self, number: int, name: str, known: bool = True) -> None:
        """The stream names an id; with ``known`` False only if nobody has."""
        if known or (number not in self._told and number not in self._spans):
            self._told[number] = name

    def changes(self, number: int) -> bool:
        """Whether the id's name depends on the time."""
        spans = self._spans.get(number, ())
        return number not in self._told and len({name for _, _, name in spans}) > 1

    def name(self, number: int, at_ns: int) -> str | None:
        """Name of an id at a time; outside all its days the nearest before, else the first."""
        told = self._told.get(number)
        if told is not None:
            return told
        spans = self._spans.get(number)
        if not spans:
            return None
        before = [name for start, _, name in spans if start <= at_ns % _FOREVER]
        return before[-1] if before else spans[0][2]

    def snapshot(self) -> Any:
        """Names the stream gave; the others come again from the header."""
        return dict(self._told)

    def restore(self, state: Any) -> None:
        self._told = dict(state)
