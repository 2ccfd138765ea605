"""What every sink's writer keeps to: one suite for all of them.

A test module that has the stores subclasses :class:`WriterContract` and gives the fixture
``store``. Run as a module it is the process that dies: ``python -m tests.contract.writers``.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from marketflow.schemas.fields import Table
from marketflow.schemas.messages import single_rows
from marketflow.schemas.tables import TABLES
from marketflow.sinks.errors import SinkError
from marketflow.sinks.registry import parse_sink
from marketflow.sinks.writer import HoldingWriter, Writer, fence_all
from tests.support.batches import Feed, Item
from tests.support.lake_model import LakeRows, lake_rows
from tests.support.patience import PATIENCE_S
from tests.support.root import ROOT
from tests.support.services.topics import Cluster, plain
from tests.support.stored import Expected, stored_rows

_SOME = {"trades": 12, "depth": 5, "bars": 3, "dead_letters": 1}
_RECOVERY = "4f2c"
#: w: write the next rows, s: take a snapshot, k: keep it, i: idle, c: close. Death comes after one.
_LIFE = "wwskwiwskwsc"


class Store(NamedTuple):
    """A store under test.

    ``lazy``: URL of a sink that shows rows as late as it may.
    ``eager``: URL of one that shows them as early as it can.
    ``rows``: every row that readers see; one that is there twice is an error.
    ``keeps``: whether the sink keeps anything.
    ``dies``: modes in which its process dies (others have tests of their own).
    ``bound_bytes``: most that rows on their way take of Arrow's memory.
    """

    lazy: str
    eager: str
    rows: Callable[[], LakeRows]
    keeps: bool = True
    dies: tuple[str, ...] = ("lazy", "eager")
    bound_bytes: int = 6_000_000

    def open(self, url: str = "", writer: str = "w0") -> Writer:
        """A writer of a run with a recovery folder."""
        return parse_sink(url or self.lazy).open(writer, _RECOVERY)

    def holds(self, items: Iterable[Item]) -> None:
        """The store has exactly these rows, each once and with every value."""
        model = Expected()
        for item in items if self.keeps else ():
            model.write(item)
        found, wanted = self.rows(), {n: rows for n, rows in model.rows.items() if rows}
        assert {name: len(rows) for name, rows in found.items() if rows} == {
            name: len(rows) for name, rows in wanted.items()
        }
        for name, rows in wanted.items():
            assert found[name] == rows, name


# -- stores ---------------------------------------------------------------------------------------


def lake_store(folder: Path) -> Store:
    """A lake."""
    root = folder / "lake"
    return Store(
        f"parquet:{root}?max_pending_bytes=1000000",
        f"parquet:{root}?seal_rows=1&max_pending_bytes=1",
        lambda: {
            name: {key: row[:-1] for key, row in rows.items()}
            for name, rows in lake_rows(root).items()
        },
    )


def jsonl_store(folder: Path) -> Store:
    """A folder of JSON lines, a file per writer."""
    url = f"jsonl:{folder / 'rows.jsonl'}"
    return Store(url, url, lambda: _of_lines(folder), dies=("lazy",))


def null_store(_: Path) -> Store:
    """Nothing."""
    return Store("null:", "null:", dict, keeps=False, dies=("lazy",))


def database_store(dsn: str) -> Store:
    """A migrated database."""
    return Store(
        f"timescale:{dsn}?flush_after_s=1e9&flush_bytes=1000000",
        f"timescale:{dsn}?flush_rows=1",
        lambda: stored_rows(dsn),
    )


def topics_store(cluster: Cluster, prefix: str) -> Store:
    """Topics of all tables below a prefix."""
    url = f"kafka://{cluster.brokers}/{prefix}"
    return Store(
        f"{url}?commit_ms=1000000",
        f"{url}?commit_ms=1",
        lambda: {
            name: dict(_keyed(table, cluster.rows(prefix, name))) for name, table in TABLES.items()
        },
        dies=("lazy",),
        bound_bytes=24_000_000,  # a transaction
    )


def _of_lines(folder: Path) -> LakeRows:
    found: LakeRows = defaultdict(dict)
    for path in folder.glob("rows*.jsonl"):
        for line in path.read_bytes().splitlines():
            name = json.loads(line)["table"]
            batch = single_rows.to_batch(TABLES[name], [single_rows.from_json(TABLES[name], line)])
            for key, row in _keyed(TABLES[name], plain(batch)):
                assert key not in found[name], f"{name} {key} is there twice"
                found[name][key] = row
    return found


def _keyed(
    table: Table, rows: Iterable[dict[str, Any]]
) -> Iterator[tuple[tuple[int, int], tuple[Any, ...]]]:
    for row in rows:
        yield (row["shard"], row["row_sequence"]), tuple(row[f.name] for f in table.fields)


LOCAL_STORES: dict[str, Callable[[Path], Store]] = {
    "parquet": lake_store,
    "jsonl": jsonl_store,
    "null": null_store,
}
SERVER_STORES = ("timescale", "kafka")


# -- rows -----------------------------------------------------------------------------------------


def items(count: int, rows: dict[str, int] | None = None, first_shard: int = 0) -> list[Item]:
    """What a flow computes, the same every time: in turn for two shards and a feed's own one."""
    feed = Feed(np.random.default_rng(11))
    shards = (first_shard, first_shard + 1, -1 - first_shard)
    return [feed.item(shards[k % 3], dict(rows or _SOME)) for k in range(count)]


