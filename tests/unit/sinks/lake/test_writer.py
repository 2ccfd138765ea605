"""The lake sink against a list of rows: whatever is written, snapshotted, crashed and restored."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.schemas.tables import TABLES
from marketflow.sinks.columns import take
from marketflow.sinks.errors import LakeFailed, SinkError
from marketflow.sinks.lake.compact import compact
from marketflow.sinks.lake.file import FileOptions
from marketflow.sinks.lake.writer import ParquetOptions, ParquetWriter
from tests.support.batches import Feed, Item
from tests.support.lake_model import Model, lake_rows

SMALL = ParquetOptions(
    seal_rows=300,
    seal_bytes=1 << 20,
    max_pending_bytes=200_000,
    max_partitions=20,
    log_slack_bytes=20_000,
    stage_rows=200,
    file=FileOptions(row_group_rows=64),
)


@pytest.fixture(autouse=True, scope="module")
def _no_power_failures() -> Iterator[None]:
    """Only a power failure could tell whether fsync was called; without it these run 3x faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def _items(seed: int, count: int, names: tuple[str, ...] = tuple(TABLES)) -> list[Item]:
    rng = np.random.default_rng(seed)
    feed = Feed(rng)
    items = []
    for _ in range(count):
        some = rng.choice(names, min(3, len(names)), replace=False)
        items.append(
            feed.item(int(rng.integers(-1, 3)), {n: int(rng.integers(0, 90)) for n in some})
        )
    return items


def _writer(root: Path, recovery: str | None = "r") -> ParquetWriter:
    return ParquetWriter(root, "w0", recovery, SMALL)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    model = Model()
    writer = _writer(tmp_path / "lake")
    for item in _items(1, 30):
        writer.write(item)
        model.write(item)
    writer.close()
    assert lake_rows(tmp_path / "lake") == model.rows
    assert not list((tmp_path / "lake").rglob("log-*"))


@given(seed=st.integers(0, 10**6), script=st.lists(st.sampled_from("wwwwssscrx"), max_size=18))
def test_any_crash_at_any_point_leaves_no_trace(
    tmp_path_factory: pytest.TempPathFactory, seed: int, script: list[str]
) -> None:
    """w: write, s: snapshot, c: crash and restore the last snapshot, r: the one before it,
    x: end gracefully, then resume."""
    root = tmp_path_factory.mktemp("lake")
    items = _items(seed, 12, ("bars", "trades", "dead_letters"))
    writer = _writer(root)
    at = 0
    snapshots: list[tuple[object, int]] = [(None, 0)]
    for step in script:
        if step == "w" and at < len(items):
            writer.write(items[at])
            at += 1
        elif step == "s":
            snapshots.append((writer.snapshot(), at))
        elif step in "crx":
            if step == "x":
                snapshots.append((writer.snapshot(), at))
                writer.close()
            if step == "r" and len(snapshots) > 1:
                snapshots.pop()
            writer.abandon()
            writer = _writer(root)
            state, at = snapshots[-1]
            if state is not None:
                writer.restore(state)
            snapshots = snapshots[-1:]
    for item in items[at:]:
        writer.write(item)
    writer.snapshot()
    writer.close()
    model = Model()
    for item in items:
        model.write(item)
    assert lake_rows(root) == model.rows
    assert not list(root.rglob("*.tmp"))


@pytest.mark.parametrize("snapshots_after", [0, 1])
def test_crash_after_the_end_and_before_its_snapshot_is_durable(
    tmp_path: Path, snapshots_after: int
) -> None:
    items = _items(5, 12)
    writer = _writer(tmp_path)
    for item in items[:6]:
        writer.write(item)
    state = writer.snapshot()
    for item in items[6:]:
        writer.write(item)
    for _ in range(snapshots_after):
        writer.snapshot()
    writer.close()
    for _ in range(2):
        writer = _writer(tmp_path)
        writer.restore(state)
        for item in items[6:]:
            writer.write(item)
        writer.close()
    assert lake_rows(tmp_path) == _model(items).rows


def test_running_a_finished_recovery_again_changes_nothing(tmp_path: Path) -> None:
    items = _items(6, 12)
    writer = _writer(tmp_path)
    for item in items:
        writer.write(item)
    state = writer.snapshot()
    writer.close()
    writer.finish()
    files = sorted(p for p in tmp_path.rglob("*.parquet"))
    for _ in range(3):
        writer = _writer(tmp_path)
        writer.restore(state)
        writer.close()
        writer.finish()
        assert sorted(p for p in tmp_path.rglob("*.parquet")) == files
    assert lake_rows(tmp_path) == _model(items).rows


def test_crash_before_the_first_snapshot_is_undone_by_the_same_recovery_only(
    tmp_path: Path,
) -> None:
    items = _items(7, 20)
    writer = _writer(tmp_path)
    for item in items:
        writer.write(item)
    assert list(tmp_path.rglob("*.parquet"))
    writer.abandon()  # a crash, but for the lock
    writer = _writer(tmp_path)
    for item in items:
        writer.write(item)
    writer.snapshot()
    writer.close()
    writer.finish()
    assert lake_rows(tmp_path) == _model(items).rows
    # Another recovery folder is another run: it adds, whatever happened before.
    writer = _writer(tmp_path, "another")
    writer.write(Feed(np.random.default_rng(1)).item(0, {"trades": 10}))
    writer.close()
    count = sum(len(rows) for rows in _model(items).rows.values())
    files = list(tmp_path.rglob("*.parquet"))
    assert sum(pq.ParquetFile(p).metadata.num_rows for p in files) == count + 10


