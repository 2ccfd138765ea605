"""Replaying topics through a flow: an interval again, row for row as the original run made it.

``marketflow replay`` is ``run`` with three things more: topics merged in order of time at a chosen
speed (sources.kafka.replay), a beginning in mid-history (flows.replay.plan), and progress that
knows its end.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from marketflow.flows import settings as settings_module
from marketflow.flows.catalogue import FlowSpec, find
from marketflow.flows.console import Progress
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.replay.plan import Wanted, keep_plan, make_plan, read_plan
from marketflow.flows.runtime import checkpoints, run_identity
from marketflow.flows.runtime import recovery as recovery_folder
from marketflow.flows.runtime.claims import claim_of, claimed, failing, from_plain, known_entries
from marketflow.flows.runtime.job import Job, Replay, ReplayPlan
from marketflow.flows.runtime.kernels import parts_of, prepare
from marketflow.flows.runtime.processes import crew_of
from marketflow.flows.runtime.replacement import check_replaces, put_in_place
from marketflow.flows.runtime.rescale import shut_out
from marketflow.flows.runtime.run import check_sinks, timed
from marketflow.flows.runtime.signals import on_signals
from marketflow.flows.settings import Settings
from marketflow.schemas.recovery import START_ANEW
from marketflow.sinks.config import SinkConfig
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lineage import Claim, check_back_fill, new_run
from marketflow.sinks.overlap import Arrived, Interval
from marketflow.sinks.redaction import redacted
from marketflow.sinks.registry import parse_sink
from marketflow.sources.errors import FeedFailed, SourceError
from marketflow.sources.registry import parse_source

#: Rows that a back-fill has put in are replaced by the next one.
_REPLACE_ANEW = "begin the back-fill anew with another --recovery folder"
_SPEED = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)x")


def speed_of(text: str) -> float | None:
    """Seconds of frames per second, None for ``max``. UsageError if it is neither."""
    match = _SPEED.fullmatch(text)
    if text == "max":
        return None
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--speed {text} is neither max nor a pace such as 1x, 10x or 0.5x")
    return float(match[1])


@dataclass(frozen=True, slots=True)
class Order:
    """A replay as the user asked for it. ``flow``: as the catalogue finds it."""

    wanted: Wanted
    flow: str
    sinks: tuple[str, ...]
    speed: str = "max"
    recovery: Path | None = None
    replace: bool = False
    processes: int = 1


def replay(
    order: Order, *, settings: Settings | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Replay to the end of the interval; returns the summary of ``replay --json``.

    Raises UsageError (wrong use) or RunFailed, with the fix in the text.
    """
    flow = find(order.flow)
    settings = settings or settings_module.load(flow)
    console = console or Console(stderr=True, quiet=True)
    _check(order)
    speed = speed_of(order.speed)
    if speed is not None and order.processes > 1:
        raise UsageError(
            f"--speed {order.speed} with --processes {order.processes}: a pace is kept by one "
            "process, which reads all partitions in order of time; leave out one of them"
        )
    settings, tables = _settings(flow, order.wanted.original, settings)
    plan = _plan(flow, order, settings, tables)
    for text in plan.notes:
        console.print(text, style="yellow", markup=False, soft_wrap=True)
    run = new_run() if order.recovery is None else recovery_folder.identity(order.recovery)
    claim = claim_of(run, flow, settings, from_plain(plan.claims))
    stores = [parse_sink(text) for text in order.sinks]
    replaying = Replay(plan, speed, tables)
    if not order.replace:
        with claimed(claim, stores) as held:
            summary, reached = _read(flow, order, settings, replaying, run, console)
            if not summary["stopped"]:
                held.complete(reached)
            return summary
    assert order.recovery is not None
    arrived = _arrived(plan)
    with failing():
        for store in stores:
            check_back_fill(store.shown, known_entries(store), claim)

    def put_in(store: SinkConfig, reached: dict[int, int]) -> dict[str, int]:
        report = store.back_fill(run, arrived)
        _adopt(store, claim, reached)
        return report

    return put_in_place(
        order.recovery,
        stores,
        run,
        claim.numbers,
        lambda: _read(flow, order, settings, replaying, run, console),
        put_in,
    )


def _adopt(store: SinkConfig, claim: Claim, reached: dict[int, int]) -> None:
    """Claim what nobody had: a back-fill leaves a feed to the run that began it."""
    theirs = {entry.number for entry in known_entries(store) if entry.run != claim.run}
    ours = tuple(feed for feed in claim.feeds if feed.number not in theirs)
    if ours:
        with claimed(replace(claim, feeds=ours), [store]) as held:
            held.complete(reached)


def _read(
    flow: FlowSpec,
    order: Order,
    settings: Settings,
    replaying: Replay,
    run: str,
    console: Console,
) -> tuple[dict[str, Any], dict[int, int]]:
    """The summary of the replay, and by feed how far it was read."""
    aside = run if order.replace else None
    job = Job(
        order.flow,
        replaying.plan.sources,
        order.sinks,
        settings.model_dump(mode="json"),
        replaying.plan.feeds,
        run,
        processes=order.processes,
        recovery=None if order.recovery is None else str(order.recovery),
        replay=replaying,
        aside=aside,
    )
    topics = [parse_source(text) for text in replaying.plan.sources]
    stop = threading.Event()
    with on_signals(stop.set):
        if order.recovery is not None and order.processes > 1:
            shut_out(flow, order.recovery, order.sinks, order.processes, aside)
        compiled_s = prepare(parts_of(flow, topics, order.sinks), "the replay", console, stop)
        crew = crew_of(job, topics, stop)
        with timed(compiled_s) as clock, Progress("replay", crew.progress, console):
            summary = crew.run()
    told = {
        "flow": flow.name,
        **summary,
        "speed": order.speed,
        "intervals": _intervals(replaying.plan),
        "stopped": crew.stopped,
        **clock.figures(summary),
    }
    feeds = replaying.plan.feeds
    return told, {feeds[index].number: at for index, at in crew.reached.items()}


