"""The thin edge between a core class and bytewax: one stateful step per core, keyed.

A core has ``apply(batch)``, ``snapshot()`` and ``restore(state)``. bytewax does not tell a
stateful logic its key, so every value says which shard (or feed) it belongs to.

A core that may be large also has ``snapshot(changes=True)``, the changes since the last snapshot,
and ``restore(state, *changes)``; flows.runtime.aside uses both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import bytewax.operators as op
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream, StatefulBatchLogic

_In = TypeVar("_In")
_InC = TypeVar("_InC", contravariant=True)
_Out = TypeVar("_Out")
_OutC = TypeVar("_OutC", covariant=True)


class Core(Protocol[_InC, _OutC]):
    """State and logic of a stateful step."""

    def apply(self, batch: _InC) -> _OutC: ...

    def snapshot(self) -> Any: ...

    def restore(self, state: Any, *changes: Any) -> None: ...


class _CoreLogic(StatefulBatchLogic[tuple[int, _In], _Out, tuple[int, Any]], Generic[_In, _Out]):
    """One core per key, made at the key's first value or from its snapshot."""

    def __init__(
        self, make: Callable[[int], Core[_In, _Out]], resume: tuple[int, Any] | None
    ) -> None:
        self._make = make
        self._index = -1
        self._core: Core[_In, _Out] | None = None
        if resume is not None:
            self._index, state = resume
            self._core = make(self._index)
            self._core.restore(state)

    def on_batch(self, values: list[tuple[int, _In]]) -> tuple[Iterable[_Out], bool]:
        if self._core is None:
            self._index = values[0][0]
            self._core = self._make(self._index)
        core = self._core
        return [core.apply(batch) for _, batch in values], StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[int, Any]:
        assert self._core is not None, "bytewax snapshots only keys that had a value"
        return (self._index, self._core.snapshot())


def core_step(
    step_id: str,
    up: KeyedStream[tuple[int, _In]],
    make: Callable[[int], Core[_In, _Out]],
) -> Stream[_Out]:
    """Run ``make(index)`` per key over ``up``, whose values are (index, batch) pairs.

    The step id is part of the recovery format: it must not be renamed.
    """
    keyed = op.stateful_batch(step_id, up, lambda resume: _CoreLogic(make, resume))
    return op.map(f"{step_id}_values", keyed, lambda pair: pair[1])
