"""``marketflow record``: live feeds to raw frames, before anybody else sees them.

Frames go from the sockets' thread over a bounded outbox to every sink. What a sink has made
durable (a topic's messages, a sealed file) is where the guarantees of every flow begin; a kill
loses at most what was on its way to that.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marketflow.flows.console import Cell, Progress, quantity
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.recording.line_pump import LINES
from marketflow.flows.recording.record_lines import VENUE, LinesRecorder
from marketflow.flows.recording.redundancy import RecordArbiter
from marketflow.flows.runtime.kernels import prepare
from marketflow.flows.runtime.signals import on_signals
from marketflow.schemas.moments import moment_ns
from marketflow.schemas.units import NS_PER_S
from marketflow.sinks.errors import SinkError
from marketflow.sinks.raw.registry import RawWriter, address_of, open_raw
from marketflow.sources.errors import SourceError
from marketflow.sources.kafka.resync_requests import ResyncRequests
from marketflow.sources.lines.config import is_line, parse_lines
from marketflow.sources.websocket.config import parse_live
from marketflow.sources.websocket.outbox import MAX_BYTES
from marketflow.sources.websocket.recorder import PATIENCE_S, STALL_S, Recorder

log = logging.getLogger("marketflow.record")

_TAKE_S: Final = 0.2
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNITS_S: Final = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """``patience_s``: for the very first connection; ``stall_s``: how long a slow sink may hold up
    a connection before it is given up; ``max_bytes``: of frames waiting for the sinks."""

    patience_s: float = PATIENCE_S
    stall_s: float = STALL_S
    max_bytes: int = MAX_BYTES


def seconds(name: str, text: str) -> float:
    """``90``, ``60s``, ``5m``, ``1.5h`` in seconds. UsageError says the forms."""
    match = _DURATION.fullmatch(text)
    if match is None or not float(match[1]):
        raise UsageError(f"{name} {text} is no time such as 90s, 5m or 1.5h")
    return float(match[1]) * _UNITS_S[match[2]]


def record(
    sources: Sequence[str],
    sinks: Sequence[str],
    *,
    resync: str | None = None,
    duration: str | None = None,
    until: str | None = None,
    options: RecordOptions | None = None,
    stop: threading.Event | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Record until ``duration`` or ``until`` is over, a signal comes or ``stop`` is set; returns
    the summary of ``record --json``.

    Raises UsageError (wrong use), RunFailed, or an OSError of a source or sink, with the fix in
    the text.
    """
    options = options or RecordOptions()
    if not sources or not sinks:
        raise UsageError("a recording needs at least one --source and one --sink")
    end_s = _end(duration, until)
    try:
        lines = [is_line(text) for text in sources]
        if any(lines):
            # Whoever listens and compiles loses what comes meanwhile.
            prepare([LINES], "redundant lines", console)
            if any(text.startswith("capture:") for text in sinks):
                raise UsageError("capture: cannot hold lines: record to parquet: or kafka:")
            feed = _lines(sources, lines, resync, options)
        else:
            feed = _live(sources, options)
        writers = [open_raw(text, feed.venues) for text in sinks]
        requests = None
        if resync is not None:
            assert isinstance(feed.recorder, Recorder)
            requests = _requests(resync, feed.recorder, options.patience_s)
    except (SourceError, SinkError) as error:
        raise UsageError(str(error)) from None
    work = _Recording(feed, writers, stop or threading.Event(), end_s)
    try:
        with (
            on_signals(work.stop.set),
            _RecordProgress("record", work.progress, console or Console(quiet=True)),
        ):
            work.run()
    finally:
        if requests is not None:
            requests.close()
    return work.summary(feed.addresses)


class _Feed(NamedTuple):
    """What is recorded: ``venues`` whose frames the recorder gives, ``addresses`` of its
    connections; ``arbiter``: of redundant connections among them."""

    recorder: Recorder | LinesRecorder
    venues: list[str]
    addresses: list[str]
    arbiter: RecordArbiter | None


def _live(sources: Sequence[str], options: RecordOptions) -> _Feed:
    specs = parse_live(sources)
    recorder = Recorder(
        specs,
        patience_s=options.patience_s,
        stall_s=options.stall_s,
        max_bytes=options.max_bytes,
    )
    venues = list(dict.fromkeys(spec.venue.DECODER for spec in specs))
    return _Feed(recorder, venues, [spec.shown for spec in specs], RecordArbiter(specs))


