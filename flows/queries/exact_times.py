"""A database's times to the nanosecond: its query also asks for what its own type leaves out.

The server's times end at microseconds; each view has ``<time>_epoch_ns`` beside its time. Where a
SELECT shows a time as it is (``ts_event``, ``t.ts_event AS moment``) or its extreme or neighbour
(``max(ts_event)``, ``lag(ts_event) OVER (…)``), the same of ``<time>_epoch_ns`` is asked for in
columns at the end, which are not shown. Other times (calculated, grouped by, of a subquery that
does not pass the nanoseconds on) stay microseconds and are shown as such.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from marketflow.schemas.fields import Kind
from marketflow.schemas.tables import TABLES

_TIMES: Final = frozenset(
    field.name for table in TABLES.values() for field in table.fields if field.kind is Kind.TIME
)
_SAME: Final = frozenset({"min", "max", "lag", "lead", "first_value", "last_value", "any_value"})
_TOKEN: Final = re.compile(
    r"""(?P<gap>\s+|--[^\n]*)|(?P<comment>/\*)
    |(?P<text>\bE'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag))
    |(?P<quoted>"(?:[^"]|"")*")|(?P<word>[^\W\d][\w$]*)|(?P<number>\.?\d[\w.]*)|(?P<mark>.)""",
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)


class _Token(NamedTuple):
    text: str
    start: int
    end: int
    depth: int
    is_name: bool

    @property
    def word(self) -> str:
        """A name as the server folds it; marks as they are."""
        return self.text[1:-1] if self.text.startswith('"') else self.text.lower()


class ExactQuery(NamedTuple):
    """``query`` has ``len(wanted)`` more columns than the one it was made of, at its end.

    ``wanted`` are the columns they belong to; negative ones count from the last of the original.
    """

    query: str
    wanted: tuple[int, ...]


def with_nanoseconds(query: str) -> ExactQuery | None:
    """The query that also asks for nanoseconds, or None where there is nothing to ask for."""
    tokens = _tokens(query)
    items = _select_list(tokens)
    if items is None:
        return None
    stars = [n for n, item in enumerate(items) if item[-1].text == "*" and len(item) in (1, 3)]
    extra, wanted = [], []
    for number, item in enumerate(items):
        text = _exact(query, item)
        if text is None:
            continue
        if not stars or number < stars[0]:
            wanted.append(number)
        elif number > stars[-1]:
            wanted.append(number - len(items))
        else:
            continue  # who knows which column that is
        extra.append(f'{text} AS "_nanoseconds_{number}"')
    if not extra:
        return None
    end = items[-1][-1].end
    return ExactQuery(f"{query[:end]}, {', '.join(extra)}{query[end:]}", tuple(wanted))


def _tokens(query: str) -> list[_Token]:
    found, at, depth = [], 0, 0
    while at < len(query):
        match = _TOKEN.match(query, at)
        assert match is not None
        if match["comment"]:
            at = _comment_end(query, at)
            continue
        at = match.end()
        if match["gap"]:
            continue
        depth -= match[0] in ")]"
        is_name = match["word"] is not None or match["quoted"] is not None
        found.append(_Token(match[0], match.start(), at, depth, is_name))
        depth += match[0] in "(["
    return found


def _comment_end(query: str, at: int) -> int:
    """They nest."""
    depth = 0
    for mark in re.finditer(r"/\*|\*/", query[at:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return at + mark.end()
    return len(query)


def _select_list(tokens: Sequence[_Token]) -> list[list[_Token]] | None:
    """The items of the one SELECT whose rows are the answer; None where it is none of those."""
    outer = [n for n, token in enumerate(tokens) if token.depth == 0]
    words = {tokens[n].word for n in outer if not tokens[n].text.startswith('"')}
    selects = [n for n in outer if tokens[n].text.lower() == "select"]
    if len(selects) != 1 or words & {"union", "intersect", "except"}:
        return None
    at = selects[0] + 1
    if at < len(tokens) and tokens[at].word == "distinct":
        if at + 1 < len(tokens) and tokens[at + 1].word == "on":
            at = next((n for n in outer if n > at and tokens[n].text == ")"), at) + 1
        else:
            at += 1
    items: list[list[_Token]] = [[]]
    for before, token in zip(tokens[at - 1 :], tokens[at:], strict=False):
        if token.depth == 0 and token.text.lower() == "from" and before.word != "distinct":
            return items if all(items) else None
        if token.depth == 0 and token.text == ",":
            items.append([])
        else:
            items[-1].append(token)
    return None


def _exact(query: str, item: list[_Token]) -> str | None:
    """What of ``<time>_epoch_ns`` belongs beside this item."""
    item = _without_alias(item)
    length = _reference(item)
    if length is not None and length == len(item):
        time = item[-1]
    elif len(item) > 3 and item[0].word in _SAME and item[1].text == "(":
        length = _reference(item[2:-1])
        if length is None or item[2 + length].text not in (")", ","):
            return None
        time = item[1 + length]
    else:
        return None
    name = f"{time.word}_epoch_ns"
    return query[item[0].start : time.start] + name + query[time.end : item[-1].end]


def _without_alias(item: list[_Token]) -> list[_Token]:
    if len(item) > 2 and item[-1].is_name:
        if item[-2].word == "as":
            return item[:-2]
        if (item[-2].is_name and item[-2].word != "over") or item[-2].text == ")":
            return item[:-1]
    elif len(item) == 2 and item[0].is_name and item[1].is_name:
        return item[:1]
    return item


def _reference(item: list[_Token]) -> int | None:
    """Tokens of ``[[schema.]table.]<time>`` at the start; None where there is none."""
    at = 0
    while at < len(item) and item[at].is_name:
        if at + 1 == len(item) or item[at + 1].text != ".":
            return at + 1 if item[at].word in _TIMES else None
        at += 2
    return None
