"""Which feed it is, for ever: what its bytes begin with and what decides how they are decoded.

A feed's canonical identity is a JSON text of sorted keys. Its digest is BLAKE2b of 32 bytes, the
first 43 bits of that are the feed's number (:mod:`schemas.shards`). The same feed has the same
number on every machine, in every run, whatever its path, its place among the sources and its end.
Never to change: rows in stores carry the number.

What is hashed: the kind of source, the number of shards, the parameters that decide decoding, the
text of ``id=``, and where the feed begins:

- files: the first 64 KiB, uncompressed, of the first path; of a Parquet file its footer;
- a simulated feed: the simulator's version and every setting;
- a partition of a topic: the topic's id, the partition, the offset of the first message.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from marketflow.schemas.shards import feed_number
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.simulator.config import VERSION, SimulatorConfig

#: Uncompressed bytes of a feed that tell it from others.
HEAD_BYTES: Final = 1 << 16
_DIGEST_BYTES: Final = 32
#: Parameters that decide what rows are made of the bytes; others only say where the bytes are.
_DECIDING: Final = (
    "date", "symbol", "market", "venue", "table", "columns", "time_unit", "id",
)  # fmt: skip
_PARQUET: Final = b"PAR1"


@dataclass(frozen=True, slots=True)
class FeedIdentity:
    """``text``: the canonical identity; ``digest``: of it, in hex; ``number``: of 43 bits."""

    text: str
    digest: str
    number: int


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a partition begins to be read: id of its topic and offset of the first message."""

    topic_id: str
    offset: int


def identity(config: SourceConfig, shards: int, beginning: Beginning | None = None) -> FeedIdentity:
    """The identity of a feed; ``beginning``: of a partition. SourceError if it cannot be told."""
    whole = {
        "kind": config.scheme,
        "shards": shards,
        **_deciding(config),
        "begin": _begin(config, beginning),
    }
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()
    return FeedIdentity(text, digest.hex(), feed_number(digest))


def _deciding(config: SourceConfig) -> dict[str, str]:
    # A simulator's settings are its beginning.
    names = ("id",) if isinstance(config, SimulatorConfig) else _DECIDING
    values = {name: getattr(config, name, None) for name in names}
    values["letters"] = getattr(config, "dead_letters", None)
    values["book"] = len(config.files[1])  # of LOBSTER: with books, or without
    return {name: _text(value) for name, value in values.items() if value}


def _text(value: object) -> str:
    """A parameter's value as text that never changes."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{value[key]}" for key in sorted(value))
    return str(value)


def _begin(config: SourceConfig, beginning: Beginning | None) -> dict[str, Any]:
    if beginning is not None:
        if not beginning.topic_id:
            raise SourceError(
                f"{config.text}: the brokers do not tell the topic's id, by which its rows are "
                "told from those of a topic made anew under its name: use Kafka 3.1 or newer"
            )
        return {
            "topic": beginning.topic_id,
            "partition": config.partition,
            "offset": beginning.offset,
        }
    if isinstance(config, SimulatorConfig):
        return {"simulator": VERSION, "settings": list(config.made_with)}
    paths, _ = config.files
    return {"head": _digest(_head(paths[0]))} if paths else {}


def parts(
    config: SourceConfig, shards: int, beginning: Beginning | None = None
) -> list[dict[str, Any]]:
    """What a feed reads, part by part, as plain values by which a store knows it again
    (sinks.lineage). SourceError if a file cannot be read.

    A file: ``path`` as it was named, digest of its ``head`` and of how many ``bytes``; of a Parquet
    file that of its ``footer``. A partition: ``topic``, ``partition``, ``start``. A simulated feed:
    its ``simulator``.
    """
    mark = {"id": config.id} if config.id else {}
    if beginning is not None:
        place = {"topic": beginning.topic_id, "partition": config.partition}
        return [{**place, "start": beginning.offset, **mark}]
    if isinstance(config, SimulatorConfig):
        return [{"simulator": identity(config, shards).digest, **mark}]
    found: list[dict[str, Any]] = []
    for path in config.files[0]:
        first = _head(path)
        if not first:
            continue
        known: dict[str, Any] = {"footer": _digest(first)}
        if not _is_parquet(path):
            known = {"head": _digest(first), "bytes": len(first)}
        found.append({"path": str(path), **known, **mark})
    return found


def prefix(part: Mapping[str, Any], size: int) -> str | None:
    """Digest of the first ``size`` bytes of a part of a file; None if it is no longer there."""
    try:
        path = Path(part["path"])
        about = path.stat()
        return _digest(_kept_head(path, about.st_size, about.st_mtime_ns)[:size])
    except (SourceError, OSError):
        return None


@lru_cache(maxsize=256)
def _kept_head(path: Path, size: int, mtime_ns: int) -> bytes:
    """A head for many questions: those about each file that a store has; again where the file is
    another."""
    return _head(path)


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_PARQUET)) == _PARQUET


def _head(path: Path) -> bytes:
    """The bytes by which a file is known."""
    from marketflow.sources.files.bytes import head

    try:
        return _footer(path) if _is_parquet(path) else head(path, HEAD_BYTES)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error


def _footer(path: Path) -> bytes:
    """The footer of a Parquet file (its metadata, behind which stand its length and the magic);
    the whole end where it is damaged."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        end = file.read(8)
        if len(end) < 8 or not end.endswith(_PARQUET):
            file.seek(max(0, size - HEAD_BYTES))
            return file.read()
        (length,) = struct.unpack("<I", end[:4])
        file.seek(max(0, size - 8 - length))
        return file.read(length)
