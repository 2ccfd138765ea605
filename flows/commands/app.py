"""The command line. Every command: progress and tables on stderr, results on stdout, ``--json``.

Exit codes: 0 ok, 1 the operation failed, 2 wrong use. Heavy modules are imported by the commands
that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from marketflow.flows.catalogue import DEFAULT_FLOW, NAMES
from marketflow.flows.commands.stores import COMMANDS, LAKE, Dsn, Json, Lake, err, print_json
from marketflow.flows.commands.tables import tables
from marketflow.flows.console import show_warnings
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.options import ConfiguredGroup, settings_of_command

app = typer.Typer(
    name="marketflow",
    cls=ConfiguredGroup,
    help="Trading data as streaming dataflows: feeds to books, bars, a Parquet lake and SQL.",
    epilog="Read on: README.md, and the README page of each room.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_COMMENT = re.compile(r"--(\s|[^\n=]*\n)")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"marketflow {version('marketflow')}\n")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    events: Annotated[int, typer.Option(min=1000, help="Simulated ITCH messages.")] = 1_000_000,
    out: Annotated[Path, typer.Option(help="Where the demo's lake goes.")] = Path("lake/demo"),
    as_json: Json = False,
) -> None:
    """The main job without any server: simulated feed, real flow, lake, a printed answer."""
    from marketflow.flows.commands.demo import run_demo
    from marketflow.flows.runtime.memory import keep_memory

    keep_memory()
    run_demo(events, out, err, as_json)


@app.command()
def run(
    context: typer.Context,
    flow: Annotated[str, typer.Argument(help=f"Name of the flow: {NAMES}.")],
    source: Annotated[list[str], typer.Option(help="Where bytes come from (URL, repeatable).")],
    sink: Annotated[list[str], typer.Option(help="Where rows go (URL, repeatable).")],
    processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    recovery: Annotated[
        Path | None, typer.Option(help="Recovery folder: resume exactly after any stop or kill.")
    ] = None,
    tables: Annotated[str | None, typer.Option(help="Tables to write, comma-separated.")] = None,
    intervals: Annotated[str | None, typer.Option(help="Bar intervals, such as 1s,1m,1h.")] = None,
    shards: Annotated[int | None, typer.Option(help="Shards per feed.")] = None,
    depth_interval_ms: Annotated[
        int | None,
        typer.Option(help="Depth at most this often (event time); 0: each change."),
    ] = None,
    epoch_ms: Annotated[int | None, typer.Option(help="Time between snapshots.")] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(help="Such as 1h: states for replays that begin in mid-history."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the feeds in place of those that are there.")
    ] = False,
    strict: Annotated[
        bool, typer.Option(help="Exit 1 when there were dead letters or a book ended stale.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a flow from its sources to its sinks until they end or a signal stops it.

    A feed is in a store once (see feeds): what is there already is refused, or replaced as a whole
    with --replace.

    Sources: itch:PATH?date=YYYY-MM-DD · lobster:MESSAGES?book=BOOK&symbol=S&date=… · dbn:PATH ·
    binance:PATH?market=spot|us|usdm|coinm · capture:PATH · csv:/parquet:PATH?table=T ·
    kafka://HOST:PORT/TOPIC?from=…&to=… · sim:?events=N&seed=S. Several paths (comma-separated or
    a glob) are one continuous feed. Live feeds (ws:) are recorded first: see record.

    Sinks: parquet:DIR · timescale:DSN (once: migrate --dsn DSN; alone it is MARKETFLOW_DSN) ·
    kafka://HOST:PORT/PREFIX (once: topics --brokers HOST:PORT --prefix PREFIX) · jsonl:- or
    jsonl:PATH · null:
    """
    from marketflow.flows.commands.report import print_summary
    from marketflow.flows.runtime.memory import keep_memory
    from marketflow.flows.runtime.run import run as run_flow

    keep_memory()
    chosen = settings_of_command(
        context,
        flow,
        tables=tables,
        intervals=intervals,
        shards=shards,
        depth_interval_ms=depth_interval_ms,
        epoch_ms=epoch_ms,
        checkpoint_every=checkpoint_every,
    )
    summary = run_flow(
        flow,
        source,
        sink,
        processes=processes,
        recovery=recovery,
        replace=replace,
        settings=chosen,
        console=err,
    )
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, err)
    if strict and (summary["dead_letters"] or summary.get("stale_books")):
        raise typer.Exit(1)


