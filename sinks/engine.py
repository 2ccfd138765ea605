"""Writers as a bytewax sink: a thread that writes, and a barrier in ``snapshot``.

The flow's thread only hands rows over, so that a slow write does not delay the next tick; a full
queue blocks it, which is how a slow sink slows the source. The one bytewax fact that everything
here rests on: epoch N+1 begins only when epoch N and its snapshot are durable.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from marketflow.sinks.errors import SinkError
from marketflow.sinks.writer import HoldingWriter, Writer

MAX_QUEUED_ROWS: Final = 1 << 17
_IDLE_S: Final = 1.0
_PART: Final = "0"


class Selected(NamedTuple):
    """Rows of a shard, only the tables that are wanted."""

    shard: int
    tables: dict[str, Any]
    stats: dict[str, int]


class WriterSink(FixedPartitionedSink[Any, Any]):
    """All sinks of a process as one partition, keyed "0".

    - Unit of parallelism: the process. The snapshot is that of every writer, in their order.
    - ``tables`` are the ones that are written (None: all); others pass through the flow unseen.
    - Delivery: the weakest of the writers'. A slow writer blocks the flow (bounded queue).
    - An error of a writer ends the flow with that error, at the next row or snapshot; one that
      happens while closing is raised by :meth:`finish`.
    """

    def __init__(self, writers: Sequence[Writer], tables: frozenset[str] | None = None) -> None:
        self._writers = list(writers)
        self._tables = tables
        self._crew: _Crew | None = None

    def list_parts(self) -> list[str]:
        return [_PART]

    def part_fn(self, item_key: str) -> int:
        return 0

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _Partition:
        if resume_state is not None:
            if len(resume_state) != len(self._writers):
                raise SinkError(
                    f"the recovery folder is of a run with {len(resume_state)} sinks, this one "
                    f"has {len(self._writers)}: resume with the same sinks"
                )
            for writer, state in zip(self._writers, resume_state, strict=True):
                writer.restore(state)
        self._crew = _Crew(self._writers)
        return _Partition(self._crew, self._tables)

    def finish(self) -> None:
        """To be called when the flow has ended without an error: its last snapshot is durable.

        Raises what went wrong when the writers were closed.
        """
        if self._crew is not None and self._crew.failure is not None:
            raise self._crew.failure
        for writer in self._writers:
            if isinstance(writer, HoldingWriter):
                writer.finish()

    def abandon(self) -> None:
        """To be called when the flow has failed: stop writing, let go of locks and files."""
        if self._crew is not None:
            self._crew.halt()
        for writer in self._writers:
            if isinstance(writer, HoldingWriter):
                writer.abandon()


class _Partition(StatefulSinkPartition[Any, Any]):
    def __init__(self, crew: _Crew, tables: frozenset[str] | None) -> None:
        self._crew = crew
        self._tables = tables

    def write_batch(self, values: list[Any]) -> None:
        for rows in values:
            self._crew.put(self._select(rows))

    def _select(self, rows: Any) -> Any:
        if self._tables is None or rows.tables.keys() <= self._tables:
            return rows
        wanted = {name: batch for name, batch in rows.tables.items() if name in self._tables}
        return Selected(rows.shard, wanted, rows.stats)

    def snapshot(self) -> Any:
        return self._crew.ask(lambda: tuple(w.snapshot() for w in self._crew.writers))

    def close(self) -> None:
        """The engine drops us: the flow has ended, or a step of it has failed. It cannot take an
        exception here while it unwinds from another (it aborts the process): WriterSink.finish
        raises it."""

        def close_all() -> None:
            for writer in self._crew.writers:
                writer.close()

        with suppress(Exception):
            self._crew.ask(close_all)
        self._crew.stop()

    def __del__(self) -> None:
        # The flow died without closing us: the thread must neither write on nor wait for ever.
        self._crew.halt(wait=False)


class _Crew:
    """The writers, the thread that drives them, and the bounded queue to it."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self.writers = writers
        self._queue: deque[tuple[int, Any]] = deque()
        self._queued_rows = 0
        self._change = threading.Condition()
        self._stopped = False
        self.failure: BaseException | None = None
        self._answer: Any = None
        self._answered = True
        self._thread = threading.Thread(target=self._work, name="sinks", daemon=True)
        self._thread.start()

    def put(self, rows: Any) -> None:
        """Queue rows; blocks while the queue is full. Raises what a writer raised."""
        weight = sum(batch.num_rows for batch in rows.tables.values())
        with self._change:
            # Rows larger than the whole queue are let in alone.
            self._change.wait_for(
                lambda: (
                    self.failure is not None
                    or self._queued_rows == 0
                    or self._queued_rows + weight <= MAX_QUEUED_ROWS
                )
            )
            self._check()
            self._queue.append((weight, rows))
            self._queued_rows += weight
            self._change.notify_all()

    def ask(self, question: Callable[[], Any]) -> Any:
        """Have the thread answer after everything queued; the barrier of a snapshot."""
        with self._change:
            self._check()
            self._answered = False
            self._queue.append((0, question))
            self._change.notify_all()
            self._change.wait_for(lambda: self.failure is not None or self._answered)
            self._check()
            return self._answer

    def stop(self) -> None:
        """End the thread once the queue is empty."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def halt(self, *, wait: bool = True) -> None:
        """End the thread now; what is queued is dropped. ``wait``: nothing is written after us."""
        with self._change:
            self._queue.clear()
            self._stopped = True
            self._change.notify_all()
        if wait:
            self._thread.join()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._do(*item)
        except BaseException as error:  # it is raised again in the flow's thread
            with self._change:
                self.failure = error
                self._queue.clear()
                self._change.notify_all()

    def _next(self) -> tuple[int, Any] | None:
        """The oldest item; meanwhile writers may use the idle time. None: stopped."""
        while True:
            with self._change:
                if not self._queue and not self._stopped:
                    self._change.wait(_IDLE_S)
                if self._queue:
                    return self._queue.popleft()
                if self._stopped:
                    return None
            for writer in self.writers:
                if isinstance(writer, HoldingWriter):
                    writer.idle()

    def _do(self, weight: int, item: Any) -> None:
        if callable(item):
            answer = item()
            with self._change:
                self._answer, self._answered = answer, True
                self._change.notify_all()
            return
        for writer in self.writers:
            writer.write(item)
        with self._change:
            self._queued_rows -= weight
            self._change.notify_all()
