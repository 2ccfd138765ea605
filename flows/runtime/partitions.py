"""Which feeds a run has: one per source, and one per partition of a topic.

The list only ever grows, and a feed's place in it is its index, so that the shards of a feed are
the same after every restart. It is kept in the recovery folder. Room for a few partitions that a
topic does not have yet is listed with it; a run that goes on lists those that are new.

A source that is no topic is read by every process, each of which keeps its own shards; a partition
is read by one process only, whose are all of its shards.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.schemas.recovery import START_ANEW
from marketflow.schemas.shards import ShardPlan
from marketflow.sinks.errors import LakeFailed, SinkError
from marketflow.sinks.lake.layout import check_lake, is_lake, list_files
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import FeedFailed, SourceError
from marketflow.sources.registry import SCHEMES, parse_source

_MAX_SHARDS: Final = 1 << 15


def parse(text: str, *, check: bool = True) -> SourceConfig:
    """As :func:`sources.registry.parse_source`; a table of a lake is a source, too."""
    return parse_source(text, _lake_files, check=check)


def _lake_files(folder: Path, table: str) -> list[Path] | None:
    """The committed files of a lake's table; None if the folder is no lake."""
    if not is_lake(folder):
        return None
    try:
        check_lake(folder)
        return list_files(folder, table)
    except (SinkError, LakeFailed) as error:
        raise SourceError(str(error)) from None


class Feed(NamedTuple):
    """A feed by the index of its source; ``late``: the partition may be younger than the run."""

    source: int
    partition: int | None = None
    late: bool = False

    def spec(self, specs: Sequence[SourceConfig]) -> SourceConfig:
        """The feed's source."""
        from marketflow.sources.kafka.config import topic_of

        spec = specs[self.source]
        if self.partition is None:
            return spec
        return topic_of(spec).of_partition(self.partition, self.late)

    def is_read_by(self, index: int, process: int, processes: int) -> bool:
        """Whether this process reads the feed, whose index this is."""
        return self.partition is None or index % processes == process

    def plan(self, index: int, shards: int, process: int, processes: int) -> ShardPlan:
        """Which of the feed's shards this process keeps, if it reads it."""
        if self.partition is not None:
            return ShardPlan(index, shards)
        return ShardPlan(index, shards, process, processes)


def list_feeds(
    specs: Sequence[SourceConfig], known: Sequence[Feed], shards: int, stop: threading.Event
) -> list[Feed]:
    """``known`` (of the run that goes on; empty for a new one) and every feed that is new.

    Asks the clusters. Raises UsageError or RunFailed with the fix in the text.
    """
    found = list(known)
    for source, spec in enumerate(specs):
        if SCHEMES[spec.scheme].by_partition:
            found += _partitions(source, spec, found, bool(known), stop)
        elif Feed(source) not in found:
            found.append(Feed(source))
    if len(found) * shards > _MAX_SHARDS:
        anew = f"; as the run has begun with {shards}, {START_ANEW} for it" if known else ""
        raise UsageError(
            f"{len(found)} feeds with {shards} shards each are more than {_MAX_SHARDS} shards: set "
            f"fewer shards (a partition needs few), or run the topics apart{anew}"
        )
    return found


def _partitions(
    source: int, spec: SourceConfig, found: Sequence[Feed], resumed: bool, stop: threading.Event
) -> list[Feed]:
    from marketflow.sources.kafka.cluster import START_PATIENCE_S, Cluster
    from marketflow.sources.kafka.config import topic_of
    from marketflow.sources.kafka.reader import SPARE_PARTITIONS

    try:
        topic = topic_of(spec)
        # A run that goes on has reached this address before.
        patience_s = topic.patience_s if resumed else min(START_PATIENCE_S, topic.patience_s)
        cluster = Cluster(topic.address, topic.group, stop, patience_s)
        try:
            count = cluster.partitions(topic.topic)
        finally:
            cluster.close()
    except SourceError as error:
        raise UsageError(str(error)) from None
    except FeedFailed as error:
        raise RunFailed(str(error)) from None
    listed = {f.partition for f in found if f.source == source}
    wanted = count if topic.end is not None else count + SPARE_PARTITIONS
    if listed and topic.end is not None:
        return []  # its end was fixed when it began
    return [
        Feed(source, partition, late=resumed or partition >= count)
        for partition in range(wanted)
        if partition not in listed
    ]