@app.command()
def record(
    source: Annotated[list[str], typer.Option(help="Live feed or line (URL, repeatable).")],
    sink: Annotated[list[str], typer.Option(help="Where raw frames go (URL, repeatable).")],
    resync: Annotated[
        str | None,
        typer.Option(help="kafka://HOST:PORT/PREFIX whose resync_requests are answered."),
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="How long, such as 60s, 5m, 1h (default: no end).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until this moment (UTC, ISO).")] = None,
    patience: Annotated[
        str, typer.Option(help="For the first connection; later outages are waited out.")
    ] = "30s",
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Messages that no line brought are no failure.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Record live feeds as received, with arrival times, until --for, --until or a signal.

    Sources: ws:VENUE?symbols=A,B[&channels=book,trades,quotes][&depth=N][&line=NAME][&url=ws://…]
    [&rest=http://…], VENUE one of binance, binance_usdm, binance_coinm, bybit, bybit_linear,
    bybit_inverse, coinbase, kraken, kraken_v1, okx.
    Or the lines of one sequenced ITCH feed, arbitrated as they come:
    mold:HOST:PORT[?interface=eth0][&rerequest=HOST:PORT] (MoldUDP64),
    soup:HOST:PORT?username=…[&session=…] (SoupBinTCP).

    Sinks: kafka://HOST:PORT/raw (topics raw.<venue>; once: topics --raw VENUE) · parquet:DIR ·
    capture:PATH
    """
    from marketflow.flows.recording.record import (
        RecordOptions,
        check_recorded,
        print_recording,
        seconds,
    )
    from marketflow.flows.recording.record import record as run_record

    options = RecordOptions(patience_s=seconds("--patience", patience))
    summary = run_record(
        source, sink, resync=resync, duration=duration, until=until, options=options, console=err
    )
    if as_json:
        print_json(summary)
    else:
        print_recording(summary, err)
    check_recorded(summary, allow_loss)


@app.command()
def replay(
    context: typer.Context,
    brokers: Annotated[str, typer.Option(help="Kafka brokers, HOST:PORT[,HOST:PORT].")],
    topic: Annotated[list[str], typer.Option(help="TOPIC, or TOPIC?venue=NAME (repeatable).")],
    sink: Annotated[list[str], typer.Option(help="Where rows go (URL, repeatable).")],
    flow: Annotated[str, typer.Option(help=f"Name of the flow: {NAMES}.")] = DEFAULT_FLOW,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Time, offset, or 0:N,1:M by partition (default: the start)."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="The same, exclusive (default: the end).")
    ] = None,
    speed: Annotated[str, typer.Option(help="max, or a pace such as 1x, 10x, 0.5x.")] = "max",
    recovery: Annotated[
        Path | None, typer.Option(help="Recovery folder: resume exactly after any stop or kill.")
    ] = None,
    original: Annotated[
        Path | None,
        typer.Option("--checkpoints", help="The --recovery folder of the run that is replayed."),
    ] = None,
    end_feed: Annotated[
        bool | None,
        typer.Option(help="Whether feeds end at --to, so that open bars are written, not final."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Back-fill: put the rows in place of those there.")
    ] = False,
    tables: Annotated[str | None, typer.Option(help="Tables to write, comma-separated.")] = None,
    intervals: Annotated[str | None, typer.Option(help="Bar intervals, such as 1s,1m,1h.")] = None,
    shards: Annotated[int | None, typer.Option(help="Shards per feed.")] = None,
    as_json: Json = False,
) -> None:
    """Replay an interval of topics through a flow: the rows that the original run made there.

    The interval is a cut of the input: the rows made by the messages of each partition from --from
    on and before --to (a time: the first message at or after it). What lies before --from is read
    silently, from the newest checkpoint of the original run (--checkpoints) or from the topic's
    start, so that books, bars and row numbers are those of the original run. With --checkpoints
    shards, feeds and settings are the original run's too; without, they are those of
    run --source kafka://BROKERS/TOPIC?to=latest with these topics.
    """
    from marketflow.flows.commands.report import print_summary
    from marketflow.flows.replay.plan import Wanted
    from marketflow.flows.replay.run import Order
    from marketflow.flows.replay.run import replay as run_replay
    from marketflow.flows.runtime.memory import keep_memory

    keep_memory()
    chosen = settings_of_command(context, flow, tables=tables, intervals=intervals, shards=shards)
    wanted = Wanted(brokers, tuple(topic), start, end, end_feed, original, replace)
    order = Order(wanted, flow, tuple(sink), speed, recovery, replace, processes)
    summary = run_replay(order, settings=chosen, console=err)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, err)


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(help="A SELECT over the tables; - reads it from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the query from this file.")
    ] = None,
    lake: Lake = None,
    dsn: Dsn = None,
    output: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=0, help="Most rows of a table, 0: all (default: a screen).")
    ] = None,
) -> None:
    """Query a lake with SQL (DuckDB), or a database (--dsn). Prices are exact decimals; the same
    query has the same answer in both, <time>_epoch_ns has the nanoseconds of both.

    Without a query, on a terminal: a prompt."""
    from marketflow.flows.commands.startup import without_numpy

    with without_numpy():
        from marketflow.flows.queries.sql import given_query, print_query

    asked = given_query(query, file)
    console = Console()

    def ask(text: str, most: int | None) -> None:
        print_query(text, lake or LAKE, dsn, output, out, console, most)

    try:
        if asked is None:
            from marketflow.flows.commands.prompt import run_prompt

            run_prompt(ask, rows, err)
        else:
            ask(asked, rows)
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(130) from None


for command in COMMANDS:
    app.command()(command)


@app.command()
def warmup(as_json: Json = False) -> None:
    """Compile and cache every kernel, so that no later start waits for the compiler."""
    from marketflow.flows.commands.warmup import run_warmup

    report = run_warmup(err)
    if as_json:
        print_json(report)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: Python, packages, kernel cache, time zones, disk, a flow in small."""
    from marketflow.flows.commands.doctor import print_checks, run_checks

    checks = run_checks()
    if as_json:
        print_json(checks)
    else:
        print_checks(checks, err)
    if any(check["state"] == "failed" for check in checks):
        raise typer.Exit(1)


@app.command()
def bench(
    only: Annotated[str | None, typer.Option(help="Only benchmarks whose name has this.")] = None,
    quick: Annotated[bool, typer.Option(help="Small sizes: does it run, not how fast.")] = False,
    as_json: Json = False,
) -> None:
    """Measure every figure of the design's budgets beside its target and its peers."""
    from marketflow.flows.commands.bench import print_results, run_benchmarks

    results, failed = run_benchmarks(only=only, quick=quick, console=err)
    if as_json:
        print_json(results)
    else:
        print_results(results, Console())
    if failed:
        raise RunFailed(f"no figures of {', '.join(failed)}: see above")


app.command()(tables)


def main() -> None:
    """Console script: user errors in one clear line, never a traceback."""
    show_warnings(err)
    try:
        # A query may begin with a comment, which is no option.
        app([f" {word}" if _COMMENT.match(word) else word for word in sys.argv[1:]])
    except BrokenPipeError:
        # The reader of our output has gone: nothing to say, and nobody to say it to.
        sys.stderr.close()
        raise SystemExit(0) from None
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        err.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(code) from None


def exit_code(error: BaseException) -> int | None:
    """2 for wrong use, 1 for an operation that failed, None for a bug (keep the traceback)."""
    from marketflow.sinks.errors import SinkError
    from marketflow.sources.errors import SourceError

    if isinstance(error, UsageError | SourceError | SinkError):
        return 2
    if isinstance(error, RunFailed | OSError):
        return 1
    return None
