"""What a replay reads: of which feeds, from which offset to which, beginning in which state.

``[from, to)`` is a cut of the input: a row is in it if the frame that made it is, by its offset,
where a time stands for the first message at or after it (by Kafka's timestamp). Everything is
fixed before the start and kept in the recovery folder, so that a replay that is killed goes on
with the same: times and words become offsets, checkpoints are copied there.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from marketflow.flows.catalogue import FlowSpec
from marketflow.flows.errors import UsageError
from marketflow.flows.runtime import checkpoints as checkpoint_files
from marketflow.flows.runtime.checkpoints import Checkpoint
from marketflow.flows.runtime.claims import feed_claim, to_plain
from marketflow.flows.runtime.job import ReplayPlan
from marketflow.flows.runtime.partitions import Feed
from marketflow.schemas.moments import datetime_at_ms
from marketflow.schemas.units import NS_PER_MS
from marketflow.sinks import durable
from marketflow.sinks.lineage import FeedClaim
from marketflow.sources.identity import Beginning, identity
from marketflow.sources.kafka.cluster import Cluster
from marketflow.sources.kafka.config import EARLIEST, Bound, KafkaConfig, topic_of
from marketflow.sources.kafka.spans import Span
from marketflow.sources.registry import parse_source

_PLAN: Final = "replay.json"
#: Parameters of a topic's URL that say what is in it: taken over from the original run.
_CONTENT: Final = ("venue", "table", "registry")
_BOUNDS: Final = ("from", "to", "group")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. ``topics`` may have parameters (``trades_raw?venue=binance``); ``start``
    and ``end`` as in sources.kafka.config, None: all there is; ``ends``: whether the feeds are over
    at the end, None: if the end is not given (and the original run's feeds were); ``original``:
    the recovery folder of the run that is replayed; ``replaces``: others' rows, and more follow."""

    brokers: str
    topics: tuple[str, ...]
    start: str | None = None
    end: str | None = None
    ends: bool | None = None
    original: Path | None = None
    replaces: bool = False


def read_plan(recovery: Path) -> ReplayPlan | None:
    """The plan that a recovery folder keeps; None before the first start."""
    path = recovery / _PLAN
    return ReplayPlan.from_values(json.loads(path.read_text())) if path.is_file() else None


def keep_plan(recovery: Path, plan: ReplayPlan) -> ReplayPlan:
    """The plan as it is kept in the recovery folder, with its checkpoints; again: no change.
    Raises OSError."""
    path = recovery / _PLAN
    if path.is_file():
        return plan
    copies = {}
    for feed, source in plan.checkpoints.items():
        # The run that it is of goes on, and forgets old ones.
        copies[feed] = str(recovery.absolute() / f"begin-{feed}.checkpoint")
        shutil.copy2(source, copies[feed])
    plan = replace(plan, checkpoints=copies)
    durable.replace(path, json.dumps(asdict(plan), indent=1).encode())
    return plan


