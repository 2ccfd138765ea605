"""Sink URLs as typed, frozen configs: what those of all schemes share.

A URL is parsed once, at the rim, into the config of its scheme (sinks.registry), which lives in
the scheme's room. Configs load pydantic: modules that queries import do not import them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marketflow.sinks.errors import SinkError, did_you_mean
from marketflow.sinks.lineage import Claim, Lineage
from marketflow.sinks.overlap import Arrived, Interval
from marketflow.sinks.redaction import redacted
from marketflow.sinks.writer import Writer

FIRST_WRITER: Final = "w0"
Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Opening(NamedTuple):
    """How a writer is opened.

    ``writer`` names the run and its process (sinks.lineage.writer_of).
    ``recovery``: identity of the recovery folder that the snapshots go to; None without one.
    ``midway``: the rows begin in mid-history, so that the first of a shard may have any number.
    ``aside``: key of the back-fill that the rows are for; they are not put in yet.
    """

    writer: str
    recovery: str | None
    midway: bool
    aside: str | None


class Options(BaseModel):
    """Parameters of a sink: frozen, unknown ones refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SinkConfig(Options, ABC):
    """What a sink URL asks for, and what its scheme can do.

    ``text``: the URL, which may hold a password; show :attr:`shown`.
    """

    #: Rows of an interval can be replaced (back-fill), and those of a feed.
    can_replace: ClassVar[bool] = False
    #: Kernels of its own that a run compiles before it begins (flows).
    kernels: ClassVar[tuple[str, ...]] = ()
    text: str = Field(repr=False)

    @property
    def shown(self) -> str:
        """The URL without its secrets."""
        return redacted(self.text)

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the sink leads and in what form: the same text for the same store, however its
        path is written, whoever writes there and whatever options say how often. No secret."""

    @property
    def is_shared(self) -> bool:
        """Whether several processes can write to it."""
        return True

    def check(self) -> None:
        """Refuse a folder or file that a run may not write to; touches nothing and asks no server.
        Raises SinkError with the remedy."""

    def open(
        self,
        writer: str = FIRST_WRITER,
        recovery: str | None = None,
        midway: bool = False,
        aside: str | None = None,
    ) -> Writer:
        """Make a writer, which opens its store at the first call. See :class:`Opening`."""
        return self._writer(Opening(writer, recovery, midway, aside))

    @abstractmethod
    def _writer(self, opening: Opening) -> Writer: ...

    def lineage(self, stop: threading.Event | None = None) -> Lineage | None:
        """What the store knows of its feeds, for one run; None: it does not know them. ``stop``
        ends the wait for a server that is away."""
        return None

    def replace_feeds(self, key: str, claim: Claim, reached: Mapping[int, int]) -> dict[str, int]:
        """Put the feeds of a complete run, written aside, in place of all that other runs had
        loaded of them, and make them the run's: ``rows_replaced`` and ``rows_written``; again: no
        change. ``reached``: by feed, where it ended. Raises as the writer."""
        return {"rows_replaced": 0, "rows_written": 0}

    def holds(self, interval: Interval, written: Collection[str]) -> str | None:
        """First table with rows of the interval, or with rows that may be of it, where ``written``
        are to be written. None: there is none, or the sink cannot tell. Raises as the writer."""
        return None

    def prepare_back_fill(self, key: str, numbers: Collection[int]) -> None:
        """Make room beside the store for new rows of these feeds. Raises as the writer."""

    def back_fill(self, key: str, arrived: Arrived) -> dict[str, int]:
        """Put in the rows of a complete back-fill: ``rows_replaced`` and ``rows_written``; again:
        no change. ``arrived``: the interval's frames. Raises as the writer."""
        return {"rows_replaced": 0, "rows_written": 0}


def split(text: str) -> tuple[str, dict[str, str]]:
    """Path and parameters of a URL ``scheme:PATH?name=value&…``."""
    path, _, query = text.partition(":")[2].partition("?")
    return path, dict(parse_qsl(query, keep_blank_values=True))


_OptionsT = TypeVar("_OptionsT", bound=Options)


def options_of(
    kind: type[_OptionsT], text: str, given: Mapping[str, str], more: Iterable[str] = ()
) -> _OptionsT:
    """Options of the URL ``text``, whose parameters are ``given``. ``more``: names of parameters
    that the scheme takes beside them. Raises SinkError naming what to change."""
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        raise _refused(kind, text, given, error.errors()[0], more) from None


def _refused(
    kind: type[Options],
    text: str,
    given: Mapping[str, str],
    error: Any,
    more: Iterable[str],
) -> SinkError:
    name, scheme = "".join(map(str, error["loc"][:1])), text.partition(":")[0]
    sink = f"sink {redacted(text)!r}:"
    match error["type"]:
        case "extra_forbidden":
            known = [*kind.model_fields, *more]
            return SinkError(
                f"{sink} unknown option {name!r}{did_you_mean(name, known)}; {scheme}: takes "
                f"{', '.join(known) or 'none'}"
            )
        case "literal_error":
            words = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
            return SinkError(f"{sink} {name}={given[name]} is none of {words}")
        case "bool_parsing":
            return SinkError(f"{sink} {name}={given[name]!r} is neither 1 nor 0")
        case "value_error":
            return SinkError(f"{sink} {error['ctx']['error']}")
        case _:
            return SinkError(f"{sink} {name}={given[name]!r} is no number above 0")


def no_destination(text: str, form: str, instead: str = "") -> SinkError:
    """The URL has no path."""
    return SinkError(f"sink {redacted(text)!r} names no destination; write {form}{instead}")
