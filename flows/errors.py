"""Errors a user can mend: the text says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """Wrong use: exit code 2."""


class RunFailed(RuntimeError):  # noqa: N818 - reads as what happened
    """The operation failed: exit code 1."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``: did you mean X?``, or nothing where no known name is near."""
    found = get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f": did you mean {found[0]}?" if found else ""
