"""State is plain data: it outlives the files and classes of the release that wrote it.

Tuples, lists, dicts, sets, text, bytes, numbers, None and numpy arrays; never a value of a class of
ours, which pickle would store by the module's path.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

#: What a copy may share; a tuple holds nothing that changes.
_SHARED: Final = frozenset({str, bytes, int, float, bool, tuple, type(None)})


def plain_copy(value: Any) -> Any:
    """A copy of plain data. A value of any other type is a bug."""
    kind = type(value)
    if kind in _SHARED:
        return value
    if kind is dict:
        return {key: plain_copy(entry) for key, entry in value.items()}
    if kind is list:
        return [plain_copy(entry) for entry in value]
    assert kind is set or kind is np.ndarray, f"a state holds a {kind.__qualname__}"
    return value.copy()
