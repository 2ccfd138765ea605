"""Source URLs: ``scheme:PATH[,PATH...][?name=value&...]``, checked before anything runs.

Several paths, separated by commas, and globs (their files sorted by name) are one continuous feed
in that order; a comma in a file name can be written as the glob ``?``. The query starts at the
first ``?`` that is followed by ``name=``. An empty file is an empty feed, with a warning.
"""

from __future__ import annotations

import difflib
import glob
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from marketflow.schemas.kafka_address import SECURITY_PARAMS
from marketflow.schemas.kafka_address import redacted as redacted_url
from marketflow.schemas.names import name_fault
from marketflow.schemas.tables import TABLES
from marketflow.sources.errors import SourceError
from marketflow.sources.files import recorded_frames as frames
from marketflow.sources.files import sniff
from marketflow.sources.files.tables import renames
from marketflow.sources.kafka.config import parse_feed
from marketflow.sources.lines.config import is_line

__all__ = ["SourceError", "SourceSpec", "parse_source"]

_SECRET: Final = re.compile(r"(?i)(password|passwd|secret|token|key)")
_QUERY: Final = re.compile(r"\?(?=[A-Za-z_]+=).*\Z|\?\Z")


def _date(text: str) -> str | None:
    try:
        good = re.fullmatch(r"\d{4}-\d\d-\d\d", text) and date.fromisoformat(text)
    except ValueError:
        good = None
    return None if good else "a day as YYYY-MM-DD, such as 2019-12-30"


def _text(text: str) -> str | None:
    return None if text.strip() else "a text that is not empty"


def _name(what: str) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        fault = name_fault(what, text)
        return None if fault is None else f"a {what} that can be stored: {fault}"

    return check


def _one_of(*words: str) -> Callable[[str], str | None]:
    return lambda text: None if text in words else "one of " + ", ".join(words)


def _columns(text: str) -> str | None:
    try:
        renames(text)
    except ValueError as error:
        return str(error)
    return None


class _Param(NamedTuple):
    """``check`` returns None or what the value must be; ``example`` completes an error text."""

    check: Callable[[str], str | None]
    example: str
    required: bool = True


class _Scheme(NamedTuple):
    """``params`` None: the scheme's own reader checks them."""

    form: str
    params: dict[str, _Param] | None
    takes_paths: bool = True


