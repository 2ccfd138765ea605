"""Every kind of source: one entry per scheme. Only the room that is needed gets imported.

A new scheme is a room with a config and a reader, and an entry in :data:`SCHEMES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from marketflow.sources.errors import SourceError
from marketflow.sources.reader import DEFAULT_LIMITS, Limits, Reader
from marketflow.sources.url import split

if TYPE_CHECKING:
    from marketflow.sources.config import LakeFiles, SourceConfig
    from marketflow.sources.files.config import (
        BinanceConfig,
        CaptureConfig,
        CsvConfig,
        DbnConfig,
        FileConfig,
        ItchConfig,
        LobsterConfig,
        ParquetConfig,
    )
    from marketflow.sources.kafka.config import KafkaConfig
    from marketflow.sources.kafka.consumer import ConsumerPool
    from marketflow.sources.simulator.config import SimulatorConfig

_C = TypeVar("_C", bound="SourceConfig")


class Start(NamedTuple):
    """Where and how a reader starts.

    ``position``: of an earlier reader; None: the start of the feed.
    ``pool``: makes the consumers that the Kafka feeds of a process share.
    """

    position: Any = None
    limits: Limits = DEFAULT_LIMITS
    pool: Callable[[], ConsumerPool] | None = None


def _no_check(config: SourceConfig) -> None:
    """Nothing to look at before a run."""


@dataclass(frozen=True, slots=True)
class Scheme(Generic[_C]):
    """One kind of source.

    ``form``: how its URL is written.
    ``config``: imports the type of its config.
    ``open``: opens a reader of it.
    ``check``: looks at the data before a run; SourceError where it is plainly something else.
    ``packed``: a frame holds many messages, so that batches may be large.
    ``by_partition``: each partition is a feed of its own.
    """

    form: str
    config: Callable[[], type[_C]]
    open: Callable[[_C, Start], Reader]
    check: Callable[[_C], None] = _no_check
    packed: bool = False
    by_partition: bool = False


class LiveScheme(NamedTuple):
    """A live feed: a run can only go back to what was recorded.

    ``sink``: where ``marketflow record`` writes it.
    ``record``: the source that reads the record.
    """

    sink: str
    record: str


# -- files ------------------------------------------------------------------------------------


def _files(name: str) -> Callable[[], Any]:
    def config() -> Any:
        from marketflow.sources.files import config

        return getattr(config, name)

    return config


def _sniff(config: FileConfig) -> None:
    from marketflow.sources.files import sniff

    sniff.check(config)


def _open_itch(config: ItchConfig, start: Start) -> Reader:
    from marketflow.sources.files.itch import ItchReader

    return ItchReader(config.paths, start.position, start.limits)


def _open_lobster(config: LobsterConfig, start: Start) -> Reader:
    if not config.book_paths:
        from marketflow.sources.files.text_lines import LineReader

        return LineReader(config.paths, start.position, start.limits)
    from marketflow.sources.files.lobster import LobsterReader

    return LobsterReader(config.paths, config.book_paths, start.position, start.limits)


def _open_dbn(config: DbnConfig, start: Start) -> Reader:
    from marketflow.sources.files.dbn import DbnReader

    return DbnReader(config.paths, start.position, start.limits)


def _open_binance(config: BinanceConfig, start: Start) -> Reader:
    from marketflow.sources.files.stamped_json import BinanceReader

    return BinanceReader(config.paths, start.position, start.limits)


def _open_capture(config: CaptureConfig, start: Start) -> Reader:
    from marketflow.sources.files.capture import CaptureReader

    return CaptureReader(config.paths, start.position, start.limits)


def _open_csv(config: CsvConfig, start: Start) -> Reader:
    from marketflow.sources.files.tables import CsvReader

    return CsvReader(config.paths, start.position, start.limits, config.given)


def _open_parquet(config: ParquetConfig, start: Start) -> Reader:
    paths, position, limits = config.paths, start.position, start.limits
    if config.is_frames:
        from marketflow.sources.files.recorded_frames import FramesReader

        return FramesReader(paths, position, limits)
    if config.lake is not None:
        from marketflow.sources.files.parquet_rows import LakeReader

        return LakeReader(paths, config.table, position, limits, config.given)
    from marketflow.sources.files.tables import ParquetReader

    return ParquetReader(paths, config.table, position, limits, config.given)


# -- others -----------------------------------------------------------------------------------


def _simulator() -> type[SimulatorConfig]:
    from marketflow.sources.simulator.config import SimulatorConfig

    return SimulatorConfig


def _open_simulator(config: SimulatorConfig, start: Start) -> Reader:
    from marketflow.sources.simulator.reader import open_simulator

    return open_simulator(config, start.position, start.limits)


def _kafka() -> type[KafkaConfig]:
    from marketflow.sources.kafka.config import KafkaConfig

    return KafkaConfig


def _open_kafka(config: KafkaConfig, start: Start) -> Reader:
    from marketflow.sources.kafka.reader import KafkaReader

    assert start.pool is not None, config
    return KafkaReader(start.pool(), config, start.position)


# -- the registry -----------------------------------------------------------------------------

SCHEMES: Final[dict[str, Scheme[Any]]] = {
    "itch": Scheme(
        "itch:PATH?date=YYYY-MM-DD", _files("ItchConfig"), _open_itch, _sniff, packed=True
    ),
    "lobster": Scheme(
        "lobster:MESSAGE_CSV?book=BOOK_CSV&symbol=S&date=YYYY-MM-DD",
        _files("LobsterConfig"),
        _open_lobster,
        _sniff,
        packed=True,
    ),
    "dbn": Scheme("dbn:PATH", _files("DbnConfig"), _open_dbn, _sniff, packed=True),
    "binance": Scheme(
        "binance:PATH?market=spot|us|usdm|coinm",
        _files("BinanceConfig"),
        _open_binance,
        _sniff,
        packed=True,
    ),
    "capture": Scheme("capture:PATH", _files("CaptureConfig"), _open_capture, _sniff),
    "csv": Scheme("csv:PATH?table=TABLE", _files("CsvConfig"), _open_csv, _sniff),
    "parquet": Scheme("parquet:PATH?table=TABLE", _files("ParquetConfig"), _open_parquet, _sniff),
    "sim": Scheme(
        "sim:?events=N&seed=S&symbols=K&format=itch|binance&date=YYYY-MM-DD",
        _simulator,
        _open_simulator,
        packed=True,
    ),
    "kafka": Scheme("kafka://HOST:PORT/TOPIC?from=…&to=…", _kafka, _open_kafka, by_partition=True),
}
_SESSION: Final = LiveScheme("parquet:DIR", "'parquet:DIR?table=frames&venue=xnas&date=YYYY-MM-DD'")
LIVE: Final = {
    "ws": LiveScheme("kafka://HOST:PORT/raw", "kafka://HOST:PORT/raw.VENUE"),
    "mold": _SESSION,
    "soup": _SESSION,
}


def parse_source(
    text: str, lake_files: LakeFiles | None = None, *, check: bool = True
) -> SourceConfig:
    """The config of a source URL; SourceError names what to change.

    ``lake_files``: see :meth:`sources.config.SourceConfig.parse`.
    ``check``: look at the data too. A process that was started with checked sources need not.
    """
    name, colon, rest = text.partition(":")
    if colon and name in LIVE:
        raise _not_recorded(name, rest)
    scheme = SCHEMES.get(name)
    if not colon or scheme is None:
        raise _unknown_scheme(text, name)
    config: SourceConfig = scheme.config().parse(split(text, scheme.form), lake_files)
    if check:
        scheme.check(config)
    return config


def open_reader(
    config: SourceConfig,
    position: Any = None,
    limits: Limits = DEFAULT_LIMITS,
    pool: Callable[[], ConsumerPool] | None = None,
) -> Reader:
    """The reader of a source, from its start or from a ``position()`` of an earlier one.

    ``pool``: see :class:`Start`. SourceError if a file or topic is gone or no longer holds that
    position.
    """
    return SCHEMES[config.scheme].open(config, Start(position, limits, pool))


def _not_recorded(name: str, rest: str) -> SourceError:
    live = LIVE[name]
    venue = rest.partition("?")[0].partition("_")[0] or "binance"
    shown = rest if name == "ws" else "…"
    return SourceError(
        f"{name}: is a live feed, and a run can only go back to what was recorded: record it first "
        f"(marketflow record --source '{name}:{shown}' --sink {live.sink}), then run from the "
        f"record (--source {live.record.replace('VENUE', venue)})"
    )


def _unknown_scheme(text: str, name: str) -> SourceError:
    known = ", ".join(f"{scheme}:" for scheme in SCHEMES)
    near = difflib.get_close_matches(name.lower(), SCHEMES, n=1)
    if Path(text).expanduser().exists():
        hint = f"; say what the file is, such as {near[0] if near else 'itch'}:{text}"
    elif near:
        hint = f"; did you mean {near[0]}: ?"
    else:
        hint = ""
    return SourceError(f"no source {name!r}: a source is one of {known}{hint}")
