"""What a short command leaves out while it starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_numpy() -> Iterator[None]:
    """Imports inside do without numpy. pyarrow looks for it and works without, for whoever asks for
    no numpy arrays: half of what the start of a query took. Later imports of numpy are free to."""
    if "numpy" in sys.modules:
        yield
        return
    sys.modules["numpy"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["numpy"]