def _arrived(plan: ReplayPlan) -> Arrived:
    """When the frames of the whole interval arrived."""
    first = [first for _, first, _, _ in plan.arrivals]
    end = [end for _, _, end, _ in plan.arrivals]
    return Arrived(
        None if None in first else min(ms for ms in first if ms is not None),
        None if None in end else max(ms for ms in end if ms is not None),
        all(is_exact for *_, is_exact in plan.arrivals),
    )


def _new_plan(flow: FlowSpec, order: Order, shards: int, tables: tuple[str, ...]) -> ReplayPlan:
    """The plan; UsageError if a store has rows of the interval, that nobody asked to replace."""
    plan = make_plan(flow, order.wanted, shards)
    for text in () if order.replace else order.sinks:
        for venue, first_ms, end_ms, _ in plan.arrivals:
            name, others = flow.rows_of(venue)
            table = parse_sink(text).holds(Interval(name, first_ms, end_ms, others), tables)
            if table is not None:
                raise UsageError(
                    f"{redacted(text)} has rows of this interval already (in {table}): put the new "
                    "ones in their place with --replace, or name another --sink"
                )
    return plan


def _check(order: Order) -> None:
    wanted = order.wanted
    if not wanted.topics or not order.sinks:
        raise UsageError("a replay needs at least one --topic and one --sink")
    names = [topic.partition("?")[0] for topic in wanted.topics]
    if len(set(names)) < len(names):
        raise UsageError(f"a topic is named twice: {', '.join(names)}")
    if "@" in wanted.brokers or any("password" in topic for topic in wanted.topics):
        raise UsageError(
            "user and password of the brokers come from MARKETFLOW_KAFKA_USERNAME, "
            "MARKETFLOW_KAFKA_PASSWORD (or _PASSWORD_FILE) and MARKETFLOW_KAFKA_SECURITY"
        )
    for name, text in (("--from", wanted.start), ("--to", wanted.end)):
        if text is not None and len(names) > 1 and re.fullmatch(r"[\d:,]+", text):
            raise UsageError(
                f"{name} {text}: an offset means something else in every topic; give a time such "
                "as 2026-03-02T14:30:00Z, or replay the topics one by one"
            )
    try:
        if order.replace:
            check_replaces(order.sinks, order.recovery)
        check_sinks(order.sinks, order.processes)
    except SinkError as error:
        raise UsageError(str(error)) from None


def _settings(
    flow: FlowSpec, original: Path | None, settings: Settings
) -> tuple[Settings, tuple[str, ...]]:
    """The settings of the original run, where it is known, and the tables to write."""
    if original is None:
        return settings, settings.tables
    found = dict(checkpoints.read_note(original)["settings"])
    of_run = settings_module.load(flow, **{**settings.model_dump(), **found})
    return of_run, tuple(name for name in of_run.tables if name in settings.tables)


def _plan(flow: FlowSpec, order: Order, settings: Settings, tables: tuple[str, ...]) -> ReplayPlan:
    wanted, recovery = order.wanted, order.recovery
    try:
        if recovery is None:
            return _new_plan(flow, order, settings.shards, tables)
        identity = run_identity.of_run(
            flow.name,
            [f"replay:{wanted.brokers}/{topic}" for topic in wanted.topics],
            order.sinks,
            settings,
            interval=[wanted.start, wanted.end, wanted.ends],
            written=sorted(tables),
            replace=order.replace,
        )
        anew = _REPLACE_ANEW if order.replace else START_ANEW
        begun = recovery_folder.goes_on(recovery, identity, anew=anew)
        # What is wrong with a first start is found before the folder is made: the mended one may
        # have it.
        plan = read_plan(recovery) if begun else None
        plan = plan or _new_plan(flow, order, settings.shards, tables)
        recovery_folder.prepare(recovery, identity, order.processes, anew=anew)
        before = recovery_folder.processes_of(recovery)
        if before != order.processes:
            raise UsageError(
                f"{recovery} belongs to a replay with {before} processes, whose place in all of "
                f"the topics is one: resume with --processes {before}, or {anew}"
            )
        with recovery_folder.failing(recovery):
            return keep_plan(recovery, plan)
    except (SourceError, SinkError) as error:
        raise UsageError(str(error)) from None
    except FeedFailed as error:
        raise RunFailed(str(error)) from None


def _intervals(plan: ReplayPlan) -> list[dict[str, Any]]:
    """What was replayed of each partition; ``begun``: where reading began, silently."""
    topics = [text.partition("?")[0].rpartition("/")[2] for text in plan.sources]
    return [
        {
            "topic": topics[plan.feeds[span.feed].source],
            "partition": span.partition,
            "begun": span.start,
            "from": span.show,
            "to": span.end,
        }
        for span in plan.spans
    ]
