"""Claims of feeds in a store: which run holds which feed, and who may load one.

A start *claims* its feeds in every store before the first row. A claim says what was read as
*parts*: a file by its head, an interval of a partition by its offsets, a simulated feed by its
settings. A start that overlaps a part which another run has claimed is refused, whatever the two
feeds are called: rows are in a store once. A claim of a run that is gone and left no row is void.

A run is *superseded* when all that it held of a feed was replaced, or when its void claim was
taken over: it writes no more, and its recovery folder is refused.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from marketflow.schemas.recovery import START_ANEW
from marketflow.sinks.errors import SinkError

#: Plain values by name, as they are stored (sources.identity makes them).
Part = Mapping[str, Any]
RUNNING: Final = "running"
COMPLETE: Final = "complete"
CUT_OFF: Final = "cut off"
_RUN_DIGITS: Final = 12
#: A shorter beginning of a file does not tell it from others.
_TELLING_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class FeedClaim:
    """A feed that a start will read. ``digest``: of ``identity``, the canonical text of what the
    feed is; ``source``: its URL without secrets; ``venue``: of its rows, where one is known;
    ``position``: where it begins to be read; ``prefix``: digest of the first so many bytes of a
    part, for parts of files."""

    number: int
    digest: str
    identity: str
    source: str
    venue: str | None
    parts: tuple[Part, ...]
    position: int = 0
    prefix: Callable[[Part, int], str | None] = field(default=lambda part, size: None, repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """The feeds of a run. ``run``: its identity for life, that of its recovery folder where it has
    one; ``settings``: those that decide rows; ``release``: of the program."""

    run: str
    flow: str
    release: str
    settings: Mapping[str, Any]
    feeds: tuple[FeedClaim, ...]

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(feed.number for feed in self.feeds)


class Entry(NamedTuple):
    """A feed in a store, as a run claimed it."""

    number: int
    run: str
    digest: str
    source: str
    parts: tuple[Part, ...]
    settings: Mapping[str, Any]


def new_run() -> str:
    """The identity of a run that begins."""
    return uuid.uuid4().hex


def writers_of(run: str) -> str:
    """What the names of a run's writers begin with, in every store."""
    return f"r{run[:_RUN_DIGITS]}"


def writer_of(run: str, process: int, layout: int = 0) -> str:
    """The writer of one process of a run. ``layout``: counts how often their number changed."""
    return f"{writers_of(run)}{f'l{layout}' if layout else ''}p{process}"


def plain_run(claim: Claim) -> dict[str, Any]:
    """What is kept of a run that begins, as plain values; times in ns UTC."""
    return {
        "flow": claim.flow,
        "release": claim.release,
        "settings": dict(claim.settings),
        "started": time.time_ns(),
        "ended": None,
        "complete": False,
        "superseded": False,
    }


def plain_claim(run: str, feed: FeedClaim) -> dict[str, Any]:
    """What is kept of a claim, as plain values."""
    return {
        "number": feed.number,
        "run": run,
        "digest": feed.digest,
        "identity": feed.identity,
        "source": feed.source,
        "venue": feed.venue,
        "parts": [dict(part) for part in feed.parts],
        "position": feed.position,
        "reached": None,
    }


def ended(kept: Mapping[str, Any], reached: int) -> dict[str, Any]:
    """A kept claim whose feed was read up to a position, where its part of a topic ends then."""
    parts = [{**p, "end": reached} if "topic" in p else dict(p) for p in kept["parts"]]
    return {**kept, "reached": reached, "parts": parts}


def entry_of(kept: Mapping[str, Any], about: Mapping[str, Any]) -> Entry:
    """The entry of a kept claim and of its run."""
    names = (kept["number"], kept["run"], kept["digest"], kept["source"])
    return Entry(*names, tuple(kept["parts"]), about["settings"])


def place_of(writer: str) -> str:
    """A writer's place within its run, such as ``p0`` or ``l1p2``."""
    return re.sub(rf"^r[0-9a-f]{{{_RUN_DIGITS}}}", "", writer)


class Lineage(Protocol):
    """The feeds of one store."""

    def entries(self) -> list[Entry]:
        """What was claimed so far."""
        ...

    def claim(self, claim: Claim, *, replaces: bool = False) -> None:
        """Claim the feeds of a run before its first row, and hold them until :meth:`release`;
        again: what is new is added. ``replaces``: rows of them that are there will be replaced
        (sinks.config.SinkConfig.replace_feeds), nothing is claimed yet. SinkError with the
        remedies where a feed is another run's, or where this run was superseded."""
        ...

    def complete(self, run: str, reached: Mapping[int, int]) -> None:
        """Note that the run has read its feeds to their end: by number, the position after it,
        where one is known."""
        ...

    def release(self) -> None:
        """The run no longer lives; a claim without rows is void from now on."""
        ...


