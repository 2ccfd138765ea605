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
from typing import NamedTuple

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.schemas.shards import ShardPlan
from marketflow.sinks.errors import LakeFailed, SinkError
from marketflow.sinks.lake.layout import check_lake, is_lake, list_files
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import FeedFailed, SourceError
from marketflow.sources.identity import Beginning, identity
from marketflow.sources.registry import SCHEMES, parse_source


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
    """A feed by the index of its source; ``late``: the partition may be younger than the run;
    ``start``: the offset that its reader begins at, where that was pinned; ``number``: of the feed
    (schemas.shards), which its rows carry."""

    source: int
    partition: int | None = None
    late: bool = False
    start: int | None = None
    number: int = 0

    def spec(self, specs: Sequence[SourceConfig]) -> SourceConfig:
        """The feed's source."""
        from marketflow.sources.kafka.config import topic_of

        spec = specs[self.source]
        if self.partition is None:
            return spec
        return topic_of(spec).of_partition(self.partition, self.late, self.start)

    def is_read_by(self, index: int, process: int, processes: int) -> bool:
        """Whether this process reads the feed, whose index this is."""
        return self.partition is None or index % processes == process

    def plan(self, index: int, shards: int, process: int, processes: int) -> ShardPlan:
        """Which of the feed's shards this process keeps, if it reads it."""
        if self.partition is not None:
            return ShardPlan(index, shards, number=self.number)
        return ShardPlan(index, shards, process, processes, self.number)


def list_feeds(
    specs: Sequence[SourceConfig], known: Sequence[Feed], shards: int, stop: threading.Event
) -> list[Feed]:
    """``known`` (of the run that goes on; empty for a new one) and every feed that is new.

    Asks the clusters. Raises UsageError or RunFailed with the fix in the text.
    """
    found = list(known)
    for source, spec in enumerate(specs):
        if SCHEMES[spec.scheme].by_partition:
            found += _partitions(source, spec, found, shards, bool(known), stop)
        elif all(feed.source != source for feed in found):
            found.append(Feed(source, number=_number(spec, shards)))
    _check_distinct(found, specs)
    return found


def _number(spec: SourceConfig, shards: int) -> int:
    try:
        return identity(spec, shards).number
    except SourceError as error:
        raise UsageError(str(error)) from None


def _check_distinct(feeds: Sequence[Feed], specs: Sequence[SourceConfig]) -> None:
    """Rows of feeds that begin alike could not be told apart."""
    first: dict[int, Feed] = {}
    for feed in feeds:
        other = first.setdefault(feed.number, feed)
        if other is not feed:
            one, two = (each.spec(specs).text for each in (other, feed))
            raise UsageError(
                f"{one} and {two} are one feed by their beginning: leave one of them out, or tell "
                "them apart with id=NAME in one URL"
            )


def _partitions(
    source: int,
    spec: SourceConfig,
    found: Sequence[Feed],
    shards: int,
    resumed: bool,
    stop: threading.Event,
) -> list[Feed]:
    from marketflow.sources.kafka.cluster import START_PATIENCE_S, Cluster
    from marketflow.sources.kafka.config import topic_of
    from marketflow.sources.kafka.reader import SPARE_PARTITIONS, first_offset

    listed = {f.partition for f in found if f.source == source}
    try:
        topic = topic_of(spec)
        if listed and topic.end is not None:
            return []  # its end was fixed when it began
        # A run that goes on has reached this address before.
        patience_s = topic.patience_s if resumed else min(START_PATIENCE_S, topic.patience_s)
        cluster = Cluster(topic.address, topic.group, stop, patience_s)
        try:
            count = cluster.partitions(topic.topic)
            wanted = count if topic.end is not None else count + SPARE_PARTITIONS
            topic_id = cluster.topic_id(topic.topic)
            added = []
            for partition in range(wanted):
                if partition not in listed:
                    late = resumed or partition >= count
                    first, start = (0, None) if late else first_offset(cluster, topic, partition)
                    part = topic.of_partition(partition)
                    number = identity(part, shards, Beginning(topic_id, first)).number
                    added.append(Feed(source, partition, late, start, number))
            return added
        finally:
            cluster.close()
    except SourceError as error:
        raise UsageError(str(error)) from None
    except FeedFailed as error:
        raise RunFailed(str(error)) from None
