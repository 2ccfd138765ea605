"""The parts of a source URL: ``scheme:PLACE[?name=value&...]``. Pure text.

The query starts at the first ``?`` that is followed by ``name=``, so a glob may hold a ``?`` too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote

from marketflow.sources.errors import SourceError

_SECRET: Final = re.compile(r"(?i)(password|passwd|secret|token|key)")
_QUERY: Final = re.compile(r"\?(?=[A-Za-z_]+=).*\Z|\?\Z")


class Url(NamedTuple):
    """A source URL in parts.

    ``params``: decoded values of the query.
    ``text``: the URL with secrets blotted out, fit for print and for comparing runs.
    ``form``: how such a URL is written, for error texts.
    """

    scheme: str
    place: str
    params: dict[str, str]
    text: str
    form: str


def split(text: str, form: str) -> Url:
    """Split a URL; SourceError for a parameter without a value or given twice."""
    scheme, _, rest = text.partition(":")
    match = _QUERY.search(rest)
    query = match.group()[1:] if match else ""
    place = rest[: match.start()] if match else rest
    return Url(scheme, place, read_query(scheme, query), _redacted(text, query), form)


def read_query(prefix: str, query: str) -> dict[str, str]:
    """Decoded values by name; ``prefix`` starts the text of a SourceError."""
    params: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        key, equals, value = item.partition("=")
        if not equals:
            raise SourceError(f"{prefix}: parameter {item!r} has no value; write {item}=VALUE")
        if key in params:
            raise SourceError(f"{prefix}: parameter {key!r} is given twice; give it once")
        params[key] = unquote(value)
    return params


def check_names(prefix: str, names: Iterable[str], known: Iterable[str]) -> None:
    """SourceError for a parameter that is not known; names the nearest one that is."""
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            listed = ", ".join(known) or "none"
            raise SourceError(f"{prefix}: no parameter {name!r}; known: {listed}{hint}")


def _redacted(text: str, query: str) -> str:
    if not query:
        return text
    shown = "&".join(
        f"{item.partition('=')[0]}=***" if _SECRET.search(item.partition("=")[0]) else item
        for item in query.split("&")
    )
    return text[: -len(query)] + shown
