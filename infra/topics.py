"""The topics of a deployment: which there are, how they are kept, and creating what is missing.

- ``raw.<venue>``: frames as received, with arrival time: the durable record of live feeds.
- ``<prefix>.<table>``: one per table, dead letters and quality events among them.
- ``<prefix>.resync_requests``: what the books ask of the recorder.
- ``<prefix>.feeds``: which feeds were loaded, by which run, and their rows.

Retention is by bytes: replayed history carries old times, and by age it would be gone at once.
Messages may be of any time for the same reason. Nothing that exists is ever changed: what differs
is shown, with the command that changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from marketflow.schemas.fields import Table
from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.messages.feeds import TOPIC as FEEDS
from marketflow.schemas.messages.kafka import RAW_PREFIX
from marketflow.schemas.messages.resync import TOPIC as RESYNC_REQUESTS
from marketflow.schemas.units import NS_PER_DAY, NS_PER_MS

DEFAULT_PREFIX: Final = "md"
DEFAULT_PARTITIONS: Final = 4
_TIMEOUT_S: Final = 15.0
#: Short at first, so that a refusal is told soon.
_ATTEMPTS_S: Final = (0.5, 1.0, 2.0, 4.0)
#: No other attempt mends these.
_REFUSED: Final = (
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
_GIB: Final = 1 << 30
_DAY_MS: Final = NS_PER_DAY // NS_PER_MS
_ANY_TIME: Final = {
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": str(2**63 - 1),
    "message.timestamp.after.max.ms": str(2**63 - 1),
}
#: The newest message of a key is what counts. Only full segments are compacted: short ones keep
#: what a start has to read small, though each commit adds a message.
_LATEST_SOON: Final = {
    "cleanup.policy": "compact",
    "max.message.bytes": str(16 << 20),
    "segment.bytes": str(32 << 20),
    "segment.ms": str(_DAY_MS // 24),
    "min.cleanable.dirty.ratio": "0.1",
}
#: The newest row per instrument is what readers want of it, where rows are messages of their own.
_LATEST_COUNTS: Final = frozenset({"instruments"})


class TopicsError(RuntimeError):
    """The cluster cannot be asked or refuses; the text names the fix."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be. ``config`` is what is not left to the cluster's defaults."""

    name: str
    partitions: int
    config: dict[str, str]
    holds: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """``state``: created, same or differs; ``differences`` say what and how to change it."""

    name: str
    state: str
    partitions: int
    holds: str
    differences: list[str] = field(default_factory=list)


def declared(
    tables: Mapping[str, Table],
    prefix: str = DEFAULT_PREFIX,
    partitions: int = DEFAULT_PARTITIONS,
    raw: Sequence[str] = (),
    *,
    rows_as_messages: bool = False,
    retention_bytes: int = 16 * _GIB,
) -> list[Topic]:
    """Every topic of a deployment: its tables, requests, feeds, and raw frames of the venues
    ``raw``.

    ``rows_as_messages``: the tables hold a message per row (formats avro and json), so that
    ``instruments`` can be compacted by instrument. ``retention_bytes`` is per partition.
    """
    kept = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": str(retention_bytes),
        "compression.type": "producer",
        "max.message.bytes": str(16 << 20),
        **_ANY_TIME,
    }
    topics = [
        Topic(f"{RAW_PREFIX}{venue.lower()}", partitions, kept, f"frames of {venue} as received")
        for venue in raw
    ]
    for name, table in tables.items():
        config = kept
        if rows_as_messages and name in _LATEST_COUNTS:
            config = {n: v for n, v in kept.items() if n != "retention.bytes"}
            config["cleanup.policy"] = "compact"
        topics.append(Topic(f"{prefix}.{name}", partitions, config, table.doc))
    requests = {"cleanup.policy": "delete", "retention.ms": str(_DAY_MS), **_ANY_TIME}
    holds = "books that need a fresh snapshot from the recorder"
    topics.append(Topic(f"{prefix}.{RESYNC_REQUESTS}", 1, requests, holds))
    holds = "which feeds were loaded, by which run, and their rows"
    topics.append(Topic(f"{prefix}.{FEEDS}", 1, dict(_LATEST_SOON), holds))
    return topics


def apply(
    address: KafkaAddress, topics: Sequence[Topic], replication: int | None = None
) -> list[Outcome]:
    """Create the topics that are missing and compare the others. TopicsError if it cannot be done.

    ``replication`` None leaves the number of copies to the cluster.
    """
    reasons: list[KafkaError] = []
    config: dict[str, Any] = {**address.config(), "error_cb": reasons.append, "log_level": 0}
    admin = AdminClient(config)
    known = _known(admin, address, reasons)
    missing = [topic for topic in topics if topic.name not in known]
    _create(admin, missing, replication)
    existing = [topic for topic in topics if topic.name in known]
    configs = _configs(admin, existing)
    outcomes = {t.name: Outcome(t.name, "created", t.partitions, t.holds) for t in missing}
    for topic in existing:
        count = len(known[topic.name].partitions)
        different = _differences(address, topic, count, configs[topic.name])
        state = "differs" if different else "same"
        outcomes[topic.name] = Outcome(topic.name, state, count, topic.holds, different)
    return [outcomes[topic.name] for topic in topics]


def _known(admin: AdminClient, address: KafkaAddress, reasons: list[KafkaError]) -> dict[str, Any]:
    """Every topic of the cluster; TopicsError with what the brokers themselves say."""
    why = ""
    for timeout_s in _ATTEMPTS_S:
        try:
            return dict(admin.list_topics(timeout=timeout_s).topics)
        except KafkaException as error:
            why = why or error.args[0].str()
        admin.poll(0)
        refused = [reason for reason in reasons if reason.code() in _REFUSED]
        why = (refused or reasons)[-1].str() if reasons else why
        if refused:
            break
    raise TopicsError(
        f"kafka at {address.brokers} does not answer: {why}; check the address and the security "
        "settings, and that the brokers run"
    )


def _create(admin: AdminClient, topics: Sequence[Topic], replication: int | None) -> None:
    if not topics:
        return
    wanted = [
        NewTopic(t.name, t.partitions, replication if replication else -1, config=t.config)
        for t in topics
    ]
    for name, future in admin.create_topics(wanted, request_timeout=_TIMEOUT_S).items():
        try:
            future.result(timeout=2 * _TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue  # somebody else created it at the same time
            raise TopicsError(f"topic {name} cannot be created: {error.args[0].str()}") from None


def _configs(admin: AdminClient, topics: Sequence[Topic]) -> dict[str, dict[str, Any]]:
    if not topics:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics]
    found = {}
    asked = admin.describe_configs(resources, request_timeout=_TIMEOUT_S)
    for resource, future in asked.items():
        try:
            found[resource.name] = future.result(timeout=2 * _TIMEOUT_S)
        except KafkaException as error:
            raise TopicsError(
                f"topic {resource.name} cannot be looked at: {error.args[0].str()}"
            ) from None
    return found


def _differences(
    address: KafkaAddress, topic: Topic, count: int, config: dict[str, Any]
) -> list[str]:
    found = []
    if count != topic.partitions:
        found.append(
            f"{count} partitions, declared {topic.partitions}: say --partitions {count}, or use "
            "another prefix (with more partitions a shard would change its partition)"
        )
    for name, value in topic.config.items():
        has = config[name].value if name in config else None
        if has != value:
            found.append(
                f"{name} is {has}, declared {value}: kafka-configs --bootstrap-server "
                f"{address.brokers} --alter --topic {topic.name} --add-config {name}={value}"
            )
    return found
