"""SIGTERM and SIGINT as a request to stop gracefully."""

from __future__ import annotations

import signal
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