_TABLE_NAMES: Final = tuple(
    name for name in TABLES if name not in ("depth", "bars", "dead_letters", "quality_events")
)
_TABLE: Final = {
    "table": _Param(_one_of(*_TABLE_NAMES), "table=trades"),
    "venue": _Param(_name("venue"), "venue=KRAKEN", required=False),
    "symbol": _Param(_name("symbol"), "symbol=BTC/USD", required=False),
    "columns": _Param(_columns, "columns=ts_event:time", required=False),
    "time_unit": _Param(_one_of("s", "ms", "us", "ns"), "time_unit=ms", required=False),
}
#: Rows of a table, or the raw frames of a venue that a recorder kept.
_FRAMES: Final = {
    **_TABLE,
    "table": _Param(_one_of(*_TABLE_NAMES, frames.TABLE), "table=trades"),
    "date": _Param(_date, "date=2019-12-30", required=False),
}
#: Their values are checked by sources.kafka.config.
_KAFKA: Final = {
    name: _Param(_text, example, required=False)
    for name, example in (
        ("from", "from=earliest"),
        ("to", "to=latest"),
        ("venue", "venue=binance"),
        ("table", "table=trades"),
        ("group", "group=marketflow"),
        ("letters", "letters=kafka:raw.kraken"),
        ("registry", "registry=URL"),
        ("date", "date=2019-12-30"),
        ("patience_s", "patience_s=300"),
        *((name, f"{name}=VALUE") for name in SECURITY_PARAMS),
    )
}
_SCHEMES: Final[dict[str, _Scheme]] = {
    "itch": _Scheme("itch:PATH?date=YYYY-MM-DD", {"date": _Param(_date, "date=2019-12-30")}),
    "lobster": _Scheme(
        "lobster:MESSAGE_CSV?book=BOOK_CSV&symbol=S&date=YYYY-MM-DD",
        {
            "symbol": _Param(_name("symbol"), "symbol=AMZN"),
            "date": _Param(_date, "date=2012-06-21"),
            "book": _Param(_text, "book=ORDERBOOK_CSV", required=False),
        },
    ),
    "dbn": _Scheme("dbn:PATH", {}),
    "binance": _Scheme(
        "binance:PATH?market=spot|us|usdm|coinm",
        {"market": _Param(_one_of("spot", "us", "usdm", "coinm"), "market=spot")},
    ),
    "capture": _Scheme("capture:PATH", {}),
    "csv": _Scheme("csv:PATH?table=TABLE", _TABLE),
    "parquet": _Scheme("parquet:PATH?table=TABLE", _FRAMES),
    "sim": _Scheme("sim:?events=N&seed=N", None, takes_paths=False),
    "kafka": _Scheme("kafka://HOST:PORT/TOPIC?from=…&to=…", _KAFKA, takes_paths=False),
}


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A checked source.

    ``params`` are the query's values as text, ``book_paths`` the files of LOBSTER's ``book``;
    ``text`` is the URL as given with secrets blotted out, fit for print and for comparing a
    resumed run with the run before. A topic is read by partition: :meth:`of_partition` is the
    source of one (``late``: it may be younger than the run, and is read from its start);
    ``place`` is where the topic is. ``lake``: the folder that ``paths`` are a table of.
    """

    scheme: str
    paths: tuple[Path, ...]
    text: str
    params: dict[str, str] = field(default_factory=dict)
    book_paths: tuple[Path, ...] = ()
    place: str = field(default="", repr=False)
    partition: int | None = None
    late: bool = False
    lake: Path | None = None

    def of_partition(self, partition: int, late: bool = False) -> SourceSpec:
        """One partition of a topic as a source of its own."""
        text = f"{self.text} partition {partition}"
        return replace(self, text=text, partition=partition, late=late)

    @property
    def name(self) -> str:
        """Short name of the feed, such as ``itch:S120130-v50.txt`` or ``kafka:raw.binance``."""
        if self.place:
            return f"{self.scheme}:{self.place.rpartition('/')[2]}"
        if self.lake is not None:
            return f"{self.scheme}:{self.lake.name}"
        if not self.paths:
            return self.scheme
        more = f"+{len(self.paths) - 1}" if len(self.paths) > 1 else ""
        return f"{self.scheme}:{self.paths[0].name}{more}"


#: (folder, table) -> the committed files of the table if the folder is a lake, else None.
LakeFiles = Callable[[Path, str], Sequence[Path] | None]


def parse_source(text: str, lake_files: LakeFiles | None = None) -> SourceSpec:
    """Parse and check a source URL; SourceError names what to change. ``lake_files`` tells which
    files of a lake are committed; without it a folder is no source."""
    name, colon, rest = text.partition(":")
    if name == "ws" and colon:
        raise _not_recorded(rest)
    if is_line(text):
        raise SourceError(
            f"{name}: is a live feed, and a run can only go back to what was recorded: record it "
            f"first (marketflow record --source '{name}:…' --sink parquet:DIR), then run from the "
            "record (--source 'parquet:DIR?table=frames&venue=xnas&date=YYYY-MM-DD')"
        )
    scheme = _SCHEMES.get(name)
    if not colon or scheme is None:
        raise _unknown_scheme(text, name)
    match = _QUERY.search(rest)
    query = match.group()[1:] if match else ""
    place = rest[: match.start()] if match else rest
    params = _params(name, scheme, query)
    redacted = _redact(text, query)
    if name == "kafka":
        parse_feed(place, params)
        return SourceSpec(name, (), redacted_url(redacted), params, place=place)
    if name == "parquet" and params["table"] == frames.TABLE:
        return SourceSpec(name, _recorded(place, params), redacted, params)
    if name == "parquet" and "date" in params:
        raise SourceError("parquet: date= is the day of raw ITCH frames: leave it out of tables")
    folder = Path(place).expanduser()
    if name == "parquet" and place and folder.is_dir() and lake_files is not None:
        found = lake_files(folder, params["table"])
        if found is not None:
            return SourceSpec(name, _of_lake(folder, found, params), redacted, params, lake=folder)
    if not scheme.takes_paths:
        if place:
            raise SourceError(f"{redacted}: {name}: takes no path; write {scheme.form}")
        return SourceSpec(name, (), redacted, params)
    spec = SourceSpec(
        name,
        _paths(name, place, scheme.form),
        redacted,
        params,
        _paths(name, params["book"], scheme.form) if "book" in params else (),
    )
    if spec.book_paths and len(spec.book_paths) != len(spec.paths):
        raise SourceError(
            f"lobster: {len(spec.paths)} message files but {len(spec.book_paths)} book files; give "
            "one book file for each message file, in the same order"
        )
    for path in spec.paths + spec.book_paths:
        if path.stat().st_size == 0:
            warnings.warn(f"{path} is empty: it adds nothing to its feed", stacklevel=2)
    sniff.check(spec.scheme, spec.paths, spec.params, spec.book_paths)
    return spec


def _of_lake(folder: Path, files: Sequence[Path], params: dict[str, str]) -> tuple[Path, ...]:
    for name in ("columns", "time_unit"):
        if name in params:
            raise SourceError(f"parquet: {folder} is a lake and known: leave out {name}=")
    venues = {_venue_of(path) for path in files}
    if not files:
        raise SourceError(f"the lake {folder} has no rows of {params['table']}: name another table")
    chosen = [p for p in files if params.get("venue") in (None, _venue_of(p))]
    if not chosen:
        raise SourceError(
            f"the lake {folder} has no {params['table']} of venue={params['venue']}; it has "
            f"{', '.join(sorted(venues))}"
        )
    return tuple(chosen)


def _venue_of(path: Path) -> str:
    return unquote(path.parent.name.partition("=")[2])


def _not_recorded(rest: str) -> SourceError:
    venue = rest.partition("?")[0].partition("_")[0] or "binance"
    return SourceError(
        "ws: is a live feed, and a run can only go back to what was recorded: record it first "
        f"(marketflow record --source 'ws:{rest}' --sink kafka://HOST:PORT/raw), then run from "
        f"the record (--source kafka://HOST:PORT/raw.{venue})"
    )


def _recorded(place: str, params: dict[str, str]) -> tuple[Path, ...]:
    """Files of a recorder: its folder's, or those that are named."""
    if "venue" not in params:
        raise SourceError("parquet: raw frames need the venue that sent them: add venue=binance")
    if "symbol" in params:
        raise SourceError("parquet: raw frames are of all symbols: leave out symbol=")
    folder = Path(place).expanduser()
    if place and folder.is_dir():
        return frames.files_of(folder, params["venue"].upper())
    paths = _paths("parquet", place, "parquet:DIR?table=frames&venue=VENUE")
    sniff.check("frames", paths, params, ())
    return paths


