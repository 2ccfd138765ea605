"""The job of one process of a run: plain values, sent to the process as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from marketflow.flows.catalogue import FlowSpec
from marketflow.flows.runtime import checkpoints
from marketflow.flows.runtime.partitions import Feed
from marketflow.operators.mid_history import Warmup
from marketflow.sources.kafka.spans import Span


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """Plain values. ``sources`` and ``feeds`` are those of the original run in its order (a source
    that is not replayed has the URL of one that is); ``checkpoints``: by feed, the file that it
    begins with; ``notes``: what the user should know; ``arrivals``: by topic, the venue ("": not
    known), when its messages arrived, from (ms) and before (None: open), and whether that is exact
    (times were given, no offsets); ``claims``: of the spans (flows.runtime.claims)."""

    sources: tuple[str, ...]
    feeds: tuple[Feed, ...]
    spans: tuple[Span, ...]
    checkpoints: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    arrivals: tuple[tuple[str, int | None, int | None, bool], ...] = ()
    claims: tuple[dict[str, Any], ...] = ()

    @property
    def midway(self) -> bool:
        """Whether rows are numbered on from somewhere."""
        return bool(self.checkpoints) or any(span.start < span.show for span in self.spans)

    def part(self, process: int, processes: int) -> ReplayPlan:
        """The plan of one process: the partitions whose feeds it reads."""
        return replace(
            self,
            spans=tuple(span for span in self.spans if span.feed % processes == process),
            checkpoints={
                f: path for f, path in self.checkpoints.items() if f % processes == process
            },
        )

    def warmup(self, flow: FlowSpec, shards: int) -> Warmup:
        """Where the cores begin, and from where they are shown."""
        begin: dict[str, dict[int, tuple[Any, ...]]] = {}
        for feed, path in self.checkpoints.items():
            for step, states in checkpoints.load(Path(path), flow, feed, shards).items():
                begin.setdefault(step, {}).update(states)
        shown = {
            span.feed: span.show
            for span in self.spans
            if span.start < span.show or span.feed in self.checkpoints
        }
        return Warmup(shown, begin)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> ReplayPlan:
        """From what :func:`dataclasses.asdict` and JSON made of one."""
        return cls(
            tuple(values["sources"]),
            tuple(Feed(*feed) for feed in values["feeds"]),
            tuple(Span(*span) for span in values["spans"]),
            {int(feed): path for feed, path in values["checkpoints"].items()},
            tuple(values["notes"]),
            tuple(tuple(arrived) for arrived in values["arrivals"]),
            tuple(values["claims"]),
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that replays: what, how fast (None: as fast as it goes), which of the tables."""

    plan: ReplayPlan
    speed: float | None
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does. ``flow``: as the catalogue finds it; ``settings``: plain values.
    ``run``: identity of the run. ``aside``: the rows are written beside the stores' own, by this
    key, to be put in when the run is complete."""

    flow: str
    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    settings: dict[str, Any]
    feeds: tuple[Feed, ...]
    run: str
    process: int = 0
    processes: int = 1
    recovery: str | None = None
    replay: Replay | None = None
    aside: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        values = json.loads(text)
        replaying = values["replay"]
        if replaying is not None:
            plan = ReplayPlan.from_values(replaying["plan"])
            replaying = Replay(**{**replaying, "plan": plan, "tables": tuple(replaying["tables"])})
        return cls(
            **{
                **values,
                "sources": tuple(values["sources"]),
                "sinks": tuple(values["sinks"]),
                "feeds": tuple(Feed(*feed) for feed in values["feeds"]),
                "replay": replaying,
            }
        )
