"""Work that is done once for all processes of a test run: the others wait, and find it done."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.root import ROOT


@contextmanager
def lock(name: str, folder: Path = ROOT / ".cache") -> Iterator[None]:
    """Hold a lock that every process of this checkout respects."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_kernels() -> None:
    """Compile what is not cached, in all cores; AssertionError with what the compiler said."""
    command = [sys.executable, "-m", "marketflow", "warmup"]
    with lock("kernels"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
