"""Files that are whole or not there, and what is left of those that a kill cut off.

A file is written beside its place under a hidden name of its own, ``.<name>.<random>.tmp``, and is
locked until it has its place. The lock goes with the process, however that ends: what nobody has
locked is a leftover. Process ids would not tell: they come again, and two containers with one
folder have the same ones.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import IO, Any, BinaryIO


class Survives(Enum):
    """What a new content of a file survives once it was written."""

    #: The end of the process.
    PROCESS = auto()
    #: A power failure, once the caller has made the folder durable (:func:`sync_folder`).
    POWER_WITH_FOLDER = auto()
    #: A power failure.
    POWER = auto()


@contextmanager
def replacing(path: Path, survives: Survives = Survives.POWER) -> Iterator[BinaryIO]:
    """Open a file whose content replaces that of ``path`` at the end, as a whole.

    Where the block raises, nothing has changed. Its name is ``file.name``, for a library that
    opens files by itself.
    """
    file, temporary = _temporary(path)
    try:
        with file:
            yield file
            file.flush()
            if survives is not Survives.PROCESS:
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if survives is Survives.POWER:
        sync_folder(path.parent)


def replace(path: Path, content: bytes, survives: Survives = Survives.POWER) -> None:
    """Replace the content of a file, as a whole."""
    with replacing(path, survives) as file:
        file.write(content)


def _temporary(path: Path) -> tuple[BinaryIO, Path]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        file = temporary.open("xb")
        with suppress(OSError):  # a file system without locks: leftovers stay there
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file, temporary
        file.close()  # it was swept before it was locked


def sweep(folder: Path, names: str = "*") -> None:
    """Remove what dead processes left in the folder of files with these names (a glob)."""
    for path in folder.glob(f".{names}.*.tmp"):
        # Where it cannot be opened or removed somebody else was faster, or it is not ours.
        with suppress(OSError), path.open("rb") as file:
            if lock(file, fcntl.LOCK_EX):
                path.unlink()


def lock(file: IO[Any], how: int) -> bool:
    """Lock the file (``LOCK_EX`` or ``LOCK_SH``) until it is closed; False where others have it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable, whoever wrote them."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
