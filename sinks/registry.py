"""Sinks by URL: one entry per scheme. A new scheme is a room with a config and a line here.

No secret of a URL is ever printed or written to a recovery folder. A scheme's modules are loaded
when a URL of it is parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

from marketflow.sinks.errors import SinkError, did_you_mean
from marketflow.sinks.redaction import redacted

if TYPE_CHECKING:
    from marketflow.sinks.config import SinkConfig


class Scheme(NamedTuple):
    """One kind of sink.

    ``form``: how its URL is written.
    ``module``, ``config``: module below sinks, and in it the class that says what the scheme takes
    and what it can do (sinks.config.SinkConfig).
    """

    form: str
    module: str
    config: str

    def parse(self, text: str) -> SinkConfig:
        """The config of a URL. SinkError."""
        module = import_module(f"marketflow.sinks.{self.module}")
        parse: Callable[[str], SinkConfig] = getattr(module, self.config).parse
        return parse(text)


SCHEMES: Final = {
    "parquet": Scheme("parquet:DIR", "lake.config", "LakeConfig"),
    "timescale": Scheme(
        "timescale:postgresql://user@host:5432/database", "timescale.config", "TimescaleConfig"
    ),
    "kafka": Scheme("kafka://HOST:PORT/PREFIX", "kafka.config", "KafkaConfig"),
    "jsonl": Scheme("jsonl:PATH, jsonl:-", "plain", "JsonlConfig"),
    "null": Scheme("null:", "plain", "NullConfig"),
}


def parse_sink(text: str) -> SinkConfig:
    """The config of a sink URL; touches nothing. Raises SinkError naming what to change."""
    name, colon, _ = text.partition(":")
    if not colon or name not in SCHEMES:
        known = ", ".join(scheme.form for scheme in SCHEMES.values())
        raise SinkError(
            f"sink {redacted(text)!r}: unknown kind{did_you_mean(name, SCHEMES)}; known sinks: "
            f"{known}"
        )
    return SCHEMES[name].parse(text)
