"""The flows: an entry per flow, and what the runtime must know of one.

A flow is named by its entry here, or as ``package.module:NAME`` of a :class:`FlowSpec` of your own.
Nothing else in ``flows`` knows the name, the steps or the settings of a flow. This module is light:
``--help`` reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from marketflow.flows.errors import UsageError, nearest

if TYPE_CHECKING:
    from marketflow.flows.settings import Settings
    from marketflow.schemas.fields import Table
    from marketflow.schemas.shards import ShardPlan
    from marketflow.sources.config import SourceConfig


class Entry(NamedTuple):
    """A flow of this package: where its spec is, and the names of its own settings."""

    spec: str
    settings: tuple[str, ...]


FLOWS: Final = {
    "market_data": Entry(
        "marketflow.flows.market_data.spec:SPEC",
        ("intervals", "late_ms", "depth_interval_ms", "clock_skew_ms", "max_instruments"),
    ),
}
DEFAULT_FLOW: Final = next(iter(FLOWS))
#: What is shown where a flow is to be named.
NAMES: Final = f"{', '.join(FLOWS)}, or package.module:NAME of a FlowSpec of your own"

#: Makes the core of a step (operators.engine.Core) by its index: of a feed or of a shard.
Make = Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Kernels that one process compiles ahead of a run.

    ``seconds``: on one core of 2026. ``entries``: ``module:function`` of kernels that are compiled
    last. ``warm``: ``module:function`` that calls them with a handful of rows.
    """

    name: str
    seconds: int
    entries: tuple[str, ...]
    warm: str


@dataclass(frozen=True, slots=True)
class Start:
    """Settings, sources and shards that a flow makes the cores of one process from.

    ``sources``: the source of each feed, by its index.
    ``plan``: which shards of a feed this process keeps.
    ``cores``: call it with the name of a core step and what makes its cores, and hand its result
    to the step; it lets a replay begin in mid-history and keeps large states in files.
    """

    settings: Settings
    sources: Sequence[SourceConfig]
    plan: Callable[[int], ShardPlan]
    cores: Callable[[str, Make], Make]

    def shard(self, index: int) -> int:
        """What rows of a shard carry, by its index in the run (schemas.shards)."""
        feed, local = divmod(index, self.settings.shards)
        return self.plan(feed).shard(local)


def _takes_all(source: SourceConfig) -> None:
    """Every source will do."""


def _any_venue(venue: str) -> None:
    """Raw frames of every venue will do."""


def _nothing_compiled(sources: Sequence[SourceConfig] | None) -> Sequence[Part]:
    return ()


def _named_venue(source: SourceConfig) -> str | None:
    return getattr(source, "venue", None) or None


def _same_venue(venue: str) -> tuple[str | None, frozenset[str]]:
    return venue or None, frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class FlowSpec:
    """A flow as the runtime sees it.

    ``name``: the name of its Dataflow. It is part of the recovery format, like the names of steps.
    ``build``: makes the Dataflow of (source, sink, config). Its input step is called ``input`` and
    gives frames (schemas.messages.frames) keyed by feed; its output step is called ``output``.
    ``config``: makes the third argument of ``build`` for one process.
    ``by_feed``, ``by_shard``: its core steps (operators.engine.core_step), by what keys them.
    ``tables``: the tables it can write, by name.
    ``settings``: its settings, a section upon those of every flow.
    ``check``: raises SourceError with the remedy for a source that it cannot read; cheap.
    ``check_venue``: raises SourceError for a venue whose raw frames it cannot read.
    ``rows_of``: of the raw frames of a venue ("": not known), the venue of their rows (None: any)
    and the venues that are other feeds'.
    ``kernels``: what is compiled ahead of a run over these sources; None: of any run.
    ``levels``: stats of its rows (operators.events.Rows) that are a level, not a sum.
    ``clock``: the table whose newest row says how far the feeds are; None: no table does.
    ``venue_of``: the venue of a source's rows, where there is one and it is known beforehand.
    """

    name: str
    build: Callable[[Any, Any, Any], Any]
    config: Callable[[Start], Any]
    by_feed: tuple[str, ...]
    by_shard: tuple[str, ...]
    tables: Mapping[str, Table]
    settings: type[Settings]
    check: Callable[[SourceConfig], None] = _takes_all
    check_venue: Callable[[str], None] = _any_venue
    rows_of: Callable[[str], tuple[str | None, frozenset[str]]] = _same_venue
    kernels: Callable[[Sequence[SourceConfig] | None], Sequence[Part]] = _nothing_compiled
    levels: frozenset[str] = frozenset()
    clock: str | None = None
    venue_of: Callable[[SourceConfig], str | None] = _named_venue
    input: str = "feed"
    output: str = "sinks"

    @property
    def steps(self) -> tuple[str, ...]:
        """The core steps."""
        return (*self.by_feed, *self.by_shard)

    def step_id(self, step: str) -> str:
        """The name of a step in the engine's store."""
        return f"{self.name}.{step}"


def find(flow: str) -> FlowSpec:
    """The flow of this name. Raises UsageError with the fix."""
    entry = FLOWS.get(flow)
    if entry is None and ":" not in flow:
        raise UsageError(f"no flow {flow!r}{nearest(flow, FLOWS)}; known: {NAMES}")
    found = load(flow if entry is None else entry.spec)
    if not isinstance(found, FlowSpec):
        raise UsageError(
            f"{flow} is a {type(found).__name__}, no FlowSpec of marketflow.flows.catalogue"
        )
    return found


def load(reference: str) -> Any:
    """The value that ``package.module:NAME`` stands for. Raises UsageError if there is none."""
    module, _, name = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{reference}: {error}; the module must be installed, or lie below this folder"
        ) from None
    if not hasattr(found, name):
        raise UsageError(f"{reference}: module {module} has no {name}")
    return getattr(found, name)


def every() -> list[FlowSpec]:
    """The flows of this package."""
    return [find(name) for name in FLOWS]


def all_tables() -> dict[str, Table]:
    """The tables of every flow of this package, by name."""
    return {name: table for flow in every() for name, table in flow.tables.items()}
