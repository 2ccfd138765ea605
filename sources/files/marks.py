"""Check that the files of a feed are those that a run began with.

A resumed run continues at a byte of a file. It must be the same file, which may have grown at its
end since: a recording that is still being written does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from marketflow.schemas.recovery import START_ANEW
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError

#: Of either end of a file.
_END_BYTES: Final = 1 << 16


class Mark(NamedTuple):
    """A file by its size and digests of its first and last bytes. ``size`` -1: no regular file."""

    path: str
    size: int
    first: str
    last: str


def marks(config: SourceConfig) -> list[list[Mark]]:
    """The files of a source, and those of LOBSTER's books. SourceError if one cannot be read."""
    return [[_mark(path) for path in paths] for paths in config.files]


def check(text: str, known: Sequence[Mark], paths: Sequence[Path]) -> None:
    """SourceError with the remedy unless ``paths`` are the known files: each the same or longer,
    with new ones only behind them; ``text`` is the source."""
    for place, mark in enumerate(known):
        if place == len(paths):
            raise SourceError(
                f"{text} has {len(paths)} files, the run began with {len(known)}, of which "
                f"{mark.path} is the next: put it back, or {START_ANEW}"
            )
        now = _mark(paths[place], mark.size)
        for what, before, found in (
            ("size", mark.size, now.size),
            ("beginning", mark.first, now.first),
            ("end", mark.last, now.last),
        ):
            if before != found:
                moved = "" if mark.path == now.path else f", which was {mark.path}"
                raise SourceError(
                    f"{now.path}{moved} is not the file that the run began with: its {what} is "
                    f"another; put the old one back, or {START_ANEW}"
                )


def _mark(path: Path, size: int | None = None) -> Mark:
    """The mark of a file, or of what its first ``size`` bytes are."""
    if not path.is_file():
        return Mark(str(path), -1, "", "")
    try:
        with path.open("rb") as file:
            whole = file.seek(0, 2)
            upto = whole if size is None else min(size, whole)
            file.seek(0)
            first = file.read(min(_END_BYTES, upto))
            file.seek(max(0, upto - _END_BYTES))
            last = file.read(min(_END_BYTES, upto))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    return Mark(str(path), upto, _digest(first), _digest(last))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
