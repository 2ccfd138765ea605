"""What a run counts: the summary of ``--json``, kept exactly across kills and restarts.

The counters travel as one more writer beside the sinks: they see every batch that is written and
are part of the same snapshot, so a resumed run ends with the numbers of an undisturbed one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from marketflow.flows.catalogue import FlowSpec
from marketflow.flows.runtime.compiling import COMPILING
from marketflow.operators.events import Rows
from marketflow.operators.normalise.core import ROWLESS
from marketflow.schemas.recovery import OTHER_RELEASE, StateError

SNAPSHOT_VERSION: Final = 2
#: Kinds of messages without a row that are counted apart; what comes beyond is "other".
_MOST_KINDS: Final = 100
#: Stale books that a summary names.
_NAMED: Final = 100
_STALE: Final = pa.array(["stale", "valid"])


class RunStats:
    """Counts messages, rows per table, dead letters by reason, quality events by kind.

    The flow says which stats are levels (the latest per shard counts) and which table is its clock.
    """

    def __init__(self, flow: FlowSpec) -> None:
        self._flow = flow
        self.tables: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        self.quality_events: Counter[str] = Counter()
        self.sums: Counter[str] = Counter()
        self.levels: dict[str, dict[int, int]] = {}
        #: (shard, venue and symbol) of books that are stale now, where quality_events are made.
        self.stale: set[tuple[int, str]] = set()
        self.last_event_ns = 0
        #: Messages of earlier starts of the run.
        self.earlier_messages = 0
        #: What a source tells of itself besides.
        self.more_progress: Callable[[], dict[str, Any]] = dict
        #: By feed, how far it was read.
        self.reached: Callable[[], dict[int, int]] = dict

    def write(self, rows: Rows) -> None:
        """Count one item of the flow."""
        for name, batch in rows.tables.items():
            self.tables[name] += batch.num_rows
            if name == "dead_letters":
                _count(self.dead_letters, batch.column("reason"))
            elif name == "quality_events":
                _count(self.quality_events, batch.column("kind"))
                self._follow_books(rows.shard, batch)
            if name == self._flow.clock and batch.num_rows:
                times = batch.column(self._flow.tables[name].time_field)
                self.last_event_ns = max(self.last_event_ns, pc.max(times.cast(pa.int64())).as_py())
        for name, value in rows.stats.items():
            if name in self._flow.levels:
                self.levels.setdefault(name, {})[rows.shard] = value
            else:
                self.sums[self._counted(name)] += value

    def _counted(self, name: str) -> str:
        """The name itself, or the common one of what would be too many kinds."""
        if not name.startswith(ROWLESS) or name in self.sums:
            return name
        kinds = sum(known.startswith(ROWLESS) for known in self.sums)
        return name if kinds < _MOST_KINDS else f"{ROWLESS}other"

    def _follow_books(self, shard: int, events: pa.RecordBatch) -> None:
        """Which books went stale and which are valid again, in order."""
        changed = events.filter(pc.is_in(events.column("kind").dictionary_decode(), _STALE))
        for row in changed.select(["kind", "venue", "symbol"]).to_pylist():
            book = (shard, f"{row['venue']} {row['symbol']}")
            (self.stale.add if row["kind"] == "stale" else self.stale.discard)(book)

    def snapshot(self) -> Any:
        """(version, every counter): a copy."""
        return (
            SNAPSHOT_VERSION,
            dict(self.tables),
            dict(self.dead_letters),
            dict(self.quality_events),
            dict(self.sums),
            {name: dict(by_shard) for name, by_shard in self.levels.items()},
            self.last_event_ns,
            sorted(self.stale),
        )

    def restore(self, state: Any) -> None:
        """Take a snapshot back."""
        if state[0] != SNAPSHOT_VERSION:
            raise StateError(
                f"recovery state of the counters has format {state[0]}, this release reads "
                f"{SNAPSHOT_VERSION}: {OTHER_RELEASE}"
            )
        _, tables, dead, quality, sums, levels, newest, stale = state
        self.stale = set(stale)
        self.tables, self.dead_letters = Counter(tables), Counter(dead)
        self.quality_events, self.sums = Counter(quality), Counter(sums)
        self.earlier_messages = self.sums["messages"]
        self.levels, self.last_event_ns = {n: dict(v) for n, v in levels.items()}, newest

    def reassign(self, states: Sequence[Any], keeps: Callable[[int], bool]) -> Any:
        """Levels go with their shards; whoever keeps the first feed's own rows keeps the sums."""
        whole = RunStats(self._flow)
        for state in states:
            part = RunStats(self._flow)
            part.restore(state)
            if keeps(-1):
                for name in ("tables", "dead_letters", "quality_events", "sums"):
                    getattr(whole, name).update(getattr(part, name))
            for name, by_shard in part.levels.items():
                kept = {shard: value for shard, value in by_shard.items() if keeps(shard)}
                whole.levels.setdefault(name, {}).update(kept)
            whole.stale |= {book for book in part.stale if keeps(book[0])}
            whole.last_event_ns = max(whole.last_event_ns, part.last_event_ns)
        return whole.snapshot()

    def close(self) -> None:
        """Nothing to release."""

    def progress(self) -> dict[str, Any]:
        """What the progress line shows."""
        return {
            "messages": self.sums["messages"],
            "earlier_messages": self.earlier_messages,
            "compiling": COMPILING.name,
            "compile_s": COMPILING.seconds,
            "tables": dict(self.tables),
            "dead_letters": dict(self.dead_letters),
            "stale_books": sum(self.levels.get("stale_books", {}).values()),
            "last_event_ns": self.last_event_ns,
            **self.more_progress(),
        }

    def summary(self) -> dict[str, Any]:
        """The counters as plain JSON values (no times: those belong to the runner)."""
        return {
            "messages": self.sums["messages"],
            "new_messages": self.sums["messages"] - self.earlier_messages,
            "tables": dict(sorted(self.tables.items())),
            "dead_letters": dict(sorted(self.dead_letters.items())),
            "quality_events": dict(sorted(self.quality_events.items())),
            "checksums_verified": self.sums["checksums_verified"],
            "checksums_failed": self.sums["checksums_failed"],
            "rowless_messages": {
                name.removeprefix(ROWLESS): count
                for name, count in sorted(self.sums.items())
                if name.startswith(ROWLESS)
            },
            "stale": sorted(name for _, name in self.stale)[:_NAMED],
            **{name: sum(v.values()) for name, v in sorted(self.levels.items())},
            **{
                name: value
                for name, value in sorted(self.sums.items())
                if name not in ("messages", "checksums_verified", "checksums_failed")
                and not name.startswith(ROWLESS)
            },
        }


def merge_summaries(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum of the summaries of several processes (each kept its own shards)."""
    merged: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, dict):
                known = Counter(merged.get(name, {}))
                known.update(value)
                merged[name] = dict(sorted(known.items()))
            elif isinstance(value, list):
                merged[name] = sorted([*merged.get(name, []), *value])[:_NAMED]
            else:
                merged[name] = merged.get(name, 0) + value
    return merged


def merge_progress(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What several processes show of themselves, as that of one."""
    own = ("last_event_ns", "compiling", "compile_s")
    merged = merge_summaries([{k: v for k, v in p.items() if k not in own} for p in parts])
    return {**merged, **{name: max(part[name] for part in parts) for name in own}}


def _count(counter: Counter[str], column: pa.DictionaryArray) -> None:
    for item in pc.value_counts(column.dictionary_decode()).to_pylist():
        counter[item["values"]] += item["counts"]