def make_plan(flow: FlowSpec, wanted: Wanted, shards: int) -> ReplayPlan:
    """Ask the cluster and the checkpoints. SourceError, UsageError, or FeedFailed in an outage."""
    original = wanted.original
    run = None if original is None else checkpoint_files.read_note(original)
    found = [] if original is None else checkpoint_files.find(original)
    texts = [str(text) for text in run["sources"]] if run else []
    feeds = [Feed(*feed) for feed in run["feeds"]] if run else []
    urls: dict[int, str] = {}
    spans: list[Span] = []
    claims: list[FeedClaim] = []
    checkpoints: dict[int, str] = {}
    notes: list[str] = []
    arrivals = []
    for number, topic in enumerate(wanted.topics):
        source = number if run is None else _source_of(topic, texts)
        url = _url(wanted, topic, texts[source] if run else "")
        asked = topic_of(parse_source(url))
        flow.check(asked)
        urls[source] = asked.text
        cluster = Cluster(asked.address, asked.group, threading.Event())
        try:
            count = cluster.partitions(asked.topic)
            begun = _begun(texts[source]) if run else EARLIEST
            ends = wanted.ends
            if ends is None:
                ended = "to=" in texts[source] if run else not wanted.replaces
                ends = wanted.end is None and ended
            place = _Topic(cluster, asked, wanted, begun, found, ends)
            meant = place.partitions(count)
            if run is None or asked.dead_letters:
                for partition in range(count):
                    part, beginning = place.part(partition)
                    number = identity(part, shards, beginning).number
                    feeds.append(Feed(source, partition, number=number))
            for index, feed in enumerate(feeds):
                if feed.source == source and feed.partition in meant:
                    spans.append(place.span(index, feed, checkpoints))
                    claims.append(place.claim(flow, feed, spans[-1], shards))
            arrivals.append(place.arrivals())
            notes += place.notes()
        finally:
            cluster.close()
    sources = [urls.get(i, asked.text) for i in range(len(texts) or len(urls))]
    found_out = (tuple(notes), tuple(arrivals), tuple(to_plain(claims)))
    return ReplayPlan(tuple(sources), tuple(feeds), tuple(spans), checkpoints, *found_out)


def _topic_of(text: str) -> str:
    return text.partition("?")[0].rpartition("/")[2]


def _source_of(topic: str, texts: Sequence[str]) -> int:
    """Which source of the original run the topic is."""
    name = _topic_of(topic)
    for index, text in enumerate(texts):
        if text.startswith("kafka:") and _topic_of(text) == name:
            return index
    raise UsageError(
        f"the run of --checkpoints did not read a topic {name}: it read {', '.join(texts)}"
    )


def _url(wanted: Wanted, topic: str, original: str) -> str:
    name, _, query = topic.partition("?")
    items = [item for item in query.split("&") if item]
    given = {item.partition("=")[0] for item in items}
    if name.endswith(".dead_letters") and "dead_letters" not in given:
        raise UsageError(
            f"--topic {topic}: whose letters? Name the feed that they were raw frames of, such as "
            f"--topic '{name}?dead_letters=kafka:raw.kraken' (its name is in their column feed)"
        )
    for word in _BOUNDS:
        if word in given:
            raise UsageError(f"--topic {topic}: {word}= is no part of it; use --from and --to")
    for item in original.partition("?")[2].split("&"):
        word = item.partition("=")[0]
        if word in _CONTENT and not given & {"venue", "table"} | (given & {word}):
            items.append(item)
    if wanted.start is not None:
        items.append(f"from={wanted.start}")
    if wanted.end is not None:
        items.append(f"to={wanted.end}")
    return f"kafka://{wanted.brokers}/{name}" + ("?" + "&".join(items) if items else "")


def _begun(text: str) -> Bound:
    """Where the original run began to read this source."""
    return topic_of(parse_source(text)).start