def overlaps(mine: FeedClaim, part: Part, stored: Part) -> bool:
    """Whether what ``mine`` reads as ``part`` has, or may have, bytes that ``stored`` stands for.

    A file that has grown since it was read still begins as it did. One that holds little more than
    a line of names is like many others, and is left to its feed's number.
    """
    if part.get("id", "") != stored.get("id", ""):
        return False
    if "topic" in part and "topic" in stored:
        same = all(part[name] == stored[name] for name in ("topic", "partition"))
        return same and _meet(part, stored)
    if "head" in part and "head" in stored:
        size = stored["bytes"]
        if min(size, part["bytes"]) < _TELLING_BYTES:
            return False
        if part["bytes"] <= size:
            return all(part[name] == stored[name] for name in ("bytes", "head"))
        return mine.prefix(part, size) == str(stored["head"])
    return any(part[key] == stored.get(key) for key in ("footer", "simulator") if key in part)


def _meet(one: Part, other: Part) -> bool:
    """Whether two intervals of offsets have one in common; an open end is not known yet."""
    ends = (one.get("end"), other.get("end"))
    return bool(
        (ends[1] is None or one["start"] < ends[1])
        and (ends[0] is None or other["start"] < ends[0])
    )


def check_apart(feeds: Sequence[FeedClaim]) -> None:
    """SinkError where two feeds of one start overlap."""
    for index, feed in enumerate(feeds):
        for other in feeds[:index]:
            for part in feed.parts:
                if any(overlaps(feed, part, known) for known in other.parts):
                    raise SinkError(
                        f"{other.source} and {feed.source} have {_said(part)} in common: leave it "
                        "out of one of them, or tell two that only begin alike apart with id=NAME "
                        "in one URL"
                    )


def _said(part: Part) -> str:
    """A part as a person knows it."""
    if "topic" in part:
        return f"partition {part['partition']} of a topic"
    return str(part.get("path") or "a simulated feed")


def in_the_way(stored: Iterable[Entry], claim: Claim, *, replaces: bool = False) -> list[Entry]:
    """Entries of other runs that overlap what is claimed; of a claim that ``replaces`` also what
    was loaded from the same source, whatever the source held then. SinkError for two feeds of one
    number."""
    found = []
    for entry in stored:
        if entry.run == claim.run:
            continue
        for feed in claim.feeds:
            if entry.number == feed.number and entry.digest != feed.digest:
                raise SinkError(
                    f"{feed.source} would have the number of another feed, {entry.source}: give it "
                    "another one with id=NAME in its URL"
                )
            again = replaces and entry.source == feed.source
            # Intervals of a partition are parts of one feed; any other feed is one as a whole.
            whole = not any("topic" in part for part in feed.parts)
            again |= whole and entry.number == feed.number
            parts = ((part, known) for part in feed.parts for known in entry.parts)
            if again or any(overlaps(feed, *pair) for pair in parts):
                found.append(entry)
                break
    return found


def check_back_fill(store: str, stored: Iterable[Entry], claim: Claim) -> None:
    """SinkError unless the feeds of a back-fill are those that the store holds, made in the same
    way: its rows would not have the numbers of the old ones."""
    for entry in in_the_way(stored, claim):
        if entry.number not in claim.numbers:
            raise SinkError(
                f"{store} holds this interval as {entry.source}, which began elsewhere: its rows "
                "have other numbers. Name the --recovery folder of that run with --checkpoints"
            )
        for name, value in claim.settings.items():
            before = entry.settings.get(name)
            if name != "tables" and before != value:
                raise SinkError(
                    f"{store} holds {entry.source} with {name} = {before}, the back-fill has "
                    f"{value}: give it the same settings"
                )


def refused(store: str, entry: Entry, state: str, *, replaceable: bool = True) -> SinkError:
    """A feed that the store holds already, with the remedies; ``replaceable``: the store takes
    --replace."""
    if state == RUNNING:
        return SinkError(
            f"{store}: {entry.source} is being loaded by another run (feed {entry.number}): wait "
            "for it or stop it; the same feed is in a store once"
        )
    how = "whole" if state == COMPLETE else "in part: a run was cut off"
    instead = "put new rows in its place with --replace, or name another store"
    return SinkError(
        f"{store} holds {entry.source} already (feed {entry.number}, {how}): resume with the "
        "--recovery folder that it was loaded with, "
        f"{instead if replaceable else 'or name another prefix'}; a feed that only begins alike "
        "gets id=NAME in its URL"
    )


def superseded(store: str) -> SinkError:
    """The run's rows were replaced by another run's."""
    return SinkError(
        f"{store}: what this run had loaded was replaced by another run, it cannot go on; "
        f"{START_ANEW}"
    )
