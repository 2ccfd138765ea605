"""The recorded captures as raw topics: each venue's frames in a topic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.messages.kafka import partition_of_connection
from marketflow.sinks.raw.topic import RawTopicWriter
from marketflow.sources.registry import open_reader, parse_source
from tests.support.services.topics import Cluster


class Capture(NamedTuple):
    """A recording: how a topic of it is decoded, and the source that reads its file."""

    venue: str
    source: str


def binance(data: Path) -> list[Capture]:
    """Eleven minutes of a spot market and six of a futures one, each from a combined stream."""
    folder = data / "binance-ws-hftbacktest"
    spot = ",".join(str(folder / f"spot_btcusdt_2024080{day}.gz") for day in (8, 9))
    return [
        Capture("binance-usdm", f"binance:{folder}/usdm_btcusdt_20240808.gz?market=usdm"),
        Capture("binance", f"binance:{spot}?market=spot"),
    ]


def venues(data: Path) -> list[Capture]:
    """Half a minute of twelve venues with their REST answers; checksums of three of them."""
    return [
        Capture(path.name.partition(".")[0].lower().replace("_", "-"), f"capture:{path}")
        for folder in ("checksum-captures", "cryptofeed-captures")
        for path in sorted((data / folder).glob("*.jsonl.zst"))
    ]


def record(kafka: Cluster, topic: str, source: str, copies: int = 1) -> int:
    """The frames of a source in a topic with one partition; or in several, each of which has them
    all, as of one connection. The number of messages in each."""
    writer = RawTopicWriter(KafkaAddress(kafka.brokers, topic))
    names = [_connection_of(partition, copies) for partition in range(copies)]
    reader = open_reader(parse_source(source))
    messages = 0
    while (batch := reader.read()) is not None:
        messages += batch.num_rows
        if copies == 1:
            writer.write(batch)
            continue
        for name in names:
            writer.write(_from(name, batch))
    writer.flush()
    reader.close()
    return messages - 1  # without the END


def _connection_of(partition: int, partitions: int) -> str:
    """A connection whose frames go to this partition."""
    tries = (f"connection-{number}" for number in range(10_000))
    return next(name for name in tries if partition_of_connection(name, partitions) == partition)


def _from(connection: str, frames: pa.RecordBatch) -> pa.RecordBatch:
    place = frames.schema.get_field_index("connection")
    column = pa.DictionaryArray.from_arrays(
        pa.array([0] * frames.num_rows, pa.int32()), pa.array([connection])
    )
    return frames.set_column(place, frames.schema.field(place), column)
