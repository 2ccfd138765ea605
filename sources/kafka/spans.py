"""Intervals of partitions that are replayed, as plain values of a run's job."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """Interval of one partition. ``feed``: its index in the run; ``ends``: the feed is
    over at ``end`` and says so (END frame); else it is only cut there."""

    feed: int
    partition: int
    topic_id: str
    start: int
    show: int
    end: int
    ends: bool

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is shown."""
        return self.show >= self.end and not self.ends
