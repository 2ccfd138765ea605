"""Messages with anything in any place."""

from __future__ import annotations

from typing import Any

#: What no venue documents.
WILD: list[Any] = [
    *(None, True, -1, 0, 2**63, 2**64, 10**40, 1e300, 0.1, "", "x", "-1", "1e99999", "9" * 5000),
    *("0x1", "NaN", "é", [], {}, [[]], [[1]], [["1", "2", "3", "4"]], {"a": 1}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside a JSON value, itself included."""
    inner: list[tuple[Any, ...]] = []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            inner += places(value[key], (*path, key))
    return [path, *inner]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy
