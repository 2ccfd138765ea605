"""Which snapshot to fetch when. Pure: the caller brings the clock.

All times are seconds of one clock that never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from marketflow.schemas.backoff import Backoff

BACKOFF: Final = Backoff(first_s=0.25, longest_s=60.0)


@dataclass(slots=True)
class _Need:
    since_s: float
    not_before_s: float
    first_id: int | None = None
    attempts: int = 0


class SnapshotPlan:
    """Which instruments need their full book again, and when to ask for it.

    A snapshot that is older than the first difference seen since the need arose cannot be joined
    to the stream: it is asked for after that difference (or after ``quiet_s`` without one; 0 where
    the stream brings the book), and again if it is older all the same. What is not answered within
    ``patience_s`` is asked for again. Asking is paced: ``burst`` at once, then one each
    ``pause_s``; an instrument at most once in ``again_s``.
    """

    def __init__(
        self,
        quiet_s: float = 1.0,
        patience_s: float = 15.0,
        pause_s: float = 0.5,
        burst: int = 10,
        again_s: float = 2.0,
    ) -> None:
        self._quiet_s, self._patience_s, self._pause_s = quiet_s, patience_s, pause_s
        self._burst, self._again_s = burst, again_s
        self._needs: dict[str, _Need] = {}
        self._asked_s: dict[str, float] = {}
        self._tokens = float(burst)
        self._tokens_s = 0.0

    def __len__(self) -> int:
        return len(self._needs)

    @property
    def listens(self) -> bool:
        """Does any instrument wait for its first difference?"""
        return any(need.first_id is None for need in self._needs.values())

    def clear(self) -> None:
        """The connection is gone and all its needs; the pace is kept."""
        self._needs.clear()

    def need(self, symbol: str, now_s: float, asked: bool = False) -> bool:
        """An instrument needs its book; False if that was known already. ``asked``: what was just
        subscribed brings it."""
        if symbol in self._needs:
            return False
        earliest = self._asked_s.get(symbol, now_s - self._again_s) + self._again_s
        if asked:
            earliest = now_s + self._patience_s
        self._needs[symbol] = _Need(now_s, max(now_s, earliest))
        return True

    def seen(self, symbol: str, first_id: int) -> None:
        """A difference came that starts at this id."""
        need = self._needs.get(symbol)
        if need is not None and need.first_id is None:
            need.first_id = first_id

    def due(self, now_s: float) -> str | None:
        """An instrument to ask for now."""
        self._refill(now_s)
        if self._tokens < 1.0:
            return None
        for symbol, need in self._needs.items():
            if self._at_s(need) <= now_s:
                need.not_before_s = now_s + self._patience_s
                self._asked_s[symbol] = now_s
                self._tokens -= 1.0
                return symbol
        return None

    def next_s(self, now_s: float) -> float | None:
        """When :meth:`due` will have something; None: nothing is waited for."""
        times = [self._at_s(need) for need in self._needs.values()]
        if not times:
            return None
        self._refill(now_s)
        lacking = max(0.0, 1.0 - self._tokens) * self._pause_s
        return max(min(times), now_s + lacking)

    def answered(self, symbol: str, last_id: int | None, now_s: float) -> bool:
        """The snapshot holds everything up to ``last_id`` (None: the stream brings it). False: it
        is too old, and will be asked for again."""
        need = self._needs.get(symbol)
        if need is None:
            return True
        if last_id is not None and need.first_id is not None and last_id < need.first_id - 1:
            self.failed(symbol, now_s)
            return False
        del self._needs[symbol]
        return True

    def failed(self, symbol: str, now_s: float, wait_s: float = 0.0) -> float:
        """No answer, or none that helps: ask again, later each time. Returns the pause."""
        need = self._needs.get(symbol)
        if need is None:
            return 0.0
        need.attempts += 1
        pause = max(wait_s, BACKOFF.pause_s(need.attempts))
        need.not_before_s = now_s + pause
        return pause

    def _at_s(self, need: _Need) -> float:
        quiet = need.since_s if need.first_id is not None else need.since_s + self._quiet_s
        return max(quiet, need.not_before_s)

    def _refill(self, now_s: float) -> None:
        passed = max(0.0, now_s - self._tokens_s)
        self._tokens = min(float(self._burst), self._tokens + passed / self._pause_s)
        self._tokens_s = now_s
