"""The sink that keeps nothing: for measuring a flow and for counting its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from marketflow.sinks.writer import RowsLike


class NullWriter:
    """Writer that drops every row. Delivery: none."""

    def write(self, rows: RowsLike) -> None:
        """Drop the rows."""

    def snapshot(self) -> Any:
        """Nothing to come back to."""
        return None

    def restore(self, state: Any) -> None:
        """Nothing to come back to."""

    def reassign(self, states: Sequence[Any], keeps: Callable[[int], bool]) -> Any:
        """Nothing to begin with."""

    def close(self) -> None:
        """Nothing to release."""
