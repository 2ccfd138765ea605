"""Packed books of a shard: putting changes onto a whole state.

A packed state is a dict of arrays (:meth:`operators.books.state.ShardState.pack`):

- ``which``: the books that it has (all, or those that changed), in order; ``books``: their rows;
- ``levels``, ``orders``: book by book (:mod:`operators.books.kernels.pack`);
- ``once``, ``often``: remembered trades, of books with one, and of those with more;
- ``shown``, ``rings``: rows of the books that have one, ``shown_of``, ``rings_of``: which rows;
- ``pending``, ``pending_offset``, ``counters``: of the whole shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Packed = dict[str, NDArray[Any]]


def merge(parts: Sequence[Packed]) -> Packed:
    """A whole state and the changes after it, oldest first, as one whole state."""
    if len(parts) == 1:
        return parts[0]
    count = 1 + max(int(part["which"].max(initial=-1)) for part in parts)
    newest = np.zeros(count, np.int64)  # the part that each book is taken from
    for number, part in enumerate(parts):
        newest[part["which"]] = number
    last = parts[-1]
    found: dict[str, list[NDArray[Any]]] = {}
    for number, part in enumerate(parts):
        taken = newest[part["which"]] == number
        books, levels = part["books"][taken], part["levels"]
        of_level = newest[levels["side"] >> 1] == number
        seen = part["books"]["recent"]
        for name, rows in {
            "which": part["which"][taken],
            "books": books,
            "levels": levels[of_level],
            "orders": part["orders"][np.repeat(of_level, levels["orders"])],
            "once": part["once"][taken[seen == 1]],
            "once_of": part["which"][taken & (seen == 1)],
            "often": part["often"][taken[seen > 1]],
            "often_of": part["which"][taken & (seen > 1)],
        }.items():
            found.setdefault(name, []).append(rows)
    whole = {name: np.concatenate(rows) for name, rows in found.items()}
    sides, queued = whole["levels"]["side"], whole["levels"]["orders"]
    return {
        "which": np.arange(count, dtype=np.int32),
        "books": whole["books"][np.argsort(whole["which"])],
        "levels": whole["levels"][np.argsort(sides, kind="stable")],
        "orders": whole["orders"][np.argsort(np.repeat(sides, queued), kind="stable")],
        "once": whole["once"][np.argsort(whole["once_of"])],
        "often": whole["often"][np.argsort(whole["often_of"])],
        **_rows(parts, "shown"),
        **_rows(parts, "rings"),
        "pending": last["pending"],
        "pending_offset": last["pending_offset"],
        "counters": last["counters"],
    }


def _rows(parts: Sequence[Packed], name: str) -> Packed:
    """The newest of each row of a pool; all rows that any part has are there in the end."""
    count = 1 + max(int(part[f"{name}_of"].max(initial=-1)) for part in parts)
    rows = np.zeros(count, parts[0][name].dtype)
    for part in parts:
        rows[part[f"{name}_of"]] = part[name]
    return {f"{name}_of": np.arange(count, dtype=np.int32), name: rows}