def _lines(
    sources: Sequence[str], lines: Sequence[bool], resync: str | None, options: RecordOptions
) -> _Feed:
    """Redundant lines: all sources are of one feed."""
    if not all(lines):
        raise UsageError("mold: and soup: are lines of one feed: record ws: sources apart")
    if resync is not None:
        raise UsageError("--resync: a line has no books to ask for; give rerequest=HOST:PORT")
    spec = parse_lines(sources)
    recorder = LinesRecorder(spec, patience_s=options.patience_s, max_bytes=options.max_bytes)
    return _Feed(recorder, [VENUE], [f"{line.host}:{line.port}" for line in spec.lines], None)


def _end(duration: str | None, until: str | None) -> float | None:
    """Seconds from now until the end; None: no end."""
    if duration is not None and until is not None:
        raise UsageError("--for or --until, not both")
    if duration is not None:
        return seconds("--for", duration)
    if until is None:
        return None
    try:
        left_s = (moment_ns(until) - time.time_ns()) / NS_PER_S
    except ValueError as error:
        raise UsageError(f"--until {error}") from None
    if left_s <= 0:
        raise UsageError(f"--until {until} is over: give a moment to come (UTC)")
    return left_s


def _requests(text: str, recorder: Recorder, patience_s: float) -> ResyncRequests:
    scheme, _, place = text.partition(":")
    if scheme != "kafka":
        raise UsageError(
            f"--resync {text}: requests are on a topic; write kafka://HOST:PORT/PREFIX"
        )
    return ResyncRequests(
        address_of(place, {}), lambda r: recorder.resync(r.venue, r.symbol, r.ts_recv), patience_s
    )


class _Recording:
    """The loop between a recorder and its sinks."""

    def __init__(
        self,
        feed: _Feed,
        writers: Sequence[dict[str, RawWriter]],
        stop: threading.Event,
        end_s: float | None,
    ) -> None:
        self._arbiter = feed.arbiter
        self._recorder = feed.recorder
        self._sinks = writers
        self._writers = [writer for by_venue in writers for writer in by_venue.values()]
        self._end_s = end_s
        self.stop = stop
        #: The source ended by itself: the session of the lines is over.
        self.ended = False
        self._frames: dict[str, int] = {}
        self._started_s = time.monotonic()

    def run(self) -> None:
        """Until the end, a stop, or a failure; everything taken is durable when this returns."""
        self._recorder.start()
        log.warning("recording: listening until %s", self._until())
        over_s = None if self._end_s is None else self._started_s + self._end_s
        try:
            while not (self.stop.is_set() or self._recorder.stopped) and (
                over_s is None or time.monotonic() < over_s
            ):
                self._take()
        finally:
            self.ended = self._recorder.stopped
            self._recorder.stop()
        while not self._recorder.stopped:
            self._take()
        while self._take():
            pass
        if self._arbiter is not None:
            self._write(self._arbiter.flush())
        for writer in self._writers:
            writer.close()

    def _until(self) -> str:
        return "it is stopped (Ctrl-C)" if self._end_s is None else f"{self._end_s:.0f} s are over"

    def _take(self) -> bool:
        """One round: what has come goes to every sink."""
        taken = self._recorder.poll(_TAKE_S)
        batches = taken if self._arbiter is None else self._arbiter.apply(taken)
        self._write(batches)
        if not batches:
            for writer in self._writers:
                writer.idle()
        return bool(taken)

    def _write(self, batches: dict[str, pa.RecordBatch]) -> None:
        for venue, frames in batches.items():
            for by_venue in self._sinks:
                by_venue[venue].write(frames)
            self._frames[venue] = self._frames.get(venue, 0) + frames.num_rows

    def progress(self) -> dict[str, Any]:
        """What the progress line shows."""
        reports = self._recorder.reports()
        return {
            "messages": sum(report.frames for report in reports),
            "bytes": sum(report.bytes for report in reports),
            "open": sum(report.state in ("open", "up", "lagging") for report in reports),
            "connections": len(reports),
            "reconnects": sum(max(0, report.connects - 1) for report in reports),
            "lost": self._lost(),
            "away": [
                f"{r.connection}: {r.reason or r.state}"
                for r in reports
                if r.state in ("waiting", "down")
            ],
        }

    def _lost(self) -> int:
        recorder = self._recorder
        if not isinstance(recorder, LinesRecorder):
            return 0
        return int(recorder.counts()["arbiter"]["lost"])

    def summary(self, addresses: Sequence[str]) -> dict[str, Any]:
        """The recording in numbers, a value per connection among them."""
        spent_s = time.monotonic() - self._started_s
        total = sum(self._frames.values())
        reports = [asdict(report) for report in self._recorder.reports()]
        for address, report in zip(addresses, reports, strict=True):
            report["address"] = address
        lines = self._recorder.counts() if isinstance(self._recorder, LinesRecorder) else {}
        if self._arbiter is not None and (counts := self._arbiter.stats()):
            lines = {"lines": counts}
        return {
            **lines,
            "frames": total,
            "bytes": sum(report["bytes"] for report in reports),
            "venues": dict(sorted(self._frames.items())),
            "connections": reports,
            "pauses": self._recorder.pauses,
            "stopped": self.stop.is_set(),
            "ended": self.ended and not self.stop.is_set(),
            "seconds": round(spent_s, 3),
            "frames_per_s": round(total / spent_s) if spent_s else 0,
        }