def test_abandoned_run_keeps_what_its_snapshots_held(tmp_path: Path) -> None:
    items = _items(8, 20)
    writer = _writer(tmp_path, "gone")
    for item in items[:15]:
        writer.write(item)
    writer.snapshot()
    for item in items[15:]:
        writer.write(item)
    writer.abandon()  # a crash, but for the lock
    writer = _writer(tmp_path, "new")
    writer.close()
    found = lake_rows(tmp_path)
    for name, rows in _model(items[:15]).rows.items():
        assert rows.items() <= found[name].items(), name
    assert all(rows.items() <= _model(items).rows[n].items() for n, rows in found.items())
    assert not list(tmp_path.rglob("log-*"))


def test_without_a_recovery_folder_nothing_is_logged(tmp_path: Path) -> None:
    writer = _writer(tmp_path, None)
    for item in _items(9, 3):
        writer.write(item)
    assert writer.snapshot() is None
    assert not list(tmp_path.rglob("log-*"))
    writer.close()


def test_files_are_sorted_and_say_what_they_are(tmp_path: Path) -> None:
    feed = Feed(np.random.default_rng(4), days=1)
    writer = ParquetWriter(tmp_path, "w3")
    for _ in range(5):
        for shard in (2, 0, 1):
            writer.write(feed.item(shard, {"trades": 50, "bars": 20, "dead_letters": 5}))
    writer.close()
    [file] = (tmp_path / "trades" / "date=2026-01-01" / "venue=XNAS").glob("*.parquet")
    assert file.name == "w3-000001-" + file.name[-16:]
    table = pq.read_table(file)
    keys = [table[k].to_pylist() for k in ("symbol", "shard", "row_sequence")]
    times = table["ts_event"].cast(pa.int64()).to_pylist()
    rows = list(zip(keys[0], times, keys[1], keys[2], strict=True))
    assert rows == sorted(rows)
    assert table["symbol"].type == pa.string()
    assert table["ts_event"].type == pa.timestamp("ns", "UTC")
    metadata = pq.read_metadata(file).metadata
    assert metadata[b"marketflow.table"] == b"trades"
    assert metadata[b"marketflow.version"] == str(TABLES["trades"].version).encode()
    assert list((tmp_path / "dead_letters").glob("date=*/*.parquet"))


@pytest.mark.parametrize(("table", "most"), [("depth", 8192), ("trades", 32_768)])
def test_row_groups_are_small_enough_to_look_into(tmp_path: Path, table: str, most: int) -> None:
    """A book at a time decodes one group: of wide rows it holds fewer."""
    lake = tmp_path / "lake"
    for number in range(2):
        writer = ParquetWriter(lake, f"w{number}")
        writer.write(Feed(np.random.default_rng(5), days=1, venues=("V",)).item(0, {table: 40_000}))
        writer.close()
    compact(lake)
    [path] = lake.rglob("*.parquet")
    found = pq.read_metadata(path)
    groups = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    assert sum(groups) == 80_000
    assert set(groups[:-1]) == {most}


def test_late_rows_sort_too(tmp_path: Path) -> None:
    feed = Feed(np.random.default_rng(4), days=1, venues=("X",))
    first, second = feed.item(0, {"quotes": 50}), feed.item(0, {"quotes": 50})
    writer = _writer(tmp_path)
    for item in (first, second):  # each spans the whole day: times of one symbol go backwards
        writer.write(item)
    writer.close()
    [file] = (tmp_path / "quotes").rglob("*.parquet")
    table = pq.read_table(file)
    times = table["ts_event"].cast(pa.int64()).to_pylist()
    rows = list(zip(table["symbol"].to_pylist(), times, strict=True))
    assert rows == sorted(rows)


def test_old_rows_become_visible_without_new_ones(tmp_path: Path) -> None:
    feed = Feed(np.random.default_rng(4))
    writer = ParquetWriter(tmp_path, "w0", "r", ParquetOptions(seal_after_s=1e-9))
    writer.write(feed.item(0, {"quotes": 50}))
    writer.snapshot()
    assert list(tmp_path.rglob("*.parquet"))


def test_pending_rows_are_bounded(tmp_path: Path) -> None:
    feed = Feed(np.random.default_rng(4), days=16)
    writer = _writer(tmp_path)
    for _ in range(12):
        writer.write(feed.item(0, {"quotes": 100}))
    writer.snapshot()
    assert len(writer._pending.partitions) <= SMALL.max_partitions
    assert writer._pending.bytes <= SMALL.max_pending_bytes
    for _ in range(30):
        writer.write(feed.item(0, {"quotes": 20}))
        writer.snapshot()
    [log] = tmp_path.rglob("log-*")
    assert log.stat().st_size < 10 * SMALL.max_pending_bytes


