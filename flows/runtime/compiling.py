"""What the compiler of kernels does in this process: counted, so that it can be said and left out
of rates.

A kernel is compiled the first time it is called with arguments of new types, and cached then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from numba.core import event

log = logging.getLogger("marketflow.kernels")


class Compiling(event.Listener):  # type: ignore[misc]
    """Listens to numba. ``kernels`` counts those compiled; ``expected`` is set while somebody has
    already said that kernels are compiled, so that nobody says it twice."""

    def __init__(self) -> None:
        self.kernels = 0
        self.expected = False
        #: Called with the name of each kernel that is done.
        self.on_done: Callable[[str], None] = lambda name: None
        self._names: list[str] = []
        self._done_s = 0.0
        self._since_s = 0.0

    @property
    def seconds(self) -> float:
        """How long this process has waited for the compiler so far."""
        now_s = time.monotonic()
        return self._done_s + (now_s - self._since_s if self._names else 0.0)

    @property
    def name(self) -> str:
        """The kernel that is being compiled; "": none."""
        return self._names[0] if self._names else ""

    def on_start(self, event: event.Event) -> None:
        """A kernel, maybe inside another one."""
        function = event.data["dispatcher"].py_func
        if not self._names:
            self._since_s = time.monotonic()
            if not self.expected:
                self.expected = True
                log.warning(
                    "compiling kernels that this input needs, once, some seconds (%s ...)",
                    function.__name__,
                )
        self._names.append(f"{function.__module__.rpartition('.')[2]}.{function.__name__}")

    def on_end(self, event: event.Event) -> None:
        """It is compiled, or could not be."""
        name = self._names.pop()
        self.kernels += 1
        self.on_done(name)
        if not self._names:
            self._done_s += time.monotonic() - self._since_s


COMPILING: Final = Compiling()
event.register("numba:compile", COMPILING)