def pieces(written: Iterable[Item], rows: int) -> Iterator[Item]:
    """The same rows in batches of at most ``rows``."""
    for item in written:
        for name, batch in item.tables.items():
            for k in range(0, batch.num_rows, rows):
                yield Item(item.shard, {name: batch.slice(k, rows)})


def write(writer: Writer, written: Iterable[Item]) -> None:
    for item in written:
        writer.write(item)


def end(writer: Writer) -> None:
    """The end of a flow whose last snapshot is durable."""
    writer.snapshot()
    writer.close()
    if isinstance(writer, HoldingWriter):
        writer.finish()


def die(writer: Writer) -> None:
    """A crash without the end of the process."""
    if isinstance(writer, HoldingWriter):
        writer.abandon()


# -- the process that dies ------------------------------------------------------------------------


def _live(url: str, writer_id: str, first_shard: int, kept: Path, steps: str) -> None:
    """A flow that ends after these steps of its life."""
    writer = parse_sink(url).open(writer_id, _RECOVERY)
    rest = items(_LIFE.count("w"), first_shard=first_shard)
    at, state = 0, None
    for step in steps:
        match step:
            case "w":
                writer.write(rest[at])
                at += 1
            case "s":
                state = (at, writer.snapshot())
            case "k":
                kept.write_bytes(pickle.dumps(state))
            case "i" if isinstance(writer, HoldingWriter):
                writer.idle()
            case "c":
                writer.close()
    os._exit(9)


def main() -> None:
    """Die once after each step, each time as another writer. A death is a child's, so that one
    process loads the libraries for all."""
    url, folder = sys.argv[1], Path(sys.argv[2])
    for room in ("lake", "timescale", "kafka"):
        import_module(f"marketflow.sinks.{room}.writer")
    for death in range(1, len(_LIFE) + 1):
        child = os.fork()
        if not child:
            _live(url, f"w{death}", 2 * death, folder / f"kept-{death}", _LIFE[:death])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, death


# -- the contract ---------------------------------------------------------------------------------


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(held) for key, held in value.items())
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, bytes)


