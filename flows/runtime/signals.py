"""SIGTERM and SIGINT as a request to stop gracefully; children that end with their parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_signals(handler: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call ``handler`` instead of killing; only the main thread may do this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: handler()) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


def die_with_parent() -> None:
    """Thread: stdin ends when the parent is gone, however it went. Nobody would stop us then, and
    the next start finds its lake locked: so this process ends as if it was killed too."""
    while os.read(sys.stdin.fileno(), 1):  # not through sys.stdin: its lock outlives this thread
        pass
    os.kill(os.getpid(), signal.SIGKILL)
