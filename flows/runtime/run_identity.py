"""What makes two starts the same run: kept in its recovery folder, compared when it goes on.

The same flow over the same bytes, with every setting that decides rows, into the same stores.
Anything else would put two outputs into one store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from marketflow.flows.errors import UsageError
from marketflow.flows.settings import Settings
from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW
from marketflow.sinks.registry import parse_sink
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.files import marks

#: Of the note in a recovery folder.
FORMAT: Final = 3


def of_run(
    flow: str, sources: Sequence[str], sinks: Sequence[str], settings: Settings, **more: Any
) -> dict[str, Any]:
    """The identity of a run, as plain values without secrets; ``more`` is compared like the rest.
    ``sources`` are URLs without secrets."""
    return {
        "flow": flow,
        "sources": list(sources),
        "sinks": [parse_sink(text).place for text in sinks],
        "settings": settings.deciding_rows(),
        **more,
    }


def marks_of(specs: Sequence[SourceConfig]) -> list[list[list[marks.Mark]]]:
    """The files of every source. UsageError if one cannot be read."""
    try:
        return [marks.marks(spec) for spec in specs]
    except SourceError as error:
        raise UsageError(str(error)) from None


def check(
    folder: Path, found: dict[str, Any], wanted: dict[str, Any], anew: str = START_ANEW
) -> None:
    """UsageError with the remedy unless the run of ``folder``, which noted ``found``, is the one
    that is wanted. ``anew``: how to begin another one."""
    if found["format"] != FORMAT:
        raise UsageError(
            f"{folder} was written in recovery format {found['format']}, this release reads "
            f"{FORMAT}: {OTHER_RELEASE}"
        )
    for name, value in wanted.items():
        before = found.get(name)
        if before == value:
            continue
        if name == "settings":
            raise _other_settings(folder, before or {}, value, anew)
        raise UsageError(
            f"{folder} belongs to a run with {name} = {_text(before)}, this one has "
            f"{_text(value)}: resume with the same {name}, or {anew}"
        )


def check_files(found: dict[str, Any], specs: Sequence[SourceConfig]) -> None:
    """UsageError with the remedy unless the files of the sources are those that were noted."""
    try:
        for spec, known in zip(specs, found.get("files", []), strict=False):
            for mark_list, paths in zip(known, spec.files, strict=True):
                marks.check(spec.text, [marks.Mark(*mark) for mark in mark_list], paths)
    except SourceError as error:
        raise UsageError(str(error)) from None


def _other_settings(
    folder: Path, before: dict[str, Any], now: dict[str, Any], anew: str
) -> UsageError:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    old, new = (
        ", ".join(f"{name} = {_text(values.get(name))}" for name in names)
        for values in (before, now)
    )
    variables = ", ".join(f"MARKETFLOW_{name.upper()}" for name in names)
    return UsageError(
        f"{folder} belongs to a run with {old}, this one has {new}: resume with {old} (by flag, "
        f"{variables} or marketflow.toml), or {anew}"
    )


def _text(value: object) -> str:
    """As it is written by people."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
