"""A user's mistake about a source: the text names the fix."""

from __future__ import annotations


class SourceError(ValueError):
    """A source URL, its file or its resume position cannot be used as given."""
