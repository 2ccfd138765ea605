"""Compaction: the same rows in fewer files, beside writers, through crashes, for any reader."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketflow.sinks.errors import LakeFailed, SinkError
from marketflow.sinks.lake import layout as lake_module
from marketflow.sinks.lake.compact import CompactOptions, compact, drop_before
from marketflow.sinks.lake.layout import list_files
from marketflow.sinks.lake.writer import ParquetWriter
from tests.support.lake_model import lake_rows
from tests.support.many_files import EAGER, write_files, written_lake


def test_merges_and_keeps_every_row_sorted(tmp_path: Path) -> None:
    root = written_lake(tmp_path)
    before = lake_rows(root)
    report = compact(root)
    assert lake_rows(root) == before
    assert report["files_before"] > 40
    assert report["files_after"] == 10  # trades, bars: 2 dates x 2 venues; dead_letters: 2 dates
    assert report["files_merged"] == report["files_before"]
    assert report["bytes_after"] < report["bytes_before"]
    [file] = (root / "trades/date=2026-01-02/venue=BINANCE").iterdir()
    table = pq.read_table(file)
    times = table["ts_event"].cast(pa.int64()).to_pylist()
    keys = list(zip(table["symbol"].to_pylist(), times, strict=True))
    assert keys == sorted(keys)
    again = compact(root)
    assert again["files_merged"] == 0


def test_targets_bound_a_merged_file(tmp_path: Path) -> None:
    root = written_lake(tmp_path)
    before = lake_rows(root)
    compact(root, CompactOptions(target_rows=100))
    assert lake_rows(root) == before
    sizes = [pq.read_metadata(p).num_rows for p in list_files(root, "trades")]
    assert max(sizes) <= 100
    assert sorted(sizes)[-2] > 50


def test_leaves_alone_what_a_running_writer_may_undo(tmp_path: Path) -> None:
    writer = write_files(tmp_path, recovery="r")
    state = writer.snapshot()
    untouchable = {p for p in tmp_path.rglob("w0-*.parquet") if _number(p) >= _safe(writer)}
    before = lake_rows(tmp_path)
    assert compact(tmp_path)["files_merged"] > 0
    assert untouchable <= set(tmp_path.rglob("w0-*.parquet"))
    assert lake_rows(tmp_path) == before
    writer.abandon()
    again = ParquetWriter(tmp_path, "w0", "r", EAGER)
    again.restore(state)
    again.close()
    assert lake_rows(tmp_path) == before
    again.finish()
    compact(tmp_path)
    assert not list(tmp_path.rglob("w0-*.parquet"))
    assert lake_rows(tmp_path) == before
    # Even the finished recovery can be run once more after that.
    last = ParquetWriter(tmp_path, "w0", "r", EAGER)
    last.restore(state)
    last.close()
    assert lake_rows(tmp_path) == before


def test_an_ended_run_may_still_be_undone_until_it_is_finished(tmp_path: Path) -> None:
    writer = write_files(tmp_path, recovery="r", items=2)
    writer.close()
    assert compact(tmp_path)["files_merged"] == 0
    writer.finish()
    assert compact(tmp_path)["files_merged"] > 0


def _safe(writer: ParquetWriter) -> int:
    assert writer._run is not None
    assert writer._run.progress.safe_below > 0
    return writer._run.progress.safe_below


def _number(path: Path) -> int:
    return int(path.stem.split("-")[-1])


class _Crash(BaseException):
    """A death of the process: nothing catches it."""


def _count_steps(root: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int) -> int:
    """Run a compaction that dies at the ``crash_at``-th change of a name on disk."""
    steps = 0

    def guard(original):
        def step(*args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == crash_at:
                raise _Crash
            return original(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", guard(Path.replace))
        patch.setattr(Path, "unlink", guard(Path.unlink))
        patch.setattr(Path, "rmdir", guard(Path.rmdir))
        try:
            compact(root, CompactOptions(target_rows=400))
            drop_before(root, "bars", date(2026, 1, 2))
        except _Crash:
            pass
    return steps


def test_a_crash_at_any_step_shows_no_row_twice_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    write_files(first, items=3).close()
    before = lake_rows(first)
    after = {k: v for k, v in before.items() if k != "bars"}
    after["bars"] = {k: r for k, r in before["bars"].items() if r[-1] >= date(2026, 1, 2)}
    for crash_at in range(1, 500):
        root = tmp_path / str(crash_at)
        shutil.copytree(first, root)
        steps = _count_steps(root, monkeypatch, crash_at)
        found = lake_rows(root)
        assert found["trades"] == before["trades"], crash_at
        assert found["bars"] in (before["bars"], after["bars"]) or _one_partition_less(
            found["bars"], before["bars"], after["bars"]
        )
        compact(root)
        drop_before(root, "bars", date(2026, 1, 2))
        assert lake_rows(root) == after, crash_at
        assert not list(root.rglob(".merged-*"))
        if steps < crash_at:
            break
    else:
        pytest.fail("never came to the end")


def _one_partition_less(found: dict, before: dict, after: dict) -> bool:
    """Retention goes partition by partition, each at once."""
    gone = before.keys() - found.keys()
    venue = 4
    venues = {before[key][venue] for key in gone}
    return len(venues) == 1 and gone == {
        k for k in before.keys() - after.keys() if before[k][venue] in venues
    }


def test_readers_beside_a_compaction_see_each_row_once(tmp_path: Path) -> None:
    root = written_lake(tmp_path)
    before = sorted(lake_rows(root)["trades"])
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                found = [
                    key
                    for path in list_files(root, "trades")
                    for key in zip(
                        *(
                            pq.read_table(path, partitioning=None)[c].to_pylist()
                            for c in ("shard", "row_sequence")
                        ),
                        strict=True,
                    )
                ]
            except FileNotFoundError:
                continue  # removed between listing and opening: a reader lists again
            if sorted(found) != before:
                wrong.append(len(found))

    reader = threading.Thread(target=read)
    reader.start()
    for target in (100, 200, 400, 10_000):
        compact(root, CompactOptions(target_rows=target))
    stop.set()
    reader.join()
    assert not wrong


def test_retention_drops_whole_dates(tmp_path: Path) -> None:
    root = written_lake(tmp_path)
    assert drop_before(root, "trades", date(2026, 1, 1)) == 0
    dropped = drop_before(root, "trades", date(2026, 1, 2))
    assert dropped > 2
    assert {row[-1] for row in lake_rows(root)["trades"].values()} == {date(2026, 1, 2)}
    assert not (root / "trades" / "date=2026-01-01").exists()
    assert {row[-1] for row in lake_rows(root)["bars"].values()} == {
        date(2026, 1, 1),
        date(2026, 1, 2),
    }
    with pytest.raises(SinkError, match="no table 'tradez'"):
        drop_before(root, "tradez", date(2026, 1, 2))


def test_one_compaction_at_a_time(tmp_path: Path) -> None:
    root = written_lake(tmp_path)
    with (root / "_marketflow" / "compact.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SinkError, match="another compaction"):
            compact(root)


def test_errors_name_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SinkError, match="no lake at"):
        compact(tmp_path / "nowhere")
    root = written_lake(tmp_path / "lake")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = lake_rows(root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LakeFailed, match=r"lake.*No space left"):
            compact(root)
    assert lake_rows(root) == before
    compact(root)
    assert lake_rows(root) == before


def test_listing_gives_up_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = written_lake(tmp_path)
    numbers = iter(range(10_000))
    monkeypatch.setattr(
        lake_module, "read_journal", lambda _: {"sequence": next(numbers), "pending": []}
    )
    monkeypatch.setattr(lake_module, "_LISTING_PAUSE_S", 0)
    with pytest.raises(LakeFailed, match="cannot list"):
        list_files(root, "trades")
