"""How tests wait for what must come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Far longer than it takes on a slow, busy machine; what comes sooner ends the wait.
PATIENCE_S: Final = 300.0
_POLL_S: Final = 0.02


def until(holds: Callable[[], object], what: str = "", timeout_s: float = PATIENCE_S) -> None:
    """Wait until ``holds()`` is true; AssertionError naming ``what`` did not come."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what or holds
        time.sleep(_POLL_S)
