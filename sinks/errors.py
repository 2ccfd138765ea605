"""What can go wrong with a sink, said so that a person can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from marketflow.schemas.recovery import START_AGAIN

#: A recording that is started again adds to what is there.
RECORD_AGAIN: Final = "start the same command again: what was sealed stays"


class SinkError(ValueError):
    """A sink URL, a lake or a resume position cannot be used as given: the text names the fix."""


class LakeFailed(OSError):  # noqa: N818 - reads as what happened
    """The disk refused (full, read-only, gone): the text names the path and how to go on."""


def disk_failed(doing: str, path: object, error: OSError, then: str = START_AGAIN) -> LakeFailed:
    """The operating system's error with what we were doing, where, and the remedy; ``then``: what
    to do once the disk is mended. A failure that says all that already stays as it is."""
    if isinstance(error, LakeFailed):
        return error
    return LakeFailed(
        f"{doing} {path}: {error.strerror or error}; mend that (free space, permissions, mount) "
        f"and {then}"
    )


class DatabaseFailed(OSError):  # noqa: N818 - reads as what happened
    """The database was away for too long, or answered for other rows than ours: the text names
    the server and how to go on."""


class KafkaFailed(ConnectionError):  # noqa: N818 - reads as what happened
    """The brokers were away for too long or refused: the text names them and how to go on."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint where a name is near to a known one; else empty."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
