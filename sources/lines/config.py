"""``mold:HOST:PORT`` and ``soup:HOST:PORT``: lines of one sequenced feed, checked before use.

``mold:`` is a MoldUDP64 multicast group or unicast address, ``soup:`` a SoupBinTCP server. All
lines of a recording are the same feed. Of each: ``line`` (its name; default A, B, C ...), of mold
``interface`` (name or address where the group is joined), ``rerequest=HOST:PORT`` (where missing
messages are asked for), ``buffer_mb``; of soup ``username``, ``password`` (or
MARKETFLOW_SOUP_PASSWORD), ``sequence`` (1: from the session's start, 0: from the newest on). Of the
feed, to be given once: ``session``, ``first`` (the sequence the recording begins at), ``wait_ms``,
``recover_ms``, ``lag_ms``, ``down_ms``.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from marketflow.sources.config import Param, SourceConfig, whole
from marketflow.sources.errors import SourceError
from marketflow.sources.url import Url, read_query

SCHEMES: Final = ("mold", "soup")
_PLACE: Final = re.compile(r"([A-Za-z0-9._-]+):(\d{1,5})")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,30}")
_PASSWORD: Final = "MARKETFLOW_SOUP_PASSWORD"
_FORMS: Final = {
    "mold": "mold:HOST:PORT?interface=eth0&rerequest=HOST:PORT",
    "soup": "soup:HOST:PORT?username=…&session=…",
}
_MOST: Final = 10**15 - 1


def _place(text: str) -> tuple[str, int]:
    match = _PLACE.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError("HOST:PORT")
    return match[1], int(match[2])


def _line_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("a name of letters, digits, - and _")
    return text


def _ascii(name: str, most: int) -> BeforeValidator:
    """Text of a fixed field of the protocol. The error does not show it."""

    def check(text: str) -> str:
        if len(text) > most or not text.isascii():
            raise SourceError(f"{name} is at most {most} ASCII characters")
        return text

    return BeforeValidator(check)


class LineConfig(SourceConfig):
    """One line, and what its URL says of the feed, which is the same for all of its lines."""

    host: str
    port: int
    rerequest: tuple[str, int] | None = None
    line: Annotated[str, BeforeValidator(_line_name), Param("line=A")]
    session: Annotated[str | None, _ascii("session", 10), Param("session=20191230A")] = None
    first: Annotated[int | None, whole(0, _MOST), Param("first=1")] = None
    wait_ms: Annotated[int | None, whole(0, _MOST), Param("wait_ms=50")] = None
    recover_ms: Annotated[int | None, whole(0, _MOST), Param("recover_ms=2000")] = None
    lag_ms: Annotated[int | None, whole(1, _MOST), Param("lag_ms=1000")] = None
    down_ms: Annotated[int | None, whole(1, _MOST), Param("down_ms=3000")] = None

    @property
    def name(self) -> str:
        return self.line


class MoldConfig(LineConfig):
    """``mold:`` a MoldUDP64 group or address, and where missing messages are asked for."""

    interface: Annotated[str, Param("interface=eth0")] = ""
    rerequest: Annotated[
        tuple[str, int] | None, BeforeValidator(_place), Param("rerequest=HOST:PORT")
    ] = None
    buffer_mb: Annotated[int, whole(1, _MOST), Param("buffer_mb=16")] = 16


class SoupConfig(LineConfig):
    """``soup:`` a SoupBinTCP server."""

    username: Annotated[str, _ascii("username", 6), Param("username=NAME")] = ""
    password: Annotated[str, _ascii("password", 10), Param("password=WORD")] = Field(
        default="", repr=False
    )
    sequence: Annotated[int, whole(0, _MOST), Param("sequence=1")] = 1


@dataclass(frozen=True, slots=True)
class LinesConfig:
    """The lines of a recording, and what they share; times in ms."""

    lines: tuple[MoldConfig | SoupConfig, ...]
    session: str
    first: int
    wait_ms: int
    recover_ms: int
    lag_ms: int
    down_ms: int

    @property
    def name(self) -> str:
        return "+".join(line.name for line in self.lines)


def is_line(text: str) -> bool:
    """Is this the URL of a line?"""
    return text.partition(":")[0] in SCHEMES


def parse_lines(texts: Sequence[str]) -> LinesConfig:
    """The config of the lines of one feed; SourceError names what to change."""
    lines = [_parse(text, string.ascii_uppercase[k % 26]) for k, text in enumerate(texts)]
    names = [line.name for line in lines]
    for name in names:
        if names.count(name) > 1:
            raise SourceError(f"two lines are called {name}: give each its own line=NAME")

    def shared(key: str, default: Any) -> Any:
        values = [getattr(line, key) for line in lines if getattr(line, key) is not None]
        if len(set(values)) > 1:
            said = " and ".join(f"{key}={value}" for value in dict.fromkeys(values))
            raise SourceError(f"{said}: lines of one feed")
        return values[0] if values else default

    asks = any(line.rerequest for line in lines)
    return LinesConfig(
        tuple(lines),
        shared("session", ""),
        shared("first", 0),
        shared("wait_ms", 50),
        shared("recover_ms", 2000) if asks else 0,
        shared("lag_ms", 1000),
        shared("down_ms", 3000),
    )


def _parse(text: str, name: str) -> MoldConfig | SoupConfig:
    scheme, _, rest = text.partition(":")
    if scheme not in SCHEMES:
        raise SourceError(f"{text} is no line: write {' or '.join(_FORMS.values())}")
    place, _, query = rest.partition("?")
    try:
        host, port = _place(place)
    except ValueError:
        form = _FORMS[scheme]
        raise SourceError(f"{scheme}: {place} is no HOST:PORT; write {form}") from None
    params = {"line": name, **read_query(scheme, query)}
    if scheme == "soup" and "password" not in params and os.environ.get(_PASSWORD):
        params["password"] = os.environ[_PASSWORD]
    url = Url(scheme, place, params, _redacted(text), _FORMS[scheme])
    if scheme == "mold":
        return MoldConfig.of(url, host=host, port=port)
    return SoupConfig.of(url, host=host, port=port)


def _redacted(text: str) -> str:
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", text)
