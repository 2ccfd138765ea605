"""Files that are whole or not there: what kills leave beside them goes, what lives stays."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marketflow.flows.runtime import checkpoints, recovery
from marketflow.sinks.durable import Survives, replacing, sweep
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lake.compact import alone
from marketflow.sinks.lake.layout import own_folder
from marketflow.sinks.lake.run import WriterFolder
from marketflow.sinks.lake.writer import ParquetWriter
from marketflow.sinks.raw.files import RawFileWriter
from tests.support.many_files import few_items
from tests.support.patience import PATIENCE_S

_WRITING = """
import sys
from pathlib import Path
from marketflow.sinks.durable import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"new")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""
#: Writes a lake and is killed in the middle of replacing the file that says how far it is.
_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support.many_files import few_items
from marketflow.sinks.lake.writer import ParquetWriter
replace = Path.replace
def killed(self, target):
    if Path(target).name == "committed.json":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = killed
writer = ParquetWriter(Path(sys.argv[1]), "w0", "recovery")
for item in few_items():
    writer.write(item)
writer.snapshot()
writer.close()
"""


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*"))


@contextmanager
def a_process_that_writes(path: Path) -> Iterator[subprocess.Popen[str]]:
    """In the middle of replacing the file; it goes on when its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITING, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        yield child


def test_an_error_on_the_way_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half of it")
        raise ZeroDivisionError
    assert (path.read_bytes(), hidden(tmp_path)) == (b"old", [])
    with replacing(path) as file:
        file.write(b"new")
    assert (path.read_bytes(), hidden(tmp_path)) == (b"new", [])


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with a_process_that_writes(path) as dead:
        dead.kill()
    with a_process_that_writes(path) as living:
        assert len(hidden(tmp_path)) == 2
        # Ids of processes that come again tell nothing.
        for pid in (os.getpid(), living.pid):
            (tmp_path / f".file.{pid}.tmp").touch()
        sweep(tmp_path, "file")
        assert len(hidden(tmp_path)) == 1
        living.communicate(timeout=PATIENCE_S)
    assert (path.read_bytes(), hidden(tmp_path)) == (b"new", [])


def test_writing_and_sweeping_at_once(tmp_path: Path) -> None:
    """A temporary may be found before it is locked."""
    over = threading.Event()

    def sweeping() -> None:
        while not over.is_set():
            sweep(tmp_path)

    sweepers = [threading.Thread(target=sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(300):
            with replacing(tmp_path / "file", Survives.PROCESS) as file:
                file.write(b"%d" % number)
            assert (tmp_path / "file").read_bytes() == b"%d" % number
    finally:
        over.set()
        for sweeper in sweepers:
            sweeper.join()
    assert hidden(tmp_path) == []


def test_a_lake_whose_writer_was_killed_in_the_middle_of_saying_how_far_it_is(
    tmp_path: Path,
) -> None:
    lake = tmp_path / "lake"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(lake)], timeout=PATIENCE_S)
    assert killed.returncode == -9
    assert [name[:16] for name in hidden(lake)] == [".committed.json."]
    writer = ParquetWriter(lake, "w0", "recovery")
    writer.write(few_items()[0])
    writer.close()
    assert hidden(lake) == []


def test_a_writer_sweeps_for_those_that_will_not_come_again(tmp_path: Path) -> None:
    """A run of fewer processes, or of another layout, has other writers."""
    lake = tmp_path / "lake"
    for name in ("w1", "w2"):
        writer = ParquetWriter(lake, name, "recovery")
        writer.write(few_items()[0])
        writer.close()
    partition = next((lake / "trades").rglob("*.parquet")).parent
    own = own_folder(lake)

    def left(writer: str) -> list[Path]:
        run = own / writer / "run-000001"
        return [
            partition / f".{writer}-000001-00000009.parquet.tmp",
            run / ".committed.json.4711.tmp",
            run / ".log-00000002.rows.tmp",
            own / writer / ".run-000002.tmp" / "run.json",
        ]

    for path in (*left("w1"), *left("w2"), own / ".lake.json.1.tmp", own / ".compact.json.1.tmp"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    living = WriterFolder.acquire(lake, "w2")
    writer = ParquetWriter(lake, "w0", "recovery")
    writer.write(few_items()[0])
    writer.close()
    assert hidden(lake) == sorted([*(path.name for path in left("w2")[:3]), ".run-000002.tmp"])
    living.release()
    with alone(lake):
        pass
    (own / ".compact.json.1.tmp").touch()
    with alone(lake):
        assert not list(own.glob(".compact*"))


def test_who_looks_for_leftovers_is_taken_for_no_writer(tmp_path: Path) -> None:
    writer = ParquetWriter(tmp_path, "w1", "recovery")
    writer.write(few_items()[0])
    folder = own_folder(tmp_path) / "w1"
    with WriterFolder.unused(folder) as unused:
        assert not unused
    with pytest.raises(SinkError, match=rf"is being written by process {os.getpid()} \(as w1\)"):
        WriterFolder.acquire(tmp_path, "w1")
    writer.close()
    found: list[WriterFolder] = []
    begins = threading.Thread(target=lambda: found.append(WriterFolder.acquire(tmp_path, "w1")))
    with WriterFolder.unused(folder) as unused, WriterFolder.unused(folder) as too:
        assert unused
        assert too
        begins.start()
        begins.join(0.2)
        assert begins.is_alive()
    begins.join()
    found[0].release()


def test_folders_of_recordings_runs_and_checkpoints(tmp_path: Path) -> None:
    run, checks = tmp_path / "run", tmp_path / "run" / checkpoints.FOLDER
    frames = tmp_path / "frames" / "venue=kraken"
    identity = {"flow": "market_data"}
    recovery.prepare(run, identity, 1)
    for folder in (checks, frames):
        folder.mkdir(parents=True)
    for path in (run / "run.json", checks / "1-p0.checkpoint", frames / "1-1-1.parquet"):
        path.with_name(f".{path.name}.0a1b2c3d.tmp").touch()
    recovery.prepare(run, identity, 1)
    checkpoints.note(run, {})
    RawFileWriter(tmp_path, "kraken")
    assert hidden(tmp_path) == []