class _Topic:
    """The spans of one topic."""

    def __init__(
        self,
        cluster: Cluster,
        asked: KafkaConfig,
        wanted: Wanted,
        begun: Bound,
        checkpoints: Sequence[Checkpoint],
        ends: bool,
    ) -> None:
        self._cluster = cluster
        self._asked = asked
        self._wanted = wanted
        self._begun = begun
        self._checkpoints = checkpoints
        self._ends = ends
        self._topic_id = cluster.topic_id(asked.topic)
        self._to_warm = self._anew = self._shown = 0
        self._held: dict[int, tuple[int, int]] = {}
        self._to_come = False
        self._first_ms: list[int | None] = []
        self._end_ms: list[int | None] = []
        self._check_order()

    def _check_order(self) -> None:
        start, end = self._asked.start, self._asked.end
        pairs = [(start.offset, end.offset), (start.time_ms, end.time_ms)] if end else []
        if any(a is not None and b is not None and a >= b for a, b in pairs):
            raise UsageError(
                f"--from {self._wanted.start} is not before --to {self._wanted.end}: nothing lies "
                "between"
            )

    def partitions(self, count: int) -> set[int]:
        """Those that are meant, of so many: where offsets are given by partition, those named."""
        meant = set(range(count))
        for name, text, bound in (
            ("--from", self._wanted.start, self._asked.start),
            ("--to", self._wanted.end, self._asked.end),
        ):
            named = set() if bound is None else {partition for partition, _ in bound.offsets}
            if unknown := sorted(named - set(range(count))):
                raise UsageError(
                    f"{name} {text}: kafka topic {self._asked.topic} has no partition "
                    f"{unknown[0]}, only 0 to {count - 1}"
                )
            meant &= named or meant
        if not meant:
            raise UsageError(
                f"--from {self._wanted.start} and --to {self._wanted.end} name no partition in "
                "common: give both ends of those that are meant"
            )
        return meant

    def part(self, partition: int) -> tuple[KafkaConfig, Beginning]:
        """A partition, and where a run would begin to read it now."""
        low, high = self._cluster.bounds(self._asked.topic, partition)
        first = max(low, self._begin(partition, self._begun, high) or 0)
        return self._asked.of_partition(partition), Beginning(self._topic_id, first)

    def claim(self, flow: FlowSpec, feed: Feed, span: Span, shards: int) -> FeedClaim:
        """Claim a partition: the feed as the original run began it, the part that is shown."""
        part, beginning = self.part(span.partition)
        if feed.late or feed.start is not None:
            beginning = Beginning(self._topic_id, feed.start or 0)
        whole = feed_claim(flow, part, shards, beginning)
        (place,) = whole.parts
        shown = {**place, "start": span.show, "end": span.end}
        return replace(whole, number=feed.number, parts=(shown,), position=span.show)

    def span(self, index: int, feed: Feed, checkpoints: dict[int, str]) -> Span:
        """Choose what to read of a partition, and note the checkpoint that it begins with."""
        partition = feed.partition
        assert partition is not None
        low, high = self._held[partition] = self._cluster.bounds(self._asked.topic, partition)
        end = self._end(partition, high)
        begun = feed.start
        if begun is None:
            begun = self._begin(partition, EARLIEST if feed.late else self._begun, high)
        show = min(self._show(partition, low, high, begun), end)
        known = checkpoint_files.newest(self._checkpoints, index, self._topic_id, show)
        if known is not None:
            path, start = known
            checkpoints[index] = str(path)
        elif show == low and self._from_the_start():
            start = show
            self._anew = max(self._anew, low - (begun or 0))
        elif begun is None:
            raise UsageError(
                f"{self._where(partition)}: the run began with what came then (from=latest) and "
                f"has no checkpoint at or before offset {show}: give a later --from"
            )
        else:
            start = begun
            if start > show:
                raise UsageError(
                    f"{self._where(partition)}: the run began at offset {start}, --from is offset "
                    f"{show}: give a later --from"
                )
        if start < low:
            raise self._removed(partition, start, low, show)
        if known is None and (show < end or self._ends):
            self._to_warm += show - start
        if show < end:
            self._shown += end - show
            self._first_ms.append(self._arrival(partition, show, low, self._asked.start))
            self._end_ms.append(self._arrival(partition, end, high, self._asked.end))
        return Span(index, partition, self._topic_id, start, show, end, self._ends)

    def _from_the_start(self) -> bool:
        return self._wanted.start is None or self._asked.start == EARLIEST

    def _where(self, partition: int) -> str:
        return f"kafka topic {self._asked.topic}, partition {partition}"

    def _begin(self, partition: int, bound: Bound, high: int) -> int | None:
        """Where the original run began; None if nobody knows."""
        if bound == EARLIEST:
            return 0
        return None if bound.word else self._offset(partition, bound, high)

    def _offset(self, partition: int, bound: Bound, high: int) -> int:
        if bound.time_ms is not None:
            found = self._cluster.at_time(self._asked.topic, partition, bound.time_ms)
            return high if found is None else found
        if bound.word:
            return high
        offset = bound.offset
        if offset is None:
            offset = dict(bound.offsets).get(partition)
        if offset is None:
            raise UsageError(f"no offset for {self._where(partition)}: give one, or a time")
        return offset

    def _show(self, partition: int, low: int, high: int, begun: int | None) -> int:
        """Where ``from`` points to."""
        if self._wanted.start is None and begun is not None:
            return max(low, begun)
        start = self._asked.start
        if start == EARLIEST:
            return low
        offset = self._offset(partition, start, high)
        if offset > high:
            raise UsageError(
                f"{self._where(partition)} ends at offset {high}: --from {offset} is behind it"
            )
        if offset < low:
            raise self._removed(partition, offset, low, offset)
        return offset

    def _end(self, partition: int, high: int) -> int:
        end = self._asked.end
        if end is None:
            return high
        if end.time_ms is not None and end.time_ms > time.time_ns() // NS_PER_MS:
            self._to_come = True
            return high
        offset = self._offset(partition, end, high)
        if offset > high:
            self._to_come = True
        return min(offset, high)

    def _removed(self, partition: int, wanted: int, low: int, show: int) -> UsageError:
        before = "" if wanted >= show else f", and there is no checkpoint between {low} and {show}"
        return UsageError(
            f"{self._where(partition)} begins at offset {low}: retention has removed {wanted} to "
            f"{low}, which a replay from {show} needs{before}. Replay what is left with --from "
            "earliest; name the --recovery folder of the original run with --checkpoints (it needs "
            "run --checkpoint-every); or start with empty books, into an empty sink, by "
            "marketflow run --source 'kafka://…?from=…'"
        )

    def _arrival(self, partition: int, offset: int, edge: int, asked: Bound | None) -> int | None:
        """When the message there arrived; None at the edge of the topic."""
        if offset == edge:
            return None
        if asked is not None and asked.time_ms is not None:
            return asked.time_ms
        found = self._cluster.time_at(self._asked.topic, partition, offset)
        # Its neighbours of the same millisecond may be on the other side.
        return None if found is None else found + (asked is self._asked.start)

    def arrivals(self) -> tuple[str, int | None, int | None, bool]:
        """See :class:`ReplayPlan`."""
        first, end = self._first_ms, self._end_ms
        bounds = [bound for bound in (self._asked.start, self._asked.end) if bound is not None]
        return (
            self._asked.venue,
            None if None in first else min((ms for ms in first if ms is not None), default=0),
            None if None in end else max((ms for ms in end if ms is not None), default=0),
            not any(bound.offset is not None or bound.offsets for bound in bounds),
        )

    def notes(self) -> list[str]:
        """What the user should know."""
        topic = self._asked.topic
        found = []
        if not self._shown:
            found.append(f"{topic}: nothing lies in this interval; {self._holdings()}")
        if self._anew:
            found.append(
                f"{topic}: retention has removed {self._anew:,} messages: what is left is "
                "replayed, its rows numbered from 0"
            )
        if self._to_warm:
            found.append(
                f"{topic}: no checkpoint lies before --from: {self._to_warm:,} messages are read "
                "first, silently, to bring books and bars to where they were (with "
                "run --checkpoint-every and --checkpoints it is little)"
            )
        if self._to_come:
            found.append(f"{topic}: --to is still to come: it is replayed up to where it ends now")
        return found

    def _holdings(self) -> str:
        """What there is in the topic."""
        parts = []
        for partition, (low, high) in sorted(self._held.items()):
            if low == high:
                parts.append(f"partition {partition} is empty")
                continue
            told = f"partition {partition} has offsets {low} to {high - 1}"
            for word, offset in (("from", low), ("to", high - 1)):
                ms = self._cluster.time_at(self._asked.topic, partition, offset)
                if ms is not None:
                    told += f" {word} {datetime_at_ms(ms).isoformat()}"
            parts.append(told)
        return "; ".join(parts)
