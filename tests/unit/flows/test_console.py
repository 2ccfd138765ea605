"""The line that people see while a run works, and the summary after it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from marketflow.flows.catalogue import DEFAULT_FLOW, find
from marketflow.flows.commands.report import print_summary
from marketflow.flows.console import Progress, fitted
from marketflow.flows.runtime.stats import RunStats, merge_progress, merge_summaries
from marketflow.operators.events import Rows
from marketflow.sources.engine import FeedSource
from marketflow.sources.reader import Limits
from marketflow.sources.registry import parse_source


def _state(**more: Any) -> dict[str, Any]:
    return {
        "messages": 1_234_567, "tables": {"trades": 10, "quotes": 5_000_000}, "dead_letters": {},
        "last_event_ns": 1_700_000_000 * 10**9, **more,
    }  # fmt: skip


def _progress() -> Progress:
    return Progress("market_data", dict, Console(quiet=True))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_line_fits_and_what_matters_stays(width: int) -> None:
    state = _state(
        dead_letters={"bad_price": 12}, stale_books=3, read=30, to_read=100, compiling="engine.run"
    )
    progress = _progress()
    progress.cells({**state, "read": 10}, 10.0)
    line = fitted(progress.cells(state, 20.0), width - 1)
    assert line.cell_len < width
    assert "\n" not in line.plain
    assert line.plain.startswith("market_data")
    if width >= 80:
        assert "30 %, 0:00:35 left" in line.plain
        assert "12 dead letters" in line.plain
    if width >= 200:
        assert "at 2023-11-14 22:13:20" in line.plain
        assert "3 stale" in line.plain


def test_a_rate_is_of_the_last_seconds_and_does_not_end_at_zero() -> None:
    progress = _progress()
    for tick in range(1, 21):
        rate = progress.rate(1000 * tick, 0.5 * tick)
    assert rate == pytest.approx(2000)
    for tick in range(21, 60):
        rate = progress.rate(20_000, 0.5 * tick)
    assert rate == pytest.approx(20_000 / (0.5 * 59))


def test_messages_of_an_earlier_start_are_in_no_rate() -> None:
    progress = _progress()
    cells = progress.cells(_state(earlier_messages=1_234_567), 1.0)
    assert "0/s" in [cell.text for cell in cells]


@pytest.mark.parametrize("rows", [1, 5000])
def test_a_file_is_read_from_none_to_all(rows: int, tmp_path: Path) -> None:
    feed = tmp_path / "feed.lines"
    feed.write_text(f'1723161254036059768 {{"e":{"9" * 100}}}\n' * 300)
    limits = Limits(max_rows=rows, max_bytes=4096)
    for text in (f"binance:{feed}?market=spot", f"binance:{feed},{feed}?market=spot", "sim:"):
        source = FeedSource([parse_source(text)], threading.Event(), limits=limits)
        assert source.progress() == {}
        part = source.build_part("feed", "0", None)
        seen = [source.progress()["read"]]
        whole = source.progress()["to_read"]
        try:
            while text != "sim:" or len(seen) < 5:
                part.next_batch()
                seen.append(source.progress()["read"])
        except StopIteration:
            assert seen[-1] == whole == feed.stat().st_size * (1 + text.count(","))
        assert seen == sorted(seen)
        assert 0 <= seen[0] < whole
        part.close()


def _quality(*rows: tuple[str, str]) -> Rows:
    kinds, symbols = zip(*rows, strict=True)
    columns = {
        "kind": pa.array(kinds).dictionary_encode(),
        "venue": pa.array(["XNAS"] * len(rows)).dictionary_encode(),
        "symbol": pa.array(symbols).dictionary_encode(),
    }
    stale = sum(kind == "stale" for kind in kinds) - sum(kind == "valid" for kind in kinds)
    batch = pa.RecordBatch.from_pydict(columns)
    return Rows(3, {"quality_events": batch}, {"messages": 100, "stale_books": stale})


def _summary(stats: RunStats) -> dict[str, Any]:
    figures = {"seconds": 2.0, "messages_per_s": 50, "compile_s": 0.0, "stopped": False}
    return {"flow": "market_data", **stats.summary(), **figures}


def _printed(summary: dict[str, Any]) -> str:
    console = Console(record=True, quiet=False, width=80, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_summary(summary, console)
    return console.export_text()


def test_stale_books_are_named_and_only_faults_are_among_the_faults() -> None:
    stats = RunStats(find(DEFAULT_FLOW))
    stats.write(_quality(("gap", "AAPL"), ("stale", "AAPL"), ("stale", "MSFT"), ("stale", "IBM")))
    stats.write(_quality(("valid", "MSFT")))
    stats.levels["stale_books"] = {3: 2}
    text = _printed(_summary(stats))
    assert "2 books are stale at the end: XNAS AAPL, XNAS IBM" in text
    faults = text.partition("count")[2].partition("stale at")[0]
    assert "gap" in faults
    assert "valid" not in faults
    assert faults.count("stale") == 0
    again = RunStats(find(DEFAULT_FLOW))
    again.restore(stats.snapshot())
    assert again.summary()["stale"] == stats.summary()["stale"]
    whole = RunStats(find(DEFAULT_FLOW))
    whole.restore(stats.reassign([stats.snapshot()], lambda shard: shard != 3))
    assert whole.summary()["stale"] == []
    assert merge_summaries([stats.summary(), again.summary()])["stale"] == [
        "XNAS AAPL", "XNAS AAPL", "XNAS IBM", "XNAS IBM",
    ]  # fmt: skip


def test_a_finished_run_says_that_nothing_is_new() -> None:
    stats = RunStats(find(DEFAULT_FLOW))
    stats.write(_quality(("gap", "AAPL")))
    assert "100 messages in 2.0 s" in _printed(_summary(stats))
    again = RunStats(find(DEFAULT_FLOW))
    again.restore(stats.snapshot())
    assert _printed(_summary(again)).startswith("nothing new: this run has read its input to the")
    again.write(_quality(("gap", "AAPL")))
    assert "100 messages more, 200 messages in all, in 2.0 s" in _printed(_summary(again))


def test_several_processes_show_one_progress() -> None:
    one, two = RunStats(find(DEFAULT_FLOW)).progress(), RunStats(find(DEFAULT_FLOW)).progress()
    one |= {"messages": 3, "last_event_ns": 7, "compiling": "", "compile_s": 1.0}
    two |= {"messages": 4, "last_event_ns": 5, "compiling": "engine.run", "compile_s": 2.5}
    merged = merge_progress([one, two])
    assert (merged["messages"], merged["last_event_ns"]) == (7, 7)
    assert (merged["compiling"], merged["compile_s"]) == ("engine.run", 2.5)
