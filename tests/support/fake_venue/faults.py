"""Faults on demand, told as ``KIND:NUMBER[:MORE]``; numbers count the book updates sent, from 1.

``drop:N`` the N-th update is not sent (to anybody) · ``duplicate:N`` it is sent twice ·
``garbage:N`` bytes that are no message follow it · ``disconnect:N[:MISSED]`` the connections break
after it, and so many updates are missed until somebody is there again · ``close:N`` the same with
a proper close · ``disconnect-mid-snapshot[:K]`` the connection breaks in the middle of the K-th
full book · ``delay:MS`` the whole course runs so much later · ``silent:N`` nothing is sent any more
after it, pings included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_KINDS: Final = (
    "drop", "duplicate", "garbage", "disconnect", "close", "disconnect-mid-snapshot", "delay",
    "silent",
)  # fmt: skip


@dataclass(slots=True)
class Faults:
    """``at`` maps kinds to the numbers of the updates they happen at."""

    at: dict[str, set[int]] = field(default_factory=dict)
    missed: dict[int, int] = field(default_factory=dict)
    cut_books: set[int] = field(default_factory=set)
    delay_s: float = 0.0

    def happens(self, kind: str, number: int) -> bool:
        """Does this happen at update ``number``?"""
        return number in self.at.get(kind, ())


def parse_faults(texts: list[str]) -> Faults:
    """Faults of the command line; ValueError names the kinds."""
    faults = Faults()
    for text in texts:
        kind, *numbers = text.split(":")
        if kind not in _KINDS or not all(number.isdecimal() for number in numbers):
            raise ValueError(f"fault {text!r}: write KIND:NUMBER, KIND one of {', '.join(_KINDS)}")
        first = int(numbers[0]) if numbers else 1
        if kind == "delay":
            faults.delay_s = first / 1000
        elif kind == "disconnect-mid-snapshot":
            faults.cut_books.add(first)
        else:
            faults.at.setdefault(kind, set()).add(first)
            if len(numbers) > 1:
                faults.missed[first] = int(numbers[1])
    return faults
