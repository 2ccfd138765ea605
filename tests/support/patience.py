"""How long tests wait for what must come."""

from __future__ import annotations

from typing import Final

#: Far longer than it takes on a slow, busy machine; what comes sooner ends the wait.
PATIENCE_S: Final = 300.0
