"""Where a recorder writes, by URL: ``kafka://HOST:PORT/raw`` (topics ``raw.<venue>``; another name
is one topic, for one venue), ``parquet:DIR?seal_after_s=S&seal_bytes=N`` (a folder of files),
``capture:PATH`` (one JSONL recording, for one venue).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa

from marketflow.schemas.kafka_address import (
    SECURITY_PARAMS,
    KafkaAddress,
    KafkaAddressError,
    parse_address,
)
from marketflow.schemas.messages.kafka import RAW_PREFIX
from marketflow.sinks.config import Options, options_of, split
from marketflow.sinks.errors import SinkError
from marketflow.sinks.raw.files import RawFileOptions, RawFileWriter
from marketflow.sinks.redaction import redacted

FORMS: Final = "kafka://HOST:PORT/raw, parquet:DIR, capture:PATH"


class RawWriter(Protocol):
    """Writes the frames of one venue."""

    def write(self, frames: pa.RecordBatch) -> None:
        """Take frames (schemas.messages.frames.FRAMES); blocks while it cannot."""

    def idle(self) -> None:
        """Nothing came for a moment: time for what is done by the clock."""

    def close(self) -> None:
        """Make everything durable."""


def open_raw(text: str, venues: Sequence[str]) -> dict[str, RawWriter]:
    """A writer per venue (names of decoders). Raises SinkError naming what to change."""
    scheme = text.partition(":")[0]
    place, params = split(text)
    match scheme if place else "":
        case "kafka":
            return _topics(text, place, params, venues)
        case "parquet":
            options = options_of(RawFileOptions, text, params)
            return {venue: RawFileWriter(Path(place), venue, options) for venue in venues}
        case "capture":
            from marketflow.sinks.raw.capture import CaptureWriter

            options_of(Options, text, params)
            _one_venue(text, venues)
            return {venue: CaptureWriter(Path(place), venue) for venue in venues}
    raise SinkError(f"sink {redacted(text)!r}: raw frames go to {FORMS}")


def _topics(
    text: str, place: str, params: dict[str, str], venues: Sequence[str]
) -> dict[str, RawWriter]:
    from marketflow.sinks.raw.topic import RawTopicWriter

    strangers = {name: value for name, value in params.items() if name not in SECURITY_PARAMS}
    options_of(Options, text, strangers, SECURITY_PARAMS)
    address = address_of(place, params)
    if address.name == RAW_PREFIX.rstrip("."):
        names = {venue: f"{RAW_PREFIX}{venue.lower()}" for venue in venues}
    else:
        _one_venue(text, venues)
        names = dict.fromkeys(venues, address.name)
    return {venue: RawTopicWriter(replace(address, name=name)) for venue, name in names.items()}


def address_of(place: str, params: dict[str, str]) -> KafkaAddress:
    """A broker's address with the security that the environment gives. SinkError."""
    try:
        return parse_address(place, params, os.environ, lambda path: Path(path).read_text())
    except (KafkaAddressError, OSError) as error:
        raise SinkError(str(error)) from None


def _one_venue(text: str, venues: Sequence[str]) -> None:
    if len(set(venues)) > 1:
        raise SinkError(
            f"sink {redacted(text)!r} takes one venue, the sources are of {', '.join(venues)}: "
            "write kafka://HOST:PORT/raw (a topic per venue) or parquet:DIR"
        )
