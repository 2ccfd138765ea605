"""Waiting for a topic that may have been created a moment ago: brokers learn of it one by one.

Pure: the caller brings the clock, the pause and the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")
#: A missing topic is logged after that long.
_TELL_AFTER_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.2


def wait_for_topic(
    look: Callable[[], _T | None],
    missing: Callable[[], str],
    patience_s: float,
    *,
    clock: Callable[[], float],
    pause: Callable[[float], object],
    tell: Callable[[str], object],
) -> _T | None:
    """Result of ``look`` once it is not None; None where the patience is over.

    ``missing``: what is not there and how to create it, for the log.
    ``clock``: seconds that never go back.
    ``pause``: waits so many seconds; a true result ends the patience.
    ``tell``: logs a line, once.
    """
    began_s = clock()
    told = False
    while (found := look()) is None:
        waited_s = clock() - began_s
        if waited_s >= patience_s or pause(_LOOK_EVERY_S):
            return None
        if waited_s >= _TELL_AFTER_S and not told:
            told = True
            tell(f"{missing()}. Waiting for it; giving up in {patience_s - waited_s:.0f} s")
    return found
