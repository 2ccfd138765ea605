"""What the typed configs of all schemes have in common.

A config is made of a URL once, at the rim of a process, and passed on. It is frozen, and holds no
text that must be parsed again. A validator of a parameter raises ValueError that completes
"NAME=VALUE is not ...", or a SourceError that says everything.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from marketflow.schemas.names import name_fault
from marketflow.schemas.tables import TABLES
from marketflow.sources.errors import SourceError
from marketflow.sources.url import Url, check_names

#: (folder, table) -> the committed files of the table if the folder is a lake, else None.
LakeFiles = Callable[[Path, str], Sequence[Path] | None]
#: Tables that can be an input: the others are made by the flow itself.
INPUT_TABLES: Final = tuple(
    name for name in TABLES if name not in ("depth", "bars", "dead_letters", "quality_events")
)


@dataclass(frozen=True, slots=True)
class Param:
    """Marks a field as a parameter of the URL. ``example`` completes an error text."""

    example: str


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("a text that is not empty")
    return text


Text = Annotated[str, BeforeValidator(_not_empty)]


class SourceConfig(BaseModel):
    """A checked source. ``text``: its URL without secrets.

    ``partition``: of a topic, of which each partition is a source of its own; None: the whole.
    ``id``: tells a feed from others that begin alike (sources.identity).
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True
    )

    scheme: str
    text: str
    partition: int | None = None
    id: Annotated[Text, Param("id=second")] = ""

    @classmethod
    def parse(cls, url: Url, lake_files: LakeFiles | None = None) -> Self:
        """The config of a URL; SourceError names what to change. ``lake_files`` lists the
        committed files of a lake; without it a folder is no source."""
        return cls.of(url)

    @classmethod
    def params(cls) -> dict[str, str]:
        """Parameters that a URL may have, each with an example; what all have comes last."""
        found = {
            field.alias or name: mark.example
            for name, field in cls.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, Param)
        }
        return {**{name: found[name] for name in found if name != "id"}, "id": found["id"]}

    @classmethod
    def of(cls, url: Url, handled: Collection[str] = (), **more: Any) -> Self:
        """The config with the parameters of a URL; SourceError names what to change.

        ``handled``: parameters that the caller has read.
        ``more``: values of other fields.
        """
        known = cls.params()
        check_names(url.scheme, url.params, [*known, *handled])
        given = {key: value for key, value in url.params.items() if key in known}
        try:
            return cls.model_validate({**given, "scheme": url.scheme, "text": url.text, **more})
        except ValidationError as error:
            raise _explained(error, url, known) from None

    @property
    def name(self) -> str:
        """Short name of the feed, such as ``itch:S120130-v50.txt`` or ``kafka:raw.binance``."""
        return self.scheme

    @property
    def files(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Files that are read, and those of LOBSTER's books."""
        return (), ()


def _explained(error: ValidationError, url: Url, known: dict[str, str]) -> SourceError:
    """The first fault in the order of the URL; missing parameters come last."""
    order = list(url.params)
    faults = {str(fault["loc"][0]): fault for fault in reversed(error.errors(include_url=False))}
    faults = dict(reversed(faults.items()))
    key = min(faults, key=lambda name: order.index(name) if name in order else len(order))
    fault = faults[key]
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, SourceError):
        return cause
    if fault["type"] == "missing":
        return SourceError(f"{url.scheme}: needs {key}: add {known[key]} (form: {url.form})")
    wanted = cause or fault["msg"]
    return SourceError(f"{url.scheme}: {key}={url.params[key]} is not {wanted}")


def whole(least: int, most: int) -> BeforeValidator:
    """A whole number in digits."""

    def check(value: object) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"a whole number of {least:,} to {most:,}")

    return BeforeValidator(check)


def one_of(*words: str) -> BeforeValidator:
    """One of some words."""

    def check(text: str) -> str:
        if text in words:
            return text
        raise ValueError("one of " + ", ".join(words))

    return BeforeValidator(check)


def _day(text: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        day = datetime.date.min
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text) or not 1970 <= day.year < 2262:
        raise ValueError("a day as YYYY-MM-DD, such as 2019-12-30")
    return day


def _stored(what: str) -> BeforeValidator:
    """A name that every store can hold."""

    def check(text: str) -> str:
        fault = name_fault(what, text)
        if fault is not None:
            raise ValueError(f"a {what} that can be stored: {fault}")
        return text

    return BeforeValidator(check)


Day = Annotated[datetime.date, BeforeValidator(_day), Param("date=2019-12-30")]
DayOrNone = Annotated[datetime.date | None, BeforeValidator(_day), Param("date=2019-12-30")]
Venue = Annotated[str, _stored("venue"), Param("venue=KRAKEN")]
Symbol = Annotated[str, _stored("symbol"), Param("symbol=BTC/USD")]