def _unknown_scheme(text: str, name: str) -> SourceError:
    known = ", ".join(f"{scheme}:" for scheme in _SCHEMES)
    near = difflib.get_close_matches(name.lower(), _SCHEMES, n=1)
    if Path(text).expanduser().exists():
        hint = f"; say what the file is, such as {near[0] if near else 'itch'}:{text}"
    elif near:
        hint = f"; did you mean {near[0]}: ?"
    else:
        hint = ""
    return SourceError(f"no source {name!r}: a source is one of {known}{hint}")


def _params(name: str, scheme: _Scheme, query: str) -> dict[str, str]:
    params: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        key, equals, value = item.partition("=")
        if not equals:
            raise SourceError(f"{name}: parameter {item!r} has no value; write {item}=VALUE")
        if key in params:
            raise SourceError(f"{name}: parameter {key!r} is given twice; give it once")
        params[key] = unquote(value)
    if scheme.params is None:
        return params
    for key, value in params.items():
        if key not in scheme.params:
            known = ", ".join(scheme.params) or "none"
            near = difflib.get_close_matches(key, scheme.params, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SourceError(f"{name}: no parameter {key!r}; known: {known}{hint}")
        wanted = scheme.params[key].check(value)
        if wanted is not None:
            raise SourceError(f"{name}: {key}={value} is not {wanted}")
    for key, param in scheme.params.items():
        if param.required and key not in params:
            raise SourceError(f"{name}: needs {key}: add {param.example} (form: {scheme.form})")
    return params


def _redact(text: str, query: str) -> str:
    if not query:
        return text
    shown = "&".join(
        f"{item.partition('=')[0]}=***" if _SECRET.search(item.partition("=")[0]) else item
        for item in query.split("&")
    )
    return text[: -len(query)] + shown


def _paths(name: str, text: str, form: str) -> tuple[Path, ...]:
    found: list[Path] = []
    for item in text.split(","):
        if not item:
            raise SourceError(f"{name}: a path is missing in {name}:{text}; the form is {form}")
        path = Path(item).expanduser()
        if path.is_dir():
            raise SourceError(f"{path} is a directory, no lake; name its files, such as {path}/*")
        if path.exists():
            found.append(path)
        elif glob.has_magic(item):
            matches = sorted(
                p
                for p in map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 if p.is_file()
            )
            if not matches:
                raise SourceError(f"no file matches {item}; check the pattern and the folder")
            found += matches
        else:
            raise SourceError(_missing(path))
    return tuple(found)


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"no file {path}: there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, (p.name for p in path.parent.iterdir()), n=1)
    hint = f"; did you mean {path.parent / near[0]} ?" if near else "; check the path"
    return f"no file {path}{hint}"
