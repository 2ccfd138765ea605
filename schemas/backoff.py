"""Backoff, deadline and log throttling of one outage.

Pure: the caller brings the clock (seconds that never go back) and chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double from ``first_s`` up to ``longest_s``."""

    first_s: float
    longest_s: float

    def pause_s(self, failures: int, draw: float = 0.0) -> float:
        """Pause after so many failures in a row.

        ``draw`` in [0, 1) takes away up to half, so that many clients do not return at once.
        """
        pause_s = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 32))
        return pause_s * (1.0 - draw / 2.0)


class Retry(NamedTuple):
    """What to do after a failure.

    ``pause_s``: wait that long, then try again.
    ``left_s``: patience that is left; not above 0: give up instead.
    ``tell``: log it now.
    """

    pause_s: float
    left_s: float
    tell: bool


class Outage:
    """Counts the failures of one peer until it answers again.

    ``patience_s``: longest outage.
    ``since_s``: start of the patience; None: the first failure.
    ``tell_every_s``: a reason that stays the same is logged that often.
    """

    def __init__(
        self,
        backoff: Backoff,
        patience_s: float = math.inf,
        *,
        since_s: float | None = None,
        tell_every_s: float = 0.0,
    ) -> None:
        self._backoff = backoff
        self._patience_s = patience_s
        self._start_s = self._since_s = since_s
        self._tell_every_s = tell_every_s
        self._told: tuple[str, float] | None = None
        #: Failures in a row.
        self.failures = 0

    def failed(self, now_s: float, reason: str = "", draw: float = 0.0) -> Retry:
        """Count a failure. ``draw``: see :meth:`Backoff.pause_s`."""
        if self._since_s is None:
            self._since_s = now_s
        self.failures += 1
        left_s = self._since_s + self._patience_s - now_s
        pause_s = max(0.0, min(left_s, self._backoff.pause_s(self.failures, draw)))
        told = self._told
        tell = told is None or told[0] != reason or now_s - told[1] >= self._tell_every_s
        if tell:
            self._told = (reason, now_s)
        return Retry(pause_s, left_s, tell)

    def ended(self, now_s: float) -> float:
        """Forget the failures; how long the outage lasted, 0 where there was none."""
        lasted_s = now_s - self._since_s if self.failures and self._since_s is not None else 0.0
        self.failures, self._since_s, self._told = 0, self._start_s, None
        return lasted_s
