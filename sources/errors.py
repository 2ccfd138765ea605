"""Errors of sources. Their texts name the fix."""

from __future__ import annotations


class SourceError(ValueError):
    """A source URL, its file or its resume position cannot be used as given."""


class FeedFailed(ConnectionError):  # noqa: N818 - reads as what happened
    """The server of a feed is gone or refuses. The text says which, and how to resume."""
