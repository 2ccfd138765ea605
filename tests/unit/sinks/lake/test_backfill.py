"""Back-fill of a lake: an interval's rows in place of others, all of them or none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from marketflow.sinks.errors import LakeFailed, SinkError
from marketflow.sinks.lake.backfill import Arrived, aside, replace
from marketflow.sinks.lake.compact import compact
from marketflow.sinks.lake.writer import ParquetOptions, ParquetWriter
from tests.support.batches import Feed, Item
from tests.support.lake_model import LakeRows, lake_rows

_OPTIONS = ParquetOptions(seal_rows=60, stage_rows=20, snapshot_divisor=1)


def _items(seed: int) -> list[Item]:
    """The same identities for every seed, with other values."""
    feed = Feed(np.random.default_rng(seed))
    return [feed.item(number % 2, {"trades": 50, "dead_letters": 20}) for number in range(12)]


def _write(root: Path, items: list[Item], recovery: str | None = None) -> ParquetWriter:
    writer = ParquetWriter(root, "w0", recovery, _OPTIONS, midway=True)
    for item in items:
        writer.write(item)
        writer.snapshot()
    return writer


def _damaged(root: Path) -> LakeRows:
    """A lake whose middle has other values, with the right one waiting aside; the right lake."""
    right, wrong = _items(1), _items(2)
    _write(root.with_name(f"{root.name}-right"), right).close()
    _write(root, [*right[:4], *wrong[4:8], *right[8:]]).close()
    _write(aside(root, "k"), right[4:8], "recovery").close()
    return lake_rows(root.with_name(f"{root.name}-right"))


def test_replaces_the_interval_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    right = _damaged(root)
    wrong = lake_rows(root)
    assert wrong != right
    report = replace(root, "k")
    assert report == {"rows_replaced": 280, "rows_written": 280}
    assert lake_rows(root) == right
    assert replace(root, "k") == {"rows_replaced": 0, "rows_written": 0}
    compact(root)
    assert lake_rows(root) == right
    assert not list(root.rglob("*backfill*"))


def test_fills_what_is_missing(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    items = _items(1)
    _write(root, items[:4]).close()
    _write(root, items[6:]).close()
    _write(aside(root, "k"), items[4:6]).close()
    replace(root, "k")
    _write(tmp_path / "right", items).close()
    assert lake_rows(root) == lake_rows(tmp_path / "right")


class _Crash(BaseException):
    """A death of the process: nothing catches it."""


def _die_at(root: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int) -> bool:
    """A back-fill that dies at that change of a name on disk; whether it came so far."""
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
        for name in ("replace", "unlink", "hardlink_to", "rename"):
            patch.setattr(Path, name, guard(getattr(Path, name)))
        try:
            replace(root, "k")
        except (_Crash, LakeFailed):
            return True
    return False


def test_a_crash_anywhere_leaves_the_old_lake_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = [Feed(np.random.default_rng(seed), days=1, venues=("XNAS",)) for seed in (1, 2)]
    right, wrong = ([feed.item(0, {"trades": 9}) for _ in range(9)] for feed in feeds)
    _write(tmp_path / "right", right).close()
    _write(tmp_path / "lake", [*right[:3], *wrong[3:6], *right[6:]]).close()
    _write(aside(tmp_path / "lake", "k"), right[3:6]).close()
    right, wrong = lake_rows(tmp_path / "right"), lake_rows(tmp_path / "lake")
    seen = set()
    for crash_at in range(1, 500):
        root = tmp_path / str(crash_at)
        shutil.copytree(tmp_path / "lake", root)
        died = _die_at(root, monkeypatch, crash_at)
        found = lake_rows(root)
        assert found in (wrong, right), crash_at
        seen.add(found == right)
        replace(root, "k")
        assert lake_rows(root) == right, crash_at
        compact(root)
        assert not list(root.rglob(".merged-*"))
        shutil.rmtree(root)
        if not died:
            break
    else:
        pytest.fail("never came to the end")
    assert seen == {True, False}


def test_a_lake_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    _damaged(root)
    before = lake_rows(root)
    writer = _write(root, _items(3)[:1])
    with pytest.raises(SinkError, match="is being written by process"):
        replace(root, "k")
    writer.abandon()
    assert lake_rows(root) == before


def test_a_run_that_was_cut_off_goes_first(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    cut_off = _write(root, _items(1), "its recovery folder")
    state = cut_off.snapshot()
    cut_off.abandon()
    _write(aside(root, "k"), _items(1)[:2]).close()
    with pytest.raises(SinkError, match="cut off: start it again with its --recovery"):
        replace(root, "k")
    again = ParquetWriter(root, "w0", "its recovery folder", _OPTIONS, midway=True)
    again.restore(state)
    again.close()
    again.finish()
    assert replace(root, "k")["rows_replaced"] == 140
    _write(tmp_path / "right", _items(1)).close()
    assert lake_rows(root) == lake_rows(tmp_path / "right")


def test_rows_of_several_runs_cannot_be_told_apart(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    for seed in (1, 2):
        _write(root, _items(seed)).close()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
    _write(aside(root, "k"), _items(1)[4:8]).close()
    with pytest.raises(SinkError, match="several runs over the same feed"):
        replace(root, "k")
    after = {path: path.stat().st_mtime_ns for path in root.rglob("[!.]*.parquet")}
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("rows", "fits"), [((10, 20), True), ((10, 21), False), ((10, 19), False), ((9, 20), False)]
)
def test_an_interval_that_has_another_number_of_rows(
    tmp_path: Path, rows: tuple[int, int], fits: bool
) -> None:
    """Row n arrived at n seconds, and the interval is that from 10 to 20."""
    root = tmp_path / "lake"
    feed = Feed(np.random.default_rng(1), days=1, venues=("XNAS",))
    trades = feed.item(0, {"trades": 40}).tables["trades"]
    place = trades.schema.get_field_index("ts_recv")
    stamps = pa.array(np.arange(40) * 10**9).cast(trades.schema.field(place).type)
    trades = trades.set_column(place, trades.schema.field(place), stamps)
    _write(root, [Item(0, {"trades": trades})]).close()
    before = lake_rows(root)
    first, end = rows
    _write(aside(root, "k"), [Item(0, {"trades": trades.slice(first, end - first)})]).close()
    interval = Arrived(10_000, 20_000)
    if fits:
        assert replace(root, "k", interval)["rows_replaced"] == 10
    else:
        with pytest.raises(SinkError, match="another number of rows of trades"):
            replace(root, "k", interval)
    assert lake_rows(root) == before