def test_two_writers_share_a_lake_but_not_a_name(tmp_path: Path) -> None:
    feeds = [Feed(np.random.default_rng(n)) for n in (0, 1)]
    one, two = ParquetWriter(tmp_path, "w0", "r"), ParquetWriter(tmp_path, "w1", "r")
    one.write(feeds[0].item(0, {"trades": 100}))
    two.write(feeds[1].item(1, {"trades": 100}))
    state = one.snapshot()
    one.close()
    with pytest.raises(SinkError, match=r"being written by process \d+"):
        ParquetWriter(tmp_path, "w1").write(Feed(np.random.default_rng(2)).item(0, {"trades": 1}))
    again = ParquetWriter(tmp_path, "w0", "r")
    again.restore(state)
    again.close()
    two.close()
    assert len(lake_rows(tmp_path)["trades"]) == 200


def test_refuses_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SinkError, match="not empty and no marketflow lake"):
        _writer(tmp_path).write(_items(1, 1)[0])
    lake = tmp_path / "lake"
    _writer(lake).close()
    (lake / "_marketflow" / "lake.json").write_text('{"format": 99}')
    with pytest.raises(SinkError, match="format 99"):
        _writer(lake).write(_items(1, 1)[0])
    with pytest.raises(SinkError, match="is a file"):
        _writer(tmp_path / "letter.txt").write(_items(1, 1)[0])
    with pytest.raises(SinkError, match="would take the folder symbol=X for a column"):
        _writer(tmp_path / "symbol=X" / "lake").write(_items(1, 1)[0])


def test_refuses_a_snapshot_that_does_not_fit(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "one")
    writer.write(_items(2, 1)[0])
    state = writer.snapshot()
    writer.abandon()
    with pytest.raises(SinkError, match="moved or emptied"):
        _writer(tmp_path / "other").restore(state)
    for log in (tmp_path / "one").rglob("log-*"):
        log.unlink()
    with pytest.raises(SinkError, match="older than the recovery folder"):
        _writer(tmp_path / "one").restore(state)
    with pytest.raises(SinkError, match="format"):
        _writer(tmp_path / "one").restore((99,))


def test_refuses_a_rollback_behind_what_is_committed(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    items = _items(3, 30)
    old = None
    for item in items:
        writer.write(item)
        old = old or writer.snapshot()
        writer.snapshot()
    writer.abandon()
    with pytest.raises(SinkError, match="older than what"):
        _writer(tmp_path).restore(old)


def test_full_disk_is_one_clear_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = _items(4, 20)
    writer = _writer(tmp_path)
    for item in items[:10]:
        writer.write(item)
    state = writer.snapshot()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_batch", full)
        with pytest.raises(LakeFailed, match=r"cannot write .*parquet: No space left.*--recovery"):
            for item in items[10:]:
                writer.write(item)
            writer.close()
        with pytest.raises(LakeFailed, match="No space left"):
            writer.write(items[0])
    again = _writer(tmp_path)
    again.restore(state)
    for item in items[10:]:
        again.write(item)
    again.close()
    assert lake_rows(tmp_path) == _model(items).rows


def test_a_gap_in_the_rows_is_a_bug(tmp_path: Path) -> None:
    feed = Feed(np.random.default_rng(0))
    writer = _writer(tmp_path)
    writer.write(feed.item(0, {"trades": 5}))
    feed.item(0, {"trades": 5})
    with pytest.raises(AssertionError, match="trades, shard 0"):
        writer.write(feed.item(0, {"trades": 5}))


def test_batch_borders_do_not_matter(tmp_path: Path) -> None:
    whole = Feed(np.random.default_rng(0)).item(0, {"book_events": 5000})
    chance = random.Random(0)
    for name, cut in (("one", False), ("many", True)):
        writer = _writer(tmp_path / name)
        batch, at = whole.tables["book_events"], 0
        while at < batch.num_rows:
            n = chance.randint(1, 700) if cut else batch.num_rows
            writer.write(Item(0, {"book_events": batch.slice(at, n)}))
            at += n
        writer.close()
    assert lake_rows(tmp_path / "one") == lake_rows(tmp_path / "many")


def _model(items: list[Item]) -> Model:
    model = Model()
    for item in items:
        model.write(item)
    return model


def test_full_lists_are_taken_like_any_others() -> None:
    feed = Feed(np.random.default_rng(0))
    batch = feed.batch(TABLES["depth"], 0, 50)
    offsets = pa.array(np.arange(0, 51 * 4, 4), pa.int32())
    for column in (batch.column("bid_prices"), batch.column("ask_counts")):
        values = pa.concat_arrays([column.flatten(), column.flatten(), column.flatten()])[:200]
        full = pa.ListArray.from_arrays(offsets, values, type=column.type)
        for lists in (column, full, full.slice(7, 30), full.slice(3, 0), column.slice(5)):
            rows = np.random.default_rng(1).permutation(len(lists))
            assert take([lists], rows)[0].to_pylist() == lists.take(pa.array(rows)).to_pylist()
