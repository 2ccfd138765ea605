"""Errors a user can mend: the text says what is wrong and what to do."""

from __future__ import annotations


class UsageError(ValueError):
    """Wrong use: exit code 2."""


class RunFailed(RuntimeError):  # noqa: N818 - reads as what happened
    """The operation failed: exit code 1."""
