"""What a ``kafka://`` source URL asks for: which topic, from where to where, and what is in it.

``kafka://HOST:PORT[,HOST:PORT]/TOPIC?from=…&to=…&venue=…|table=…&group=…``

- ``from``: ``earliest`` (default), ``latest``, an offset for all partitions, ``p0:o0,p1:o1,…`` (an
  offset for each partition) or a time (ISO 8601, UTC unless it says otherwise): the first message
  at or after it.
- ``to``: the same forms, exclusive; the feed ends there. ``latest`` is the end at the start of the
  run. A time to come ends the feed when it has come. Without it the feed never ends.
- ``venue``: how raw frames are decoded; a topic ``raw.<venue>`` needs none. ``table``: the topic
  holds rows of that table; a topic ``<prefix>.<table>`` needs none.
- ``group``: the consumer group that positions are told to, for tools that watch lag.
- ``letters``: with ``venue``, in a topic of dead letters: only those are taken that were raw frames
  of this feed (``kafka:raw.kraken``); the frames are read again.
- ``registry``: URL of a Schema Registry for Avro rows of others.
- ``patience_s``: how long an outage of the brokers is waited out.
- security: see schemas.kafka_address.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from marketflow.schemas.kafka_address import KafkaAddress, KafkaAddressError, parse_address
from marketflow.schemas.messages.kafka import RAW_PREFIX, table_of_topic
from marketflow.schemas.moments import ns_of
from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import NS_PER_MS
from marketflow.sources.errors import SourceError

DEFAULT_GROUP: Final = "marketflow"
_OFFSET: Final = re.compile(r"\d{1,18}", re.ASCII)
_EACH: Final = re.compile(r"\d{1,6}:\d{1,18}(?:,\d{1,6}:\d{1,18})*", re.ASCII)
#: Tables that are made by the flow itself and mean nothing as its input.
_MADE: Final = frozenset({"depth", "bars", "dead_letters", "quality_events"})
_FORMS: Final = "earliest, latest, an offset, p0:o0,p1:o1 or a time such as 2026-03-02T14:30:00Z"


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of what is read: a word, or an offset, or offsets by partition, or a time (ms)."""

    word: str = ""
    offset: int | None = None
    offsets: tuple[tuple[int, int], ...] = ()
    time_ms: int | None = None


EARLIEST: Final = Bound("earliest")


@dataclass(frozen=True, slots=True)
class KafkaFeed:
    """A checked ``kafka://`` source. Either ``venue`` (upper case) or ``table`` is set."""

    address: KafkaAddress
    start: Bound
    end: Bound | None
    venue: str
    table: str
    group: str
    registry: str
    patience_s: float
    letters: str = ""

    @property
    def topic(self) -> str:
        return self.address.name


def parse_feed(place: str, params: Mapping[str, str]) -> KafkaFeed:
    """The feed of a URL's place (``//host:port/topic``) and parameters; SourceError if wrong."""
    try:
        address = parse_address(place, params, os.environ, _secret_of)
    except KafkaAddressError as error:
        raise SourceError(str(error)) from None
    venue, table = _content(address.name, params)
    end = _bound("to", params["to"]) if "to" in params else None
    if end is not None and end.word == "earliest":
        raise SourceError("kafka: to=earliest is no end; give latest, an offset or a time")
    return KafkaFeed(
        address,
        _bound("from", params.get("from", "earliest")),
        end,
        venue,
        table,
        params.get("group", DEFAULT_GROUP),
        params.get("registry", ""),
        _patience(params.get("patience_s", "300")),
        params.get("letters", ""),
    )


def _secret_of(path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except OSError as error:
        raise SourceError(f"kafka: password_file {path}: {error.strerror}") from None


def _content(topic: str, params: Mapping[str, str]) -> tuple[str, str]:
    """(venue, table): what the messages are."""
    venue, table = params.get("venue", ""), params.get("table", "")
    letters = params.get("letters", "").removeprefix("kafka:")
    if letters.startswith(RAW_PREFIX) and not venue:
        venue = letters.removeprefix(RAW_PREFIX)
    elif letters and not venue:
        raise SourceError(
            f"kafka: letters={letters}: whose frames are these? Add venue=NAME, by which they are "
            "decoded"
        )
    if venue and table:
        raise SourceError(
            "kafka: venue= and table= are both given: a topic holds raw frames of a venue or rows "
            "of a table; give one"
        )
    if not venue and not table:
        found = table_of_topic(topic)
        if topic.startswith(RAW_PREFIX):
            venue = topic.removeprefix(RAW_PREFIX)
        elif found is not None:
            table = found.name
        else:
            raise SourceError(
                f"kafka: what is in the topic {topic}? Add venue=NAME for raw frames of a venue, "
                "or table=NAME for rows of a table (topics raw.<venue> and <prefix>.<table> say so "
                "by their name)"
            )
    if table and (table not in TABLES or table in _MADE):
        known = ", ".join(name for name in TABLES if name not in _MADE)
        raise SourceError(f"kafka: table={table} cannot be an input; known: {known}")
    return venue.upper().replace("-", "_"), table


def _patience(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text, re.ASCII):
        raise SourceError(f"kafka: patience_s={text} is no number of seconds")
    return float(text)


def _bound(name: str, text: str) -> Bound:
    if text in ("earliest", "latest"):
        return Bound(word=text)
    if _OFFSET.fullmatch(text):
        return Bound(offset=int(text))
    if _EACH.fullmatch(text):
        pairs = [item.split(":") for item in text.split(",")]
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if len(offsets) < len(pairs):
            raise SourceError(f"kafka: {name}={text} names a partition twice")
        return Bound(offsets=tuple(sorted(offsets.items())))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SourceError(f"kafka: {name}={text} is none of {_FORMS}") from None
    ns = ns_of(moment)
    if ns < 0:
        raise SourceError(f"kafka: {name}={text} is before 1970")
    # Kafka's clock ticks in ms: the first whole one that is not before the time.
    return Bound(time_ms=-(-ns // NS_PER_MS))
