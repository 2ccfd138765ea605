"""What to do where a run cannot go on, in words that double nothing and lose nothing.

A recovery folder and what its run has written are one: whoever leaves the one behind must leave
the other. So every message says it in these words, and the tests do what they say.
"""

from __future__ import annotations

from typing import Final

START_ANEW: Final = (
    "start anew with an empty --recovery folder and empty sinks (a lake or a database may stay: "
    "--replace puts the new rows in place of the old)"
)
OTHER_RELEASE: Final = f"finish the run with the release that wrote it, or {START_ANEW}"
START_AGAIN: Final = (
    "start the same command again: with the same --recovery nothing is lost or doubled, without "
    "one begin with empty sinks"
)


class StateError(ValueError):
    """A snapshot does not fit what is to go on from it: the text says why, and what to do."""
