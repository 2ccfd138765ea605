"""Config of a ``kafka://`` source: which topic, from where to where, and what is in it.

``kafka://HOST:PORT[,HOST:PORT]/TOPIC?from=…&to=…&venue=…|table=…&group=…``

- ``from``: ``earliest`` (default), ``latest``, an offset for all partitions, ``p0:o0,p1:o1,…`` (an
  offset for each partition) or a time (ISO 8601, UTC unless it says otherwise): the first message
  at or after it.
- ``to``: the same forms, exclusive; the feed ends there. ``latest`` is the end at the start of the
  run. A time to come ends the feed when it has come. Without it the feed never ends.
- ``venue``: how raw frames are decoded; a topic ``raw.<venue>`` needs none. ``table``: the topic
  holds rows of that table; a topic ``<prefix>.<table>`` needs none.
- ``group``: the consumer group that positions are committed to, for tools that watch lag.
- ``dead_letters``: with ``venue``, of a topic of dead letters: read only those that were raw frames
  of this feed (``kafka:raw.kraken``), as frames again.
- ``registry``: URL of a Schema Registry for Avro rows of others.
- ``patience_s``: longest outage of the brokers that a run waits out.
- security: see schemas.kafka_address.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field

from marketflow.schemas.kafka_address import (
    SECURITY_PARAMS,
    KafkaAddress,
    KafkaAddressError,
    parse_address,
    redacted,
)
from marketflow.schemas.messages.kafka import RAW_PREFIX, table_of_topic
from marketflow.schemas.moments import ns_of
from marketflow.schemas.units import NS_PER_MS
from marketflow.sources.config import INPUT_TABLES, DayOrNone, LakeFiles, Param, SourceConfig, Text
from marketflow.sources.errors import SourceError
from marketflow.sources.url import Url, check_names

DEFAULT_GROUP: Final = "marketflow"
_OFFSET: Final = re.compile(r"\d{1,18}", re.ASCII)
_EACH: Final = re.compile(r"\d{1,6}:\d{1,18}(?:,\d{1,6}:\d{1,18})*", re.ASCII)
_FORMS: Final = "earliest, latest, an offset, p0:o0,p1:o1 or a time such as 2026-03-02T14:30:00Z"


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of an interval: a word, or an offset, or offsets by partition, or a time (ms)."""

    word: str = ""
    offset: int | None = None
    offsets: tuple[tuple[int, int], ...] = ()
    time_ms: int | None = None


EARLIEST: Final = Bound("earliest")


def _patience(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text, re.ASCII):
        raise ValueError("a number of seconds")
    return float(text)


def _bound(text: str) -> Bound:
    if text in ("earliest", "latest"):
        return Bound(word=text)
    if _OFFSET.fullmatch(text):
        return Bound(offset=int(text))
    if _EACH.fullmatch(text):
        pairs = [item.split(":") for item in text.split(",")]
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if len(offsets) < len(pairs):
            raise ValueError("a list of offsets: it names a partition twice")
        return Bound(offsets=tuple(sorted(offsets.items())))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"one of {_FORMS}") from None
    ns = ns_of(moment)
    if ns < 0:
        raise ValueError("a time since 1970")
    # Kafka's clock ticks in ms: the first whole one that is not before the time.
    return Bound(time_ms=-(-ns // NS_PER_MS))


def _secret_of(path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except OSError as error:
        raise SourceError(f"kafka: password_file {path}: {error.strerror}") from None


class KafkaConfig(SourceConfig):
    """A topic, or one partition of it. Either ``venue`` (upper case) or ``table`` is set.

    ``late``: the partition may be younger than the run, and is read from its start.
    """

    address: KafkaAddress
    start: Annotated[Bound, BeforeValidator(_bound), Param("from=earliest")] = Field(
        default=EARLIEST, alias="from"
    )
    end: Annotated[Bound | None, BeforeValidator(_bound), Param("to=latest")] = Field(
        default=None, alias="to"
    )
    venue: Annotated[Text, Param("venue=binance")] = ""
    table: Annotated[Text, Param("table=trades")] = ""
    group: Annotated[Text, Param("group=marketflow")] = DEFAULT_GROUP
    dead_letters: Annotated[Text, Param("dead_letters=kafka:raw.kraken")] = ""
    registry: Annotated[Text, Param("registry=URL")] = ""
    date: DayOrNone = None
    patience_s: Annotated[float, BeforeValidator(_patience), Param("patience_s=300")] = 300.0
    late: bool = False

    @classmethod
    def parse(cls, url: Url, lake_files: LakeFiles | None = None) -> Self:
        check_names(url.scheme, url.params, (*cls.params(), *SECURITY_PARAMS))
        try:
            address = parse_address(url.place, url.params, os.environ, _secret_of)
        except KafkaAddressError as error:
            raise SourceError(str(error)) from None
        shown = url._replace(text=redacted(url.text))
        config = cls.of(shown, SECURITY_PARAMS, address=address)
        if config.end == EARLIEST:
            raise SourceError("kafka: to=earliest is no end; give latest, an offset or a time")
        venue, table = _content(config)
        return config.model_copy(update={"venue": venue, "table": table})

    @property
    def topic(self) -> str:
        return self.address.name

    @property
    def name(self) -> str:
        return f"{self.scheme}:{self.topic}"

    def of_partition(
        self, partition: int, late: bool = False, start: int | None = None
    ) -> KafkaConfig:
        """One partition of the topic as a source of its own. ``start``: the offset that ``from``
        meant when the run began."""
        update = {
            "text": f"{self.text} partition {partition}",
            "partition": partition,
            "late": late,
        }
        if start is not None:
            update["start"] = Bound(offset=start)
        return self.model_copy(update=update)


def topic_of(config: SourceConfig) -> KafkaConfig:
    """The config of a source that is a topic; SourceError for another one."""
    if not isinstance(config, KafkaConfig):
        raise SourceError(f"{config.text} is no topic: name one, kafka://HOST:PORT/TOPIC")
    return config


def _content(config: KafkaConfig) -> tuple[str, str]:
    """(venue, table): what the messages are."""
    topic, venue, table = config.topic, config.venue, config.table
    letters = config.dead_letters.removeprefix("kafka:")
    if letters.startswith(RAW_PREFIX) and not venue:
        venue = letters.removeprefix(RAW_PREFIX)
    elif letters and not venue:
        raise SourceError(
            f"kafka: dead_letters={letters}: whose frames are these? Add venue=NAME, by "
            "which they are decoded"
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
    if table and table not in INPUT_TABLES:
        known = ", ".join(INPUT_TABLES)
        raise SourceError(f"kafka: table={table} cannot be an input; known: {known}")
    return venue.upper().replace("-", "_"), table
