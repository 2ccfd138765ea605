"""What can go wrong with a source, said so that a person can mend it."""

from __future__ import annotations


class SourceError(ValueError):
    """A source URL, its file or its resume position cannot be used as given."""


class FeedFailed(ConnectionError):  # noqa: N818 - reads as what happened
    """A server that a feed comes from is gone or refuses: the text says which and how to go on."""
