"""``kafka://HOST:PORT[,HOST:PORT]/PREFIX?format=arrow|avro|json&…``: a topic ``PREFIX.<table>`` per
table.

Security as in schemas.kafka_address: parameters of the URL, or variables.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final, Literal

from pydantic import field_validator, model_validator

from marketflow.schemas.kafka_address import (
    SECURITY_PARAMS,
    KafkaAddress,
    KafkaAddressError,
    parse_address,
)
from marketflow.sinks.config import Count, Opening, Options, Seconds, SinkConfig, options_of, split
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lineage import Lineage
from marketflow.sinks.redaction import redacted
from marketflow.sinks.writer import Writer

FORM: Final = "kafka://HOST:PORT/PREFIX"
_MAX_PATIENCE_S: Final = 840


class KafkaOptions(Options):
    """How rows become messages, and when those are visible.

    ``partitions``: refuses topics with another number; None: as many as the topics have.
    ``commit_ms``: longest time until a row is visible.
    ``patience_s``: longest outage.
    ``registry``: Schema Registry that gives the ids of Avro schemas.
    """

    format: Literal["arrow", "avro", "json"] = "arrow"
    partitions: Count | None = None
    commit_ms: Count = 100
    patience_s: Seconds = 300.0
    registry: str = ""

    @field_validator("patience_s")
    @classmethod
    def _within_transactions(cls, value: float) -> float:
        if value > _MAX_PATIENCE_S:
            raise ValueError(
                f"patience_s is at most {_MAX_PATIENCE_S}: brokers let no transaction stay open "
                "for longer"
            )
        return value

    @model_validator(mode="after")
    def _registry_of_avro(self) -> KafkaOptions:
        if self.registry and self.format != "avro":
            raise ValueError("registry= goes with format=avro")
        return self


class KafkaConfig(SinkConfig):
    """Topics below one prefix (sinks.kafka.writer)."""

    address: KafkaAddress
    options: KafkaOptions = KafkaOptions()

    @classmethod
    def parse(cls, text: str) -> KafkaConfig:
        """The config of a URL. SinkError."""
        place, given = split(text)
        ours = {name: value for name, value in given.items() if name not in SECURITY_PARAMS}
        options = options_of(KafkaOptions, text, ours, SECURITY_PARAMS)
        try:
            address = parse_address(place, given, os.environ, _secret_of)
        except KafkaAddressError as error:
            raise SinkError(f"sink {redacted(text)!r}: {error}") from None
        return cls(text=text, address=address, options=options)

    @property
    def prefix(self) -> str:
        """What the names of its topics begin with."""
        return self.address.name

    @property
    def place(self) -> str:
        brokers = ",".join(sorted(self.address.brokers.split(",")))
        return f"kafka://{brokers}/{self.prefix}?format={self.options.format}"

    def _writer(self, opening: Opening) -> Writer:
        from marketflow.sinks.kafka.writer import KafkaWriter

        return KafkaWriter(self, opening.writer, opening.recovery, opening.midway)

    def lineage(self, stop: threading.Event | None = None) -> Lineage:
        from marketflow.sinks.kafka.feeds import TopicLineage

        return TopicLineage(self.address, self.options.patience_s, stop)


def _secret_of(path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except OSError as error:
        raise SinkError(f"kafka: password_file {path}: {error.strerror}") from None
