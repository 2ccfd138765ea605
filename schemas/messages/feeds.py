"""What topics below a prefix know of their feeds: topic ``<prefix>.feeds``, compacted.

A JSON object per message; the newest of a key counts, once it is committed.

- ``run/<run>``: a run that claimed feeds (flow, release, settings, started, ended, complete,
  superseded; times in ns UTC). The claims of a superseded run count for nothing.
- ``claim/<number>/<run>``: a feed as the run claimed it (sinks.lineage).
- ``count/<writer>``: rows by feed that the writer has sent (sinks.tally), in the transaction of the
  last of them.
"""

from __future__ import annotations

from typing import Final

TOPIC: Final = "feeds"
