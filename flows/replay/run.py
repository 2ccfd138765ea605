"""Replaying topics through a flow: an interval again, row for row as the original run made it.

``marketflow replay`` is ``run`` with three things more: topics merged in order of time at a chosen
speed (sources.kafka.replay), a beginning in mid-history (flows.replay.plan), and progress that
knows its end.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
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
from marketflow.flows.runtime.job import Job, Replay, ReplayPlan
from marketflow.flows.runtime.kernels import parts_of, prepare
from marketflow.flows.runtime.processes import crew_of
from marketflow.flows.runtime.rescale import shut_out
from marketflow.flows.runtime.run import check_sinks, timed
from marketflow.flows.runtime.signals import on_signals
from marketflow.flows.settings import Settings
from marketflow.schemas.recovery import START_ANEW
from marketflow.sinks import durable
from marketflow.sinks.errors import SinkError
from marketflow.sinks.overlap import Arrived, Interval
from marketflow.sinks.redaction import redacted
from marketflow.sinks.registry import parse_sink
from marketflow.sources.errors import FeedFailed, SourceError
from marketflow.sources.registry import parse_source

_RAN = "replayed.json"
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
    if order.recovery is None or not order.replace:
        return _run(flow, order, settings, Replay(plan, speed, tables), console)
    key = recovery_folder.identity(order.recovery)
    return _back_fill(flow, order, settings, Replay(plan, speed, tables, key), console)


def _run(
    flow: FlowSpec, order: Order, settings: Settings, replaying: Replay, console: Console
) -> dict[str, Any]:
    job = Job(
        order.flow,
        replaying.plan.sources,
        order.sinks,
        settings.model_dump(mode="json"),
        replaying.plan.feeds,
        processes=order.processes,
        recovery=None if order.recovery is None else str(order.recovery),
        replay=replaying,
    )
    topics = [parse_source(text) for text in replaying.plan.sources]
    stop = threading.Event()
    with on_signals(stop.set):
        if order.recovery is not None and order.processes > 1:
            shut_out(flow, order.recovery, order.sinks, order.processes, replaying.aside)
        compiled_s = prepare(parts_of(flow, topics, order.sinks), "the replay", console, stop)
        crew = crew_of(job, topics, stop)
        with timed(compiled_s) as clock, Progress("replay", crew.progress, console):
            summary = crew.run()
    return {
        "flow": flow.name,
        **summary,
        "speed": order.speed,
        "intervals": _intervals(replaying.plan),
        "stopped": crew.stopped,
        **clock.figures(summary),
    }


def _back_fill(
    flow: FlowSpec, order: Order, settings: Settings, replaying: Replay, console: Console
) -> dict[str, Any]:
    """Replay beside the stores, then put the rows in: each part again after a kill does what is
    left of it."""
    assert order.recovery is not None
    assert replaying.aside is not None
    ran = order.recovery / _RAN
    try:
        if not ran.is_file():
            for text in order.sinks:
                parse_sink(text).prepare_back_fill(replaying.aside)
            summary = _run(flow, order, settings, replaying, console)
            if summary["stopped"]:
                return {**summary, "rows_replaced": 0, "rows_written": 0}
            with recovery_folder.failing(order.recovery):
                durable.replace(ran, json.dumps(summary).encode())
        summary = json.loads(ran.read_text())
        arrived = _arrived(replaying.plan)
        reports = [parse_sink(text).back_fill(replaying.aside, arrived) for text in order.sinks]
    except SinkError as error:
        raise UsageError(str(error)) from None
    totals = {name: sum(report[name] for report in reports) for name in reports[0]}
    return {**summary, **totals}


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
    if order.replace and order.recovery is None:
        raise UsageError(
            "--replace needs --recovery DIR, an empty or new folder: a back-fill that is killed "
            "goes on there"
        )
    try:
        for text in order.sinks:
            if order.replace and not parse_sink(text).can_replace:
                raise UsageError(
                    f"--replace: rows of {text.partition(':')[0]}: cannot be replaced; only those "
                    "of parquet: and timescale: can"
                )
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