class WriterContract:
    """Tests of any store."""

    @pytest.mark.parametrize("seed", [1, 2])
    def test_every_value_of_every_table_comes_back(self, store: Store, seed: int) -> None:
        feed = Feed(np.random.default_rng(seed))
        written = [feed.item(shard, dict.fromkeys(TABLES, 17)) for shard in (0, 1, 0, -1)]
        writer = store.open(store.eager if seed == 1 else store.lazy)
        write(writer, written)
        end(writer)
        store.holds(written)

    def test_where_batches_are_cut_does_not_matter(self, store: Store) -> None:
        written = items(6)
        writer = store.open(store.eager)
        write(writer, pieces(written, 5))
        end(writer)
        store.holds(written)

    @pytest.mark.parametrize("mode", ["lazy", "eager"])
    def test_a_process_that_dies_after_any_step(
        self, store: Store, mode: str, tmp_path: Path
    ) -> None:
        url = getattr(store, mode)
        if mode not in store.dies:
            pytest.skip("killed in this mode by tests of its own, or it has only one")
        done = subprocess.run(
            [sys.executable, "-m", "tests.contract.writers", url, str(tmp_path)],
            cwd=ROOT, capture_output=True, text=True, timeout=5 * PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        everything: list[Item] = []
        deaths = range(1, len(_LIFE) + 1)
        writers = [store.open(url, f"w{death}") for death in deaths]
        # One may wait for what another left open.
        fence_all([writers])
        for death, writer in zip(deaths, writers, strict=True):
            written = items(_LIFE.count("w"), first_shard=2 * death)
            kept, at = tmp_path / f"kept-{death}", 0
            if kept.is_file():
                at, state = pickle.loads(kept.read_bytes())
                writer.restore(state)
            write(writer, pieces(written[at:], 7))
            end(writer)
            everything += written
        store.holds(everything)

    @pytest.mark.parametrize("mode", ["lazy", "eager"])
    def test_an_older_snapshot_takes_back_what_came_later(self, store: Store, mode: str) -> None:
        written = items(9)
        writer = store.open(getattr(store, mode))
        write(writer, written[:3])
        older = writer.snapshot()
        write(writer, written[3:6])
        writer.snapshot()
        write(writer, written[6:8])
        die(writer)
        again = store.open(getattr(store, mode))
        again.restore(older)
        write(again, pieces(written[3:], 4))
        end(again)
        store.holds(written)

    def test_a_run_that_ended_goes_on_later(self, store: Store) -> None:
        written = items(6)
        writer = store.open()
        write(writer, written[:3])
        state = writer.snapshot()
        end(writer)
        again = store.open()
        again.restore(state)
        write(again, written[3:])
        end(again)
        store.holds(written)

    def test_closing_twice_is_closing_once(self, store: Store) -> None:
        written = items(3)
        writer = store.open()
        write(writer, written)
        end(writer)
        writer.close()
        store.holds(written)

    def test_a_run_without_rows(self, store: Store) -> None:
        writer = store.open()
        state = writer.snapshot()
        end(writer)
        again = store.open()
        again.restore(state)
        end(again)
        store.holds([])

    def test_a_writer_that_was_replaced_cannot_write(self, store: Store) -> None:
        """Either it is shut out, or it has to end before another may begin."""
        if not store.keeps:
            return
        written = items(6)
        old = store.open(store.eager)
        write(old, written[:2])
        state = old.snapshot()
        write(old, written[2:3])
        new = store.open(store.eager)
        try:
            new.restore(state)
        except SinkError:
            write(old, written[3:])
            end(old)
        else:
            write(new, written[2:4])
            new.snapshot()
            with pytest.raises((SinkError, OSError)):
                write(old, written[3:])
                old.snapshot()
            write(new, written[4:])
            end(new)
        store.holds(written)

    def test_a_snapshot_is_plain_data_of_its_moment(self, store: Store) -> None:
        written = items(6)
        writer = store.open()
        write(writer, written[:3])
        state = writer.snapshot()
        before = copy.deepcopy(state)
        write(writer, written[3:])
        end(writer)
        assert state == before == pickle.loads(pickle.dumps(state))
        assert _is_plain(state)

    def test_buffers_are_bounded(self, store: Store) -> None:
        """Twice as much is written as may be under way."""
        writer = store.open()
        feed = Feed(np.random.default_rng(5), days=1)
        most = written_bytes = 0
        before = pa.total_allocated_bytes()
        while written_bytes < 2 * store.bound_bytes:
            item = feed.item(0, {"trades": 8_000})
            written_bytes += item.tables["trades"].nbytes
            writer.write(item)
            del item
            most = max(most, pa.total_allocated_bytes() - before)
        end(writer)
        assert most < store.bound_bytes


if __name__ == "__main__":
    main()
