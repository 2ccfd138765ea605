"""Keeping the engine's panic noise away from people, without losing anything else.

When a step raises, the engine's Rust side prints a panic and a stack to the process's stderr
before it hands the exception over. The user gets our message instead; what the engine printed is
shown only when we have no better explanation.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def engine_noise() -> Iterator[list[bytes]]:
    """Collect what lands on file descriptor 2 meanwhile; the list is filled at the end.

    Consoles made by flows.console.stderr_console are not affected: they have their own descriptor.
    """
    collected: list[bytes] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield collected
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            collected.append(file.read())


def replay(collected: list[bytes]) -> None:
    """Print what was collected after all."""
    for text in collected:
        os.write(2, text)
