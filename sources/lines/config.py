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

import difflib
import os
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from marketflow.sources.errors import SourceError

SCHEMES: Final = ("mold", "soup")
#: Settings of the feed: the same for all of its lines.
_SHARED: Final = ("session", "first", "wait_ms", "recover_ms", "lag_ms", "down_ms")
_OWN: Final = {
    "mold": ("line", "interface", "rerequest", "buffer_mb"),
    "soup": ("line", "username", "password", "sequence"),
}
_PLACE: Final = re.compile(r"([A-Za-z0-9._-]+):(\d{1,5})")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,30}")
_PASSWORD: Final = "MARKETFLOW_SOUP_PASSWORD"
_FORMS: Final = {
    "mold": "mold:HOST:PORT?interface=eth0&rerequest=HOST:PORT",
    "soup": "soup:HOST:PORT?username=…&session=…",
}


@dataclass(frozen=True, slots=True)
class LineSpec:
    """A checked line. ``text``: the URL without secrets."""

    scheme: str
    host: str
    port: int
    text: str
    name: str
    params: dict[str, str] = field(repr=False)

    @property
    def rerequest(self) -> tuple[str, int] | None:
        """Where missing messages are asked for."""
        place = self.params.get("rerequest")
        return None if place is None else _place(self.scheme, place, "rerequest=")

    def number(self, name: str, default: int) -> int:
        """A parameter that is a whole number."""
        return int(self.params.get(name, default))


@dataclass(frozen=True, slots=True)
class LinesSpec:
    """The lines of a recording, and what they share; times in ms."""

    lines: tuple[LineSpec, ...]
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


def parse_lines(texts: Sequence[str]) -> LinesSpec:
    """Check the lines of one feed; SourceError names what to change."""
    lines = [_parse(text, string.ascii_uppercase[k % 26]) for k, text in enumerate(texts)]
    names = [line.name for line in lines]
    for name in names:
        if names.count(name) > 1:
            raise SourceError(f"two lines are called {name}: give each its own line=NAME")
    shared: dict[str, str] = {}
    for line in lines:
        for key in _SHARED:
            value = line.params.get(key)
            if value is not None and shared.setdefault(key, value) != value:
                raise SourceError(f"{key}={value} and {key}={shared[key]}: lines of one feed")
    asks = any("rerequest" in line.params for line in lines)
    return LinesSpec(
        tuple(lines),
        shared.get("session", ""),
        int(shared.get("first", 0)),
        int(shared.get("wait_ms", 50)),
        int(shared.get("recover_ms", 2000)) if asks else 0,
        int(shared.get("lag_ms", 1000)),
        int(shared.get("down_ms", 3000)),
    )


def _parse(text: str, name: str) -> LineSpec:
    scheme, _, rest = text.partition(":")
    if scheme not in SCHEMES:
        raise SourceError(f"{text} is no line: write {' or '.join(_FORMS.values())}")
    place, _, query = rest.partition("?")
    host, port = _place(scheme, place, "")
    params = _params(scheme, query)
    line = params.get("line", name)
    if not _NAME.fullmatch(line):
        raise SourceError(f"{scheme}: line={line}: use letters, digits, - and _")
    if scheme == "soup" and "password" not in params and os.environ.get(_PASSWORD):
        params["password"] = os.environ[_PASSWORD]
    spec = LineSpec(scheme, host, port, _redacted(text), line, params)
    _ = spec.rerequest
    return spec


def _params(scheme: str, query: str) -> dict[str, str]:
    params: dict[str, str] = {}
    known = (*_OWN[scheme], *_SHARED)
    for item in filter(None, query.split("&")):
        key, equals, value = item.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SourceError(f"{scheme}: no parameter {key!r}; known: {', '.join(known)}{hint}")
        if not equals or key in params:
            raise SourceError(f"{scheme}: give {key}=VALUE once")
        params[key] = unquote(value)
        numeric = key.endswith(("_ms", "_mb")) or key in ("first", "sequence")
        if numeric and not re.fullmatch(r"\d{1,15}", params[key]):
            raise SourceError(f"{scheme}: {key}={value} is no whole number")
        if key in ("lag_ms", "down_ms", "buffer_mb") and int(params[key]) == 0:
            raise SourceError(f"{scheme}: {key}=0: give at least 1")
    for key, most in (("username", 6), ("password", 10), ("session", 10)):
        value = params.get(key, "")
        if len(value) > most or not value.isascii():
            raise SourceError(f"{scheme}: {key} is at most {most} ASCII characters")
    return params


def _place(scheme: str, text: str, what: str) -> tuple[str, int]:
    match = _PLACE.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise SourceError(f"{scheme}: {what}{text} is no HOST:PORT; write {_FORMS[scheme]}")
    return match[1], int(match[2])


def _redacted(text: str) -> str:
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", text)
