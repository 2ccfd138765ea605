"""From a checked source to its reader; only the module that is needed gets imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from marketflow.sources.errors import SourceError
from marketflow.sources.files import recorded_frames as frames
from marketflow.sources.reader import DEFAULT_LIMITS, Limits, Reader
from marketflow.sources.url import SourceSpec

if TYPE_CHECKING:
    from marketflow.sources.kafka.consumer import ConsumerPool


def open_reader(
    spec: SourceSpec,
    position: Any = None,
    limits: Limits = DEFAULT_LIMITS,
    pool: Callable[[], ConsumerPool] | None = None,
) -> Reader:
    """The reader of a source, from its start or from a ``position()`` of an earlier one.

    ``pool`` makes what the Kafka feeds of a process share. SourceError if a file or topic is gone
    or no longer holds that position.
    """
    match spec.scheme:
        case "itch":
            from marketflow.sources.files.itch import ItchReader

            return ItchReader(spec.paths, position, limits)
        case "binance":
            from marketflow.sources.files.stamped_json import BinanceReader

            return BinanceReader(spec.paths, position, limits)
        case "capture":
            from marketflow.sources.files.capture import CaptureReader

            return CaptureReader(spec.paths, position, limits)
        case "lobster":
            if not spec.book_paths:
                from marketflow.sources.files.text_lines import LineReader

                return LineReader(spec.paths, position, limits)
            from marketflow.sources.files.lobster import LobsterReader

            return LobsterReader(spec.paths, spec.book_paths, position, limits)
        case "dbn":
            from marketflow.sources.files.dbn import DbnReader

            return DbnReader(spec.paths, position, limits)
        case "csv":
            from marketflow.sources.files.tables import CsvReader, constants

            return CsvReader(spec.paths, position, limits, constants(spec.params))
        case "parquet" if spec.params["table"] == frames.TABLE:
            return frames.FramesReader(spec.paths, position, limits)
        case "parquet" if spec.lake is not None:
            from marketflow.sources.files.parquet_rows import LakeReader

            chosen = {n: v for n, v in spec.params.items() if n in ("venue", "symbol")}
            return LakeReader(spec.paths, spec.params["table"], position, limits, chosen)
        case "parquet":
            from marketflow.sources.files.tables import ParquetReader, constants

            given = constants(spec.params)
            return ParquetReader(spec.paths, spec.params["table"], position, limits, given)
        case "sim":
            from marketflow.sources.simulator.reader import open_simulator

            return open_simulator(spec, position, limits)
        case "kafka":
            from marketflow.sources.kafka.config import parse_feed
            from marketflow.sources.kafka.reader import KafkaReader

            assert pool is not None and spec.partition is not None, spec
            feed = parse_feed(spec.place, spec.params)
            return KafkaReader(pool(), feed, spec.partition, position, late=spec.late)
    raise SourceError(f"no reader for {spec.scheme}:")
