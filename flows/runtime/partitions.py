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

from marketflow.flows.catalogue import FlowSpec
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.runtime import claims
from marketflow.schemas.shards import ShardPlan
from marketflow.sinks.errors import LakeFailed, SinkError
from marketflow.sinks.lake.layout import check_lake, is_lake, list_files
from marketflow.sinks.lineage import FeedClaim
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import FeedFailed, SourceError
from marketflow.sources.identity import Beginning
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


class Listed(NamedTuple):
    """A feed, and what is claimed of it in the stores."""

    feed: Feed
    claim: FeedClaim


def list_feeds(
    flow: FlowSpec,
    specs: Sequence[SourceConfig],
    known: Sequence[Listed],
    shards: int,
    stop: threading.Event,
) -> list[Listed]:
    """``known`` (of the run that goes on; empty for a new one) and every feed that is new.

    Asks the clusters. Raises UsageError or RunFailed with the fix in the text.
    """
    found = list(known)
    try:
        for source, spec in enumerate(specs):
            own = [place for place, listed in enumerate(found) if listed.feed.source == source]
            if SCHEMES[spec.scheme].by_partition:
                found += _partitions(flow, source, spec, found, shards, bool(known), stop)
            elif own:
                feed, claim = found[own[0]]
                found[own[0]] = Listed(feed, claims.refreshed(claim, spec, shards))
            else:
                claim = claims.feed_claim(flow, spec, shards)
                found.append(Listed(Feed(source, number=claim.number), claim))
    except SourceError as error:
        raise UsageError(str(error)) from None
    except FeedFailed as error:
        raise RunFailed(str(error)) from None
    _check_distinct([listed.claim for listed in found])
    return found


def _check_distinct(feeds: Sequence[FeedClaim]) -> None:
    """Rows of feeds that begin alike could not be told apart."""
    first: dict[int, FeedClaim] = {}
    for feed in feeds:
        other = first.setdefault(feed.number, feed)
        if other is not feed:
            raise UsageError(
                f"{other.source} and {feed.source} are one feed by their beginning: leave one of "
                "them out, or tell them apart with id=NAME in one URL"
            )


def _partitions(
    flow: FlowSpec,
    source: int,
    spec: SourceConfig,
    found: Sequence[Listed],
    shards: int,
    resumed: bool,
    stop: threading.Event,
) -> list[Listed]:
    from marketflow.sources.kafka.cluster import START_PATIENCE_S, Cluster
    from marketflow.sources.kafka.config import topic_of
    from marketflow.sources.kafka.reader import SPARE_PARTITIONS, first_offset

    listed = {feed.partition for feed, _ in found if feed.source == source}
    topic = topic_of(spec)
    if listed and topic.end is not None:
        return []  # its end was fixed when it began
    # A run that goes on has reached this address before; a patience that was asked for holds.
    waits = resumed or "patience_s" in topic.model_fields_set
    patience_s = topic.patience_s if waits else min(START_PATIENCE_S, topic.patience_s)
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
                claim = claims.feed_claim(flow, part, shards, Beginning(topic_id, first))
                added.append(Listed(Feed(source, partition, late, start, claim.number), claim))
        return added
    finally:
        cluster.close()
