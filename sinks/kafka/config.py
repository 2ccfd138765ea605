"""What a ``kafka://`` sink URL asks for.

``kafka://HOST:PORT[,HOST:PORT]/PREFIX?format=arrow|avro|json&partitions=P&commit_ms=N&…``: a topic
``PREFIX.<table>`` per table. ``partitions`` refuses topics with another number; ``commit_ms`` is
the longest that a row waits to be visible; ``registry`` a Schema Registry that gives the ids of
Avro schemas; ``patience_s`` (840 at most) how long an outage is waited out; security as in
schemas.kafka_address.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from marketflow.schemas.kafka_address import (
    SECURITY_PARAMS,
    KafkaAddress,
    KafkaAddressError,
    parse_address,
    redacted,
)
from marketflow.schemas.messages.kafka import FORMATS
from marketflow.sinks.errors import SinkError

EXAMPLE: Final = "//HOST:PORT/PREFIX"
_NUMBERS: Final[dict[str, Callable[[str], int | float]]] = {
    "partitions": int,
    "commit_ms": int,
    "patience_s": float,
}
_MAX_PATIENCE_S: Final = 840
_KNOWN: Final = ("format", *_NUMBERS, "registry", *SECURITY_PARAMS)


@dataclass(frozen=True, slots=True)
class KafkaSinkSpec:
    """A checked ``kafka://`` sink. ``partitions`` 0: as many as the topics have."""

    address: KafkaAddress
    format: str = "arrow"
    partitions: int = 0
    commit_ms: int = 100
    patience_s: float = 300.0
    registry: str = ""

    @property
    def prefix(self) -> str:
        return self.address.name


def parse_kafka_sink(text: str) -> KafkaSinkSpec:
    """The sink of a URL ``kafka://…``; SinkError names what to change."""
    place, _, query = text.removeprefix("kafka:").partition("?")
    shown = redacted(text)
    params = dict(parse_qsl(query, keep_blank_values=True))
    for name in params:
        if name not in _KNOWN:
            raise SinkError(f"sink {shown}: no option {name!r}; kafka: takes {', '.join(_KNOWN)}")
    try:
        address = parse_address(place, params, os.environ, _secret_of)
    except KafkaAddressError as error:
        raise SinkError(f"sink {shown}: {error}") from None
    chosen = params.get("format", "arrow")
    if chosen not in FORMATS:
        raise SinkError(f"sink {shown}: format={chosen} is none of {', '.join(FORMATS)}")
    if "registry" in params and chosen != "avro":
        raise SinkError(f"sink {shown}: registry= goes with format=avro")
    numbers = {name: _number(shown, name, params) for name in _NUMBERS if name in params}
    if numbers.get("patience_s", 0) > _MAX_PATIENCE_S:
        raise SinkError(
            f"sink {shown}: patience_s is at most {_MAX_PATIENCE_S}: brokers let no transaction "
            "stay open for longer"
        )
    return KafkaSinkSpec(
        address,
        format=chosen,
        registry=params.get("registry", ""),
        **numbers,  # type: ignore[arg-type]
    )


def _number(shown: str, name: str, params: Mapping[str, str]) -> int | float:
    try:
        number = _NUMBERS[name](params[name])
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise SinkError(f"sink {shown}: {name}={params[name]!r} is no number above 0")
    return number


def _secret_of(path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except OSError as error:
        raise SinkError(f"kafka: password_file {path}: {error.strerror}") from None