class _RecordProgress(Progress):
    """Frames, rate, connections and what is away."""

    def cells(self, state: dict[str, Any], seconds: float) -> list[Cell]:
        """What is shown, in order."""
        cells = [
            Cell(f"[bold]record[/bold] {seconds:.0f} s", 9),
            Cell(f"{quantity(state['messages'])} frames", 5),
            Cell(f"{quantity(self.rate(state['messages'], seconds))}/s", 4),
            Cell(f"{quantity(state['bytes'])}B", 1),
            Cell(f"{state['open']} of {state['connections']} open", 6),
        ]
        if state["lost"]:
            cells.append(Cell(f"[red]{state['lost']:,} LOST[/red]", 8))
        if state["reconnects"]:
            cells.append(Cell(f"[yellow]{state['reconnects']} reconnects[/yellow]", 2))
        if state["away"]:
            cells.append(Cell(f"[red]{escape(state['away'][0])}[/red]", 7))
        return cells


def print_recording(summary: dict[str, Any], console: Console) -> None:
    """The summary for people."""
    table = Table(title="recorded", title_justify="left")
    for column in ("connection", "frames", "bytes", "connects", "disconnects", "books asked for"):
        table.add_column(column, justify="left" if column == "connection" else "right")
    for report in summary["connections"]:
        numbers = [report[n] for n in ("frames", "bytes", "connects", "disconnects", "resyncs")]
        table.add_row(report["connection"], *(f"{number:,}" for number in numbers))
    console.print(table)
    for report in summary["connections"]:
        if report["refused"]:
            console.print(
                f"[yellow]{report['connection']}: the venue refused {report['refused']} "
                "requests[/yellow]"
            )
        for channel, count in report.get("channels", {}).items():
            if not count:
                console.print(
                    f"[yellow]{report['connection']}: {escape(channel)} was subscribed and has "
                    "brought nothing: is it a channel of the venue, with these symbols?[/yellow]"
                )
            elif channel:
                console.print(f"{report['connection']}: {escape(channel)} {count:,} messages")
    ending = "time is over"
    if summary["stopped"] or summary["ended"]:
        ending = "stopped" if summary["stopped"] else "the session is over"
    if "arbiter" in summary:
        told = ", ".join(
            f"{name.replace('_', ' ')} {n:,}" for name, n in summary["arbiter"].items()
        )
        console.print(told)
    console.print(
        f"{summary['frames']:,} frames in {summary['seconds']:.1f} s "
        f"({quantity(summary['frames_per_s'])}/s), {ending}"
    )


def check_recorded(summary: dict[str, Any], allow_loss: bool = False) -> None:
    """RunFailed where no connection ever came about, or messages were lost that may not be."""
    lost = summary.get("arbiter", {}).get("lost", 0)
    if lost and not allow_loss:
        raise RunFailed(
            f"{lost:,} messages were LOST: no line brought them, and no request server in time. "
            "Books are stale from there on (quality_events say where); --allow-loss makes this no "
            "failure"
        )
    if not any(report["connects"] for report in summary["connections"]):
        reasons = "; ".join(f"{r['connection']}: {r['reason']}" for r in summary["connections"])
        raise RunFailed(f"nothing was recorded: {reasons or 'no connection came about'}")
