"""What every store that knows its feeds must show: rows have a name for life, and are there once.

The files with tests inherit :class:`FeedsContract` and give its ``store``.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from marketflow.flows.commands.feeds import known_feeds
from marketflow.flows.errors import UsageError
from marketflow.flows.runtime.run import run
from marketflow.schemas.shards import feed_of
from marketflow.sinks.lake.layout import is_lake
from marketflow.sinks.lineage import writers_of
from tests.support.chance import chance
from tests.support.lake_model import LakeRows, lake_rows
from tests.support.patience import PATIENCE_S, until

#: A simulated feed, long enough to be killed in the middle.
LONG = "sim:?events=10000&symbols=12&seed=5"
#: To be frozen in the middle.
LONGER = "sim:?events=30000&symbols=12&seed=5"
#: Small batches and epochs: there are hundreds of moments to die at.
EAGER = {"MARKETFLOW_EPOCH_MS": "40", "MARKETFLOW_BATCH_ROWS": "300"}
_HEADER = "ts_event,venue,symbol,price,size,aggressor_side,trade_id"
_DAY_S = 86_400
_START_S = 1_772_000_000


class Store(ABC):
    """A store of the test's own."""

    #: Of a sink; more parameters may follow a "&".
    url: str

    @abstractmethod
    def rows(self) -> LakeRows:
        """Every row, by table and identity; a row that is there twice is an error."""

    @abstractmethod
    def feeds(self) -> list[dict[str, Any]]:
        """The table ``feeds``."""

    @abstractmethod
    def fresh(self) -> Store:
        """Another one, empty."""

    def counts(self) -> dict[int, dict[str, int]]:
        """Rows by feed and table, as ``feeds`` tells."""
        return {feed["feed"]: feed["rows"] for feed in self.feeds() if feed["rows"]}

    def counted(self) -> dict[int, dict[str, int]]:
        """Rows by feed and table, counted."""
        found: dict[int, Counter[str]] = {}
        for table, rows in self.rows().items():
            for shard, _ in rows:
                found.setdefault(feed_of(shard), Counter())[table] += 1
        return {number: dict(tables) for number, tables in found.items()}

    def of_feed(self, number: int) -> LakeRows:
        """The rows of one feed."""
        return {
            table: {key: row for key, row in rows.items() if feed_of(key[0]) == number}
            for table, rows in self.rows().items()
        }


class LakeStore(Store):
    """A lake."""

    def __init__(self, folder: Path, name: str = "lake") -> None:
        self._folder = folder
        self.lake = folder / name
        self.url = f"parquet:{self.lake}?seal_rows=2000"

    def rows(self) -> LakeRows:
        found = lake_rows(self.lake) if is_lake(self.lake) else {}
        return {name: {key: row[:-1] for key, row in rows.items()} for name, rows in found.items()}

    def feeds(self) -> list[dict[str, Any]]:
        return known_feeds(self.lake, None) if is_lake(self.lake) else []

    def fresh(self) -> Store:
        return LakeStore(self._folder, f"lake-{time.monotonic_ns()}")


def day_file(folder: Path, day: int, trades: int = 60, text: str = "") -> Path:
    """A day of trades as CSV; ``text`` marks them."""
    lines = [
        f"{(_START_S + day * _DAY_S + i) * 10**9},TEST,SYM{i % 5},{100 + i}.5,{1 + i},buy,{text}{i}"
        for i in range(trades)
    ]
    path = folder / f"day-{day:02d}{text}.csv"
    path.write_text("\n".join([_HEADER, *lines, ""]))
    return path


def csv(path: Path, more: str = "") -> str:
    return f"csv:{path}?table=trades{more}"


def load(store: Store, source: str | Sequence[str], **options: Any) -> dict[str, Any]:
    """A run to its end, in this process."""
    sources = [source] if isinstance(source, str) else source
    return run("market_data", sources, [store.url], **options)


