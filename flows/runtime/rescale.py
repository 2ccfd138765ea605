"""Resume with a different number of processes: redistribute feeds and state.

A partition's whole state (place in the topic, normaliser, books and bars of its shards) is in the
store of the process that read it, so it can move. In order, and so that a kill at any point is
followed by a clean repetition:

1. Every process of old that might still write is shut out. Then the old processes' sinks are put
   back to their snapshots and closed, one after the other.
2. The states are written into new stores, sinks begin with the marks of their new shards.
3. The folder's note names the new layout, in one step. Until then the old one counts.

The new layout's sinks have writer ids of their own, and so files, progress and transactions.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marketflow.flows.catalogue import FlowSpec
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.runtime import recovery
from marketflow.flows.runtime.partitions import Feed
from marketflow.flows.runtime.recovery import States
from marketflow.flows.runtime.stats import RunStats
from marketflow.schemas.recovery import START_ANEW
from marketflow.schemas.shards import feed_of
from marketflow.sinks.errors import SinkError
from marketflow.sinks.registry import parse_sink
from marketflow.sinks.writer import HoldingWriter, Writer, fence_all

log = logging.getLogger("marketflow.rescale")

#: The one key of the output step, whose state is a tuple: of each writer, its snapshot.
_ONE_WRITER = "0"


def rescale(
    flow: FlowSpec,
    folder: Path,
    sinks: Sequence[str],
    shards: int,
    processes: int,
    aside: str | None = None,
) -> None:
    """Bring the recovery folder to ``processes``; nothing where it has that many. ``aside``: the
    key of rows that are beside the stores.

    Raises UsageError where feeds cannot move, RunFailed or the sinks' own errors (servers away).
    """
    before = recovery.processes_of(folder)
    if before == processes:
        recovery.tidy(folder)
        return
    feeds = [feed for feed, _ in recovery.known_feeds(folder)]
    _check_movable(folder, feeds, before)
    log.warning("%s: from %d to %d processes", folder, before, processes)
    stores = [recovery.states(folder, process) for process in range(before)]
    output = (flow.step_id(flow.output), _ONE_WRITER)
    crews = [_writers(flow, folder, sinks, process, aside) for process in range(before)]
    with _held(crews):
        fence_all(crews)
        settled = [
            _settled(writers, states.get(output))
            for writers, states in zip(crews, stores, strict=True)
        ]
    laid: list[States] = []
    for process in range(processes):
        keeps = _keeper(process, processes, feeds)
        begin = [
            writer.reassign(states, keeps)
            for writer, states in zip(crews[0], zip(*settled, strict=True), strict=True)
        ]
        laid.append(
            {
                **_states_of(flow, process, processes, stores, shards),
                output: pickle.dumps(tuple(begin)),
            }
        )
    recovery.lay_out(folder, laid)
    recovery.tidy(folder)


def _check_movable(folder: Path, feeds: Sequence[Feed], before: int) -> None:
    if any(feed.partition is None for feed in feeds):
        raise UsageError(
            f"{folder} belongs to a run with {before} processes: only partitions of topics can "
            "move to others, a file is read by every process, each of which has its own place in "
            f"it; resume with --processes {before}, or {START_ANEW}"
        )


def _keeper(process: int, processes: int, feeds: Sequence[Feed]) -> Callable[[int], bool]:
    """Whether rows of a shard are the process's; what is of no feed of the run is the first's."""
    indices = {feed.number: index for index, feed in enumerate(feeds)}
    return lambda shard: indices.get(feed_of(shard), 0) % processes == process


def _states_of(
    flow: FlowSpec, process: int, processes: int, stores: Sequence[States], shards: int
) -> dict[tuple[str, str], bytes]:
    """What a process of the new layout takes over: of each feed what its old owner had."""
    by_feed = set(map(flow.step_id, (flow.input, *flow.by_feed)))
    output = flow.step_id(flow.output)

    def index_of(step: str, key: str) -> int:
        """Index of the feed whose state this is."""
        return int(key) if step in by_feed else int(key) // shards

    return {
        (step, key): state
        for old, store in enumerate(stores)
        for (step, key), state in store.items()
        if step != output
        and (feed := index_of(step, key)) % len(stores) == old
        and feed % processes == process
    }


def _writers(
    flow: FlowSpec, folder: Path, sinks: Sequence[str], process: int, aside: str | None = None
) -> list[Writer]:
    identity, writer = recovery.identity(folder), recovery.writer_id(folder, process)
    opened = [parse_sink(text).open(writer, identity, aside=aside) for text in sinks]
    return [RunStats(flow), *opened]


def shut_out(
    flow: FlowSpec, folder: Path, sinks: Sequence[str], processes: int, aside: str | None = None
) -> None:
    """Shut out the writers of earlier processes of the run, before any process resumes: each waits
    for what the writer of another may have left open. They open their sinks themselves.
    ``aside``: the key of the back-fill that the rows are for.

    Raises UsageError, RunFailed.
    """
    crews = [_writers(flow, folder, sinks, process, aside) for process in range(processes)]
    with _held(crews):
        fence_all(crews)
    _let_go(crews)


def _settled(writers: Sequence[Writer], kept: bytes | None) -> list[Any]:
    """States of an old process's writers, which are closed as its snapshot has them."""
    if kept is not None:
        for writer, state in zip(writers, pickle.loads(kept), strict=True):
            writer.restore(state)
    found = [writer.snapshot() for writer in writers]
    for writer in writers:
        writer.close()
    for writer in writers:
        if isinstance(writer, HoldingWriter):
            writer.finish()
    return found


@contextmanager
def _held(crews: Sequence[Sequence[Writer]]) -> Iterator[None]:
    """Let go of all writers when something goes wrong meanwhile, which is raised as a person can
    use it."""
    try:
        yield
    except BaseException as error:
        _let_go(crews)
        if isinstance(error, SinkError):
            raise UsageError(str(error)) from None
        if isinstance(error, OSError):
            raise RunFailed(str(error)) from error
        raise


def _let_go(crews: Sequence[Sequence[Writer]]) -> None:
    for writers in crews:
        for writer in writers:
            if isinstance(writer, HoldingWriter):
                writer.abandon()