def started(store: Store, source: str, *more: str) -> subprocess.Popen[str]:
    """A run that has begun in a process of its own."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "marketflow", "run", "market_data", "--json",
            "--source", source, "--sink", store.url, *more,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **EAGER},
    )  # fmt: skip


def ended(child: subprocess.Popen[str], code: int = 0) -> str:
    """What it said on stderr."""
    _, said = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == code, said
    return said


def states(store: Store) -> list[str]:
    return [feed["state"] for feed in store.feeds()]


class FeedsContract:
    """Inherited by a class per kind of store."""

    def test_the_same_file_is_loaded_once_whatever_it_is_called(
        self, store: Store, tmp_path: Path
    ) -> None:
        path = day_file(tmp_path, 0)
        load(store, csv(path))
        before = store.rows()
        (feed,) = store.feeds()
        assert (feed["state"], feed["venue"], feed["rows"]["trades"]) == ("complete", None, 60)
        assert feed["source"] == csv(path)
        assert store.counts() == store.counted()

        copied, packed, grown = tmp_path / "copy.csv", tmp_path / "x.gz", tmp_path / "grown.csv"
        shutil.copy(path, copied)
        packed.write_bytes(gzip.compress(path.read_bytes()))
        grown.write_text(path.read_text() + day_file(tmp_path, 3).read_text().split("\n", 1)[1])
        again = [csv(path), csv(copied), csv(packed), csv(grown)]
        for source in again:
            with pytest.raises(UsageError, match=r"already .* whole.*--recovery.*--replace.*id="):
                load(store, source)
        # Among others, and twice in one start.
        lone = csv(day_file(tmp_path, 7))
        with pytest.raises(UsageError, match="already"):
            load(store, f"csv:{tmp_path}/[cd]*.csv?table=trades")
        with pytest.raises(UsageError, match=r"have .*day-07.csv in common: leave it out"):
            load(store, [lone, f"csv:{tmp_path}/day-0[37].csv?table=trades"])
        assert store.rows() == before
        # What its remedy says: two that only begin alike.
        load(store, csv(copied, "&id=second"))
        assert store.counts() == store.counted()
        assert len(store.rows()["trades"]) == 120

    def test_rows_have_the_same_names_in_every_store(self, store: Store, tmp_path: Path) -> None:
        days = [day_file(tmp_path, day) for day in range(3)]
        for path in days:
            load(store, csv(path))
        moved = tmp_path / "moved"
        moved.mkdir()
        other = store.fresh()
        load(other, [csv(path.rename(moved / path.name)) for path in reversed(days)])
        assert {k: v for k, v in store.rows().items() if k != "dead_letters"} == other.rows()

    def test_a_run_that_was_cut_off_is_resumed_or_replaced(
        self, store: Store, tmp_path: Path
    ) -> None:
        calm = store.fresh()
        load(calm, LONGER)
        recovery = ["--recovery", str(tmp_path / "recovery")]
        child = started(store, LONGER, *recovery)
        _until_rows(child, store)
        child.send_signal(signal.SIGSTOP)
        assert states(store) == ["running"]
        said = ended(started(store, LONGER), 2)
        assert "is being loaded by another run" in said
        with pytest.raises(UsageError, match="is being loaded by another run"):
            load(store, LONGER, recovery=tmp_path / "other", replace=True)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        until(lambda: states(store) == ["cut off"], "the lock of a dead run to go")
        assert store.counts() == store.counted()
        with pytest.raises(UsageError, match=r"already .* in part: a run was cut off.*--recovery"):
            load(store, LONGER)
        ended(started(store, LONGER, *recovery))
        assert states(store) == ["complete"]
        assert store.rows() == calm.rows()
        assert store.counts() == store.counted()

    def test_counts_are_those_of_the_rows_whenever_it_is_killed(
        self, store: Store, tmp_path: Path
    ) -> None:
        recovery = ["--recovery", str(tmp_path / "recovery")]
        luck = chance()
        for _ in range(2):
            child = started(store, LONG, *recovery, "--processes", "2")
            _until_rows(child, store)
            with suppress(subprocess.TimeoutExpired):
                child.wait(luck.uniform(0.0, 1.5))
            child.kill()
            child.communicate()
            assert store.counts() == store.counted()
        ended(started(store, LONG, *recovery, "--processes", "2"))
        assert store.counts() == store.counted()
        assert states(store) == ["complete"]

    def test_two_feeds_at_the_same_time(self, store: Store, tmp_path: Path) -> None:
        other = "sim:?events=8000&symbols=12&seed=6"
        children = [started(store, source) for source in (LONG, other)]
        for child in children:
            ended(child)
        assert states(store) == ["complete", "complete"]
        assert len(store.counts()) == 2
        assert store.counts() == store.counted()
        alone = store.fresh()
        load(alone, other)
        (number,) = alone.counts()
        assert store.of_feed(number) == alone.rows()

    def test_of_simultaneous_starts_one_wins(self, store: Store, tmp_path: Path) -> None:
        source = csv(day_file(tmp_path, 0, 3000))
        children = [started(store, source) for _ in range(3)]
        said = [child.communicate(timeout=PATIENCE_S)[1] for child in children]
        codes = sorted(child.returncode for child in children)
        assert codes == [0, 2, 2], said
        assert store.counts() == store.counted()
        assert sum(len(rows) for rows in store.rows().values()) == sum(
            sum(tables.values()) for tables in store.counts().values()
        )

    def test_a_claim_without_rows_is_void(self, store: Store, tmp_path: Path) -> None:
        source = csv(day_file(tmp_path, 0))
        # What comes after the claim fails: a file is where the recovery folder is to be.
        (tmp_path / "taken").write_text("")
        said = ended(started(store, source, "--recovery", str(tmp_path / "taken")), 1)
        assert "the recovery folder" in said
        assert states(store) == ["cut off"]
        load(store, source)
        assert states(store) == ["complete"]

    def test_a_feed_is_replaced_as_a_whole_beside_a_live_run(
        self, store: Store, tmp_path: Path
    ) -> None:
        path = day_file(tmp_path, 0, 500)
        load(store, csv(path))
        (number,) = store.counts()
        live = started(store, LONG)
        until(lambda: len(store.feeds()) == 2, "the other run's claim")
        shorter = "\n".join(path.read_text().split("\n")[:101])
        path.write_text(shorter + "\n")
        # The same beginning is another feed's now: what was there of the old one goes.
        summary = load(store, csv(path), recovery=tmp_path / "new", replace=True)
        assert summary["rows_written"] > 0
        ended(live)
        by_source = {feed["source"]: feed for feed in store.feeds()}
        assert by_source[csv(path)]["rows"]["trades"] == 100
        assert by_source[csv(path)]["state"] == "complete"
        assert number not in store.counts()
        assert store.counts() == store.counted()
        alone = store.fresh()
        load(alone, LONG)
        (other,) = alone.counts()
        assert store.of_feed(other) == alone.rows()
        # Done before: no change.
        again = load(store, csv(path), recovery=tmp_path / "new", replace=True)
        assert (again["rows_replaced"], again["rows_written"]) == (0, 0)

    def test_a_replacement_that_is_killed_leaves_the_old_or_the_new(
        self, store: Store, tmp_path: Path
    ) -> None:
        first, second = store.fresh(), store.fresh()
        intervals = ["--intervals", "1s"]
        load(first, LONG)
        ended(started(second, LONG, *intervals))
        load(store, LONG)
        luck = chance()
        more = ["--replace", "--recovery", str(tmp_path / "recovery"), *intervals]
        old, new = first.rows(), second.rows()
        assert old != new
        for _ in range(3):
            child = started(store, LONG, *more)
            with suppress(subprocess.TimeoutExpired):
                child.wait(luck.uniform(0.3, 4.0))
            child.kill()
            child.communicate()
            assert store.rows() in (old, new)
            assert store.counts() == store.counted()
        ended(started(store, LONG, *more))
        assert store.rows() == new
        assert store.counts() == store.counted()
        (feed,) = store.feeds()
        assert feed["state"] == "complete"
        assert feed["settings"]["intervals"] == ["1s"]
        # The recovery folder is of a replacement, and says so to whoever leaves the flag out.
        said = ended(started(store, LONG, *more[1:]), 2)
        assert "belongs to a run with replace = True, this one has False" in said

    def test_thirty_daily_files_one_of_which_is_replaced(
        self, store: Store, tmp_path: Path
    ) -> None:
        paths = [day_file(tmp_path, day) for day in range(30)]
        for path in paths:
            load(store, csv(path))
        before = store.rows()
        assert len(before["trades"]) == 30 * 60
        assert [feed["rows"]["trades"] for feed in store.feeds()] == [60] * 30
        with pytest.raises(UsageError, match="already"):
            load(store, f"csv:{tmp_path}/day-*.csv?table=trades")

        # The day came again, mended: under the same name it is what is to be replaced.
        lines = paths[17].read_text().split("\n")
        mended = [*lines[:40], *(line.replace("buy", "sell") for line in lines[40:50]), ""]
        paths[17].write_text("\n".join(mended))
        done = load(store, csv(paths[17]), recovery=tmp_path / "recovery", replace=True)
        assert done["rows_replaced"] > done["rows_written"] >= 49
        of_day = [60] * 17 + [49] + [60] * 12
        told = {feed["source"]: feed["rows"]["trades"] for feed in store.feeds()}
        assert [told[csv(path)] for path in paths] == of_day
        assert store.counts() == store.counted()
        whole = store.fresh()
        for path in reversed(paths):
            load(whole, csv(path))
        assert store.rows() == whole.rows()
        # Every other day is as it was, to the row.
        numbers = {feed["feed"] for feed in store.feeds() if feed["source"] != csv(paths[17])}
        kept = {k: row for k, row in before["trades"].items() if feed_of(k[0]) in numbers}
        assert len(kept) == 29 * 60
        assert kept.items() <= store.rows()["trades"].items()

    def test_who_was_superseded_in_the_store_is_refused(self, store: Store, tmp_path: Path) -> None:
        source = csv(day_file(tmp_path, 0))
        load(store, source, recovery=tmp_path / "first")
        load(store, source, recovery=tmp_path / "second", replace=True)
        with pytest.raises(UsageError, match="was replaced by another run, it cannot go on"):
            load(store, source, recovery=tmp_path / "first")
        (feed,) = store.feeds()
        note = json.loads((tmp_path / "second" / "run.json").read_text())
        assert feed["run"] == note["id"]
        assert writers_of(feed["run"]).startswith("r")


def _until_rows(child: subprocess.Popen[str], store: Store) -> None:
    until(lambda: child.poll() is not None or store.counts(), "rows")
